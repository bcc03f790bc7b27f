/* SentencePiece's tokenizer.model: a protobuf message with the pieces, their scores, and how to
 * normalize. Unigram and BPE models are read; a BPE's merges are not stored: two pieces merge when
 * their concatenation is a piece, the highest score first.
 *
 * Fields (sentencepiece_model.proto): 1 pieces {1 text, 2 score, 3 type}, 2 trainer {3 model type,
 * 24 white space as suffix, 35 byte fallback, 40-43 ids of unk, bos, eos, pad}, 3 normalizer {2
 * character map, 3 dummy prefix, 4 extra white space, 5 escaping}. */
#include "base/file_map.h"
#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/parts.h"
#include "text/tokenizer/protobuf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES_MAX = 1024 };

typedef enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN,
    PIECE_CONTROL,
    PIECE_USER_DEFINED,
    PIECE_UNUSED,
    PIECE_BYTE
} piece_type;

typedef struct sp_piece {
    float score;
    piece_type type;
} sp_piece;

typedef struct sp_model {
    const char *path;
    sp_piece *pieces; /* by id */
    size_t n, capacity;
    uint64_t model_type;
    bool suffix_whitespace, byte_fallback;
    int64_t unk_id, bos_id, eos_id, pad_id;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    const unsigned char *charsmap;
    size_t charsmap_bytes;
} sp_model;

static graft_status damaged(const sp_model *sp, const char *what, graft_error *err) {
    return error_set(err, GRAFT_E_INPUT,
                     "%s: damaged: %s is no valid protobuf message; download the file again",
                     sp->path, what);
}

static graft_status read_piece(sp_model *sp, vocab *tokens, const protobuf_field *message,
                               graft_error *err) {
    protobuf_reader r = {message->bytes, message->bytes + message->n};
    protobuf_field field, text = {0};
    protobuf_result result;
    sp_piece piece = {0.0f, PIECE_NORMAL};
    while ((result = protobuf_next(&r, &field)) == PROTOBUF_FIELD) {
        if (field.number == 1)
            text = field;
        else if (field.number == 2)
            piece.score = protobuf_float(&field);
        else if (field.number == 3)
            piece.type = (piece_type)(field.value > PIECE_BYTE ? 0 : field.value);
    }
    if (result == PROTOBUF_DAMAGED || !text.bytes)
        return damaged(sp, "a piece", err);
    if (text.n > PIECE_BYTES_MAX || !isfinite(piece.score) || piece.type == 0 ||
        utf8_valid_length((const char *)text.bytes, text.n) != text.n)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: piece %zu: expected at most %d bytes of UTF-8, a finite score and a "
                         "known type",
                         sp->path, sp->n, PIECE_BYTES_MAX);
    if (sp->n >= VOCAB_IDS_MAX ||
        !mem_reserve(&sp->pieces, &sp->capacity, sp->n + 1, sizeof *sp->pieces))
        return error_memory(err, sp->n * sizeof *sp->pieces, "the pieces");
    vocab_result added = vocab_add(tokens, (const char *)text.bytes, text.n, (int32_t)sp->n);
    if (added == VOCAB_NO_MEMORY)
        return error_memory(err, tokens->n_bytes, "the vocabulary");
    if (added != VOCAB_ADDED)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: piece %zu: \"%.*s\" is there before; pieces must differ", sp->path,
                         sp->n, (int)(text.n < 64 ? text.n : 64), (const char *)text.bytes);
    sp->pieces[sp->n++] = piece;
    return GRAFT_OK;
}

static graft_status read_trainer(sp_model *sp, const protobuf_field *message, graft_error *err) {
    protobuf_reader r = {message->bytes, message->bytes + message->n};
    protobuf_field field;
    protobuf_result result;
    while ((result = protobuf_next(&r, &field)) == PROTOBUF_FIELD) {
        int64_t id = (int32_t)(uint32_t)field.value;
        switch (field.number) {
        case 3:
            sp->model_type = field.value;
            break;
        case 24:
            sp->suffix_whitespace = field.value != 0;
            break;
        case 35:
            sp->byte_fallback = field.value != 0;
            break;
        case 40:
            sp->unk_id = id;
            break;
        case 41:
            sp->bos_id = id;
            break;
        case 42:
            sp->eos_id = id;
            break;
        case 43:
            sp->pad_id = id;
            break;
        default:
            break;
        }
    }
    return result == PROTOBUF_DAMAGED ? damaged(sp, "the trainer's settings", err) : GRAFT_OK;
}

static graft_status read_normalizer(sp_model *sp, const protobuf_field *message, graft_error *err) {
    protobuf_reader r = {message->bytes, message->bytes + message->n};
    protobuf_field field;
    protobuf_result result;
    while ((result = protobuf_next(&r, &field)) == PROTOBUF_FIELD) {
        if (field.number == 2 && field.bytes) {
            sp->charsmap = field.bytes;
            sp->charsmap_bytes = field.n;
        } else if (field.number == 3) {
            sp->add_dummy_prefix = field.value != 0;
        } else if (field.number == 4) {
            sp->remove_extra_whitespaces = field.value != 0;
        } else if (field.number == 5) {
            sp->escape_whitespaces = field.value != 0;
        }
    }
    return result == PROTOBUF_DAMAGED ? damaged(sp, "the normalizer's settings", err) : GRAFT_OK;
}

static graft_status read_model(sp_model *sp, vocab *tokens, const unsigned char *bytes, size_t n,
                               graft_error *err) {
    protobuf_reader r = {bytes, bytes + n};
    protobuf_field field;
    protobuf_result result;
    graft_status status = GRAFT_OK;
    while (status == GRAFT_OK && (result = protobuf_next(&r, &field)) != PROTOBUF_END) {
        if (result == PROTOBUF_DAMAGED)
            return damaged(sp, "it", err);
        if (field.number == 1 && field.bytes)
            status = read_piece(sp, tokens, &field, err);
        else if (field.number == 2 && field.bytes)
            status = read_trainer(sp, &field, err);
        else if (field.number == 3 && field.bytes)
            status = read_normalizer(sp, &field, err);
    }
    if (status == GRAFT_OK && sp->n == 0)
        return error_set(err, GRAFT_E_INPUT, "%s: no pieces; expected a SentencePiece model",
                         sp->path);
    return status;
}

/* ---- Models ---- */

typedef struct ranked_piece {
    int32_t id;
    float score;
} ranked_piece;

static int higher_score_first(const void *a, const void *b) {
    float left = ((const ranked_piece *)a)->score, right = ((const ranked_piece *)b)->score;
    return (left < right) - (left > right);
}

static bool is_normal(const sp_model *sp, int32_t id) {
    return id >= 0 && sp->pieces[id].type == PIECE_NORMAL;
}

/* All ways to make the piece of two others; pieces of one score have one rank, and the leftmost is
 * merged first. */
static graft_status add_piece_pairs(const sp_model *sp, model *m, int32_t id, uint32_t rank,
                                    graft_error *err) {
    size_t n;
    const char *text = vocab_text(&m->tokens, id, &n);
    graft_status status = GRAFT_OK;
    for (size_t cut = n ? char_length(*text) : 0; cut < n && status == GRAFT_OK;
         cut += char_length(text[cut])) {
        int32_t left = vocab_find(&m->tokens, text, cut);
        int32_t right = vocab_find(&m->tokens, text + cut, n - cut);
        if (is_normal(sp, left) && is_normal(sp, right))
            status = bpe_add_pair(&m->bpe, left, right, rank, id, err);
    }
    return status;
}

static graft_status fill_bpe(const sp_model *sp, model *m, graft_error *err) {
    ranked_piece *order = mem_array(sp->n, sizeof *order);
    size_t n = 0;
    if (!order)
        return error_memory(err, sp->n * sizeof *order, "the pieces");
    for (size_t i = 0; i < sp->n; i++)
        if (sp->pieces[i].type == PIECE_NORMAL)
            order[n++] = (ranked_piece){(int32_t)i, sp->pieces[i].score};
    qsort(order, n, sizeof *order, higher_score_first);
    graft_status status = GRAFT_OK;
    uint32_t rank = 0;
    for (size_t i = 0; i < n && status == GRAFT_OK; i++) {
        rank += i > 0 && order[i].score != order[i - 1].score;
        status = add_piece_pairs(sp, m, order[i].id, rank, err);
    }
    free(order);
    m->bpe.byte_fallback = sp->byte_fallback;
    m->bpe.fuse_unk = true;
    return status;
}

/* Only normal pieces are found in text. */
static graft_status fill_unigram(const sp_model *sp, model *m, graft_error *err) {
    m->unigram.scores = mem_array(sp->n, sizeof *m->unigram.scores);
    if (!m->unigram.scores)
        return error_memory(err, sp->n * sizeof *m->unigram.scores, "the scores");
    for (size_t i = 0; i < sp->n; i++)
        m->unigram.scores[i] =
            sp->pieces[i].type == PIECE_NORMAL ? (double)sp->pieces[i].score : -INFINITY;
    m->unigram.byte_fallback = sp->byte_fallback;
    m->unigram.single_precision = true;
    return GRAFT_OK;
}

static graft_status fill_model(const sp_model *sp, model *m, graft_error *err) {
    enum { UNIGRAM = 1, BPE = 2 };
    static const char *const types[] = {"0", "unigram", "bpe", "word", "char"};
    m->unk_id = sp->unk_id >= 0 && (size_t)sp->unk_id < sp->n ? (int32_t)sp->unk_id : UNK_NONE;
    for (size_t i = 0; i < sp->n; i++)
        if (sp->pieces[i].type == PIECE_UNUSED)
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "%s: piece %zu is of the type UNUSED, which Graft does not have",
                             sp->path, i);
    if (sp->suffix_whitespace)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: treat_whitespace_as_suffix is set, which Graft does not have",
                         sp->path);
    if (sp->model_type == UNIGRAM) {
        m->kind = MODEL_UNIGRAM;
        return fill_unigram(sp, m, err);
    }
    if (sp->model_type == BPE) {
        m->kind = MODEL_BPE;
        return fill_bpe(sp, m, err);
    }
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: a model of the type %s; Graft has unigram and bpe", sp->path,
                     sp->model_type < 5 ? types[sp->model_type] : "unknown");
}

/* ---- The pipeline around it ---- */

static graft_status fill_normalizer(const sp_model *sp, tokenizer *t, graft_error *err) {
    normalizer *step = normalizer_list_add(&t->normalizers);
    if (!step)
        return error_memory(err, sizeof *step, "a normalizer");
    step->kind = NORMALIZER_SENTENCEPIECE;
    step->add_dummy_prefix = sp->add_dummy_prefix;
    step->remove_extra_whitespaces = sp->remove_extra_whitespaces;
    step->escape_whitespaces = sp->escape_whitespaces;
    return sp->charsmap_bytes
               ? charsmap_read(&step->map, sp->charsmap, sp->charsmap_bytes, sp->path, err)
               : GRAFT_OK;
}

/* U+2581 to spaces, bytes to text, all in one, without the dummy prefix (or any space where those
 * are removed). */
static graft_status fill_decoders(const sp_model *sp, tokenizer *t, graft_error *err) {
    graft_status status = add_decoder(t, DECODER_REPLACE, err);
    if (status != GRAFT_OK)
        return status;
    decoder *step = &t->decoders.items[t->decoders.n - 1];
    step->content = mem_text(" ", 1);
    if (!step->content)
        return error_memory(err, 1, "a decoder");
    status = text_pattern_literal(&step->pattern, "\xE2\x96\x81", 3, err);
    if (status == GRAFT_OK)
        status = add_decoder(t, DECODER_BYTE_FALLBACK, err);
    if (status == GRAFT_OK)
        status = add_decoder(t, DECODER_FUSE, err);
    if (status != GRAFT_OK || (!sp->add_dummy_prefix && !sp->remove_extra_whitespaces))
        return status;
    status = add_decoder(t, DECODER_STRIP, err);
    if (status == GRAFT_OK) {
        t->decoders.items[t->decoders.n - 1].character = ' ';
        t->decoders.items[t->decoders.n - 1].start = sp->remove_extra_whitespaces ? SIZE_MAX : 1;
    }
    return status;
}

/* The config's flags, or what the model's usual class does: T5 ends with EOS, Llama and its like
 * begin with BOS. */
static graft_status fill_template(const sp_model *sp, tokenizer *t, const tokenizer_config *c,
                                  graft_error *err) {
    const char *class;
    bool begins, ends;
    const char *place = "tokenizer_config.json";
    graft_status status = json_get_string(&class, c->config, "tokenizer_class", "", place, err);
    bool is_t5 = status == GRAFT_OK && strncmp(class, "T5", 2) == 0;
    bool is_llama = sp->model_type == 2 && !is_t5;
    if (status == GRAFT_OK)
        status = json_get_bool(&begins, c->config, "add_bos_token", is_llama, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&ends, c->config, "add_eos_token", is_t5, place, err);
    if (status != GRAFT_OK)
        return status;
    postprocessor *p = &t->postprocessor;
    p->has_template = true;
    if (begins && sp->bos_id >= 0)
        status = postprocessor_add_id(p, (int32_t)sp->bos_id, sp->path, err);
    if (status == GRAFT_OK)
        status = postprocessor_add_id(p, TEMPLATE_TEXT, sp->path, err);
    if (status == GRAFT_OK && ends && sp->eos_id >= 0)
        status = postprocessor_add_id(p, (int32_t)sp->eos_id, sp->path, err);
    return status;
}

/* Control and user-defined pieces are found in the text as they are, before it is normalized. */
static graft_status fill_added(const sp_model *sp, tokenizer *t, const message_sink *sink,
                               graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < sp->n && status == GRAFT_OK; i++) {
        piece_type type = sp->pieces[i].type;
        if (type != PIECE_UNKNOWN && type != PIECE_CONTROL && type != PIECE_USER_DEFINED)
            continue;
        added_token token = {.special = type != PIECE_USER_DEFINED};
        token.content =
            (char *)(uintptr_t)vocab_text(&t->model.tokens, (int32_t)i, &token.content_bytes);
        status = load_added_token(t, &token, (int64_t)i, false, sp->path, sink, err);
    }
    return status;
}

static graft_status name_piece(const sp_model *sp, tokenizer *t, const char *name, int64_t id,
                               graft_error *err) {
    size_t n;
    const char *text =
        id >= 0 && (size_t)id < sp->n ? vocab_text(&t->model.tokens, (int32_t)id, &n) : NULL;
    return text ? tokenizer_name_token(t, name, text, err) : GRAFT_OK;
}

static graft_status fill_names(const sp_model *sp, tokenizer *t, const tokenizer_config *c,
                               graft_error *err) {
    graft_status status = tokenizer_take_names(t, c, err);
    if (status == GRAFT_OK)
        status = name_piece(sp, t, "unk_token", sp->unk_id, err);
    if (status == GRAFT_OK)
        status = name_piece(sp, t, "bos_token", sp->bos_id, err);
    if (status == GRAFT_OK)
        status = name_piece(sp, t, "eos_token", sp->eos_id, err);
    if (status == GRAFT_OK)
        status = name_piece(sp, t, "pad_token", sp->pad_id, err);
    return status;
}

graft_status load_sentencepiece(tokenizer *t, const char *path, const tokenizer_config *c,
                                const message_sink *sink, graft_error *err) {
    sp_model sp = {.path = path,
                   .model_type = 1,
                   .unk_id = 0,
                   .bos_id = 1,
                   .eos_id = 2,
                   .pad_id = -1,
                   .add_dummy_prefix = true,
                   .remove_extra_whitespaces = true,
                   .escape_whitespaces = true};
    file_map map = {0};
    graft_status status = file_map_open(&map, path, err);
    if (status == GRAFT_OK)
        status = read_model(&sp, &t->model.tokens, map.data, map.size, err);
    if (status == GRAFT_OK)
        status = fill_model(&sp, &t->model, err);
    if (status == GRAFT_OK)
        status = fill_normalizer(&sp, t, err);
    if (status == GRAFT_OK)
        status = fill_decoders(&sp, t, err);
    if (status == GRAFT_OK)
        status = fill_template(&sp, t, c, err);
    if (status == GRAFT_OK)
        status = fill_added(&sp, t, sink, err);
    if (status == GRAFT_OK)
        status = load_config_tokens(t, c, false, sink, err);
    if (status == GRAFT_OK)
        status = fill_names(&sp, t, c, err);
    free(sp.pieces);
    file_map_close(&map);
    return status;
}
