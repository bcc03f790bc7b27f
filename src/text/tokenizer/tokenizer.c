#include "text/tokenizer/tokenizer.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/parts.h"

#include <stdlib.h>
#include <string.h>

/* Offsets are 32 bits, and a text this long would need days to train on. */
enum { TEXT_BYTES_MAX = 1 << 30 };

/* How far a normalizer may expand a text: Unicode's own forms stay below 12 times. */
enum { EXPANSION_MAX = 64, EXPANSION_FREE_BYTES = 1 << 20 };

void tokenizer_destroy(tokenizer **address) {
    tokenizer *t = *address;
    if (!t)
        return;
    normalizer_list_free(&t->normalizers);
    pretokenizer_list_free(&t->pretokenizers);
    model_free(&t->model);
    added_tokens_free(&t->added);
    vocab_free(&t->added_names);
    postprocessor_free(&t->postprocessor);
    decoder_list_free(&t->decoders);
    for (size_t i = 0; i < t->n_named; i++) {
        free(t->named[i].name);
        free(t->named[i].text);
    }
    free(t->named);
    for (workspace *w = t->pool, *next; w; w = next) {
        next = w->next;
        workspace_destroy(&w);
    }
    pthread_mutex_destroy(&t->lock);
    free(t);
    *address = NULL;
}

/* ---- Loading ---- */

/* The model reads bytes directly when the last thing before it is to write them as characters. */
static graft_status prepare_model(tokenizer *t, graft_error *err) {
    t->model.is_special = mem_array(t->model.tokens.n_ids, sizeof *t->model.is_special);
    if (!t->model.is_special)
        return error_memory(err, t->model.tokens.n_ids, "the vocabulary");
    for (size_t id = 0; id < t->model.tokens.n_ids; id++)
        t->model.is_special[id] = tokenizer_is_special(t, (int32_t)id);
    pretokenizer *last =
        t->pretokenizers.n ? &t->pretokenizers.items[t->pretokenizers.n - 1] : NULL;
    bool has_byte_level = last && last->kind == PRETOKENIZER_BYTE_LEVEL;
    graft_status status = GRAFT_OK;
    if (t->model.kind == MODEL_BPE)
        status = bpe_prepare(&t->model, has_byte_level, err);
    else if (t->model.kind == MODEL_UNIGRAM)
        status = unigram_prepare(&t->model, err);
    else if (t->model.kind == MODEL_WORDPIECE)
        status = wordpiece_prepare(&t->model, err);
    if (has_byte_level)
        last->keep_bytes = t->model.bpe.reads_bytes;
    return status;
}

static graft_status check_template(const tokenizer *t, const char *path, graft_error *err) {
    for (size_t i = 0; i < t->postprocessor.n_template; i++) {
        int32_t id = t->postprocessor.template_ids[i];
        if (id != TEMPLATE_TEXT && !tokenizer_token_text(t, id))
            return error_set(err, GRAFT_E_INPUT,
                             "%s: post_processor: it adds the token with id %d, and the "
                             "vocabulary has none",
                             path, id);
    }
    return GRAFT_OK;
}

static graft_status prepare(tokenizer *t, const char *path, graft_error *err) {
    graft_status status = prepare_model(t, err);
    if (status == GRAFT_OK)
        status = added_tokens_prepare(&t->added, &t->normalizers, err);
    if (status != GRAFT_OK) {
        error_prefix(err, "%s", path);
        return status;
    }
    size_t n_ids = t->model.tokens.n_ids;
    if (t->added_names.n_ids > n_ids)
        n_ids = t->added_names.n_ids;
    t->n_ids = (int32_t)n_ids;
    return check_template(t, path, err);
}

/* The folder that `path` is or is in; NULL when out of memory. */
static char *folder_of(const char *path) {
    if (path_is_folder(path))
        return mem_text(path, strlen(path));
    const char *slash = strrchr(path, '/');
    return slash ? mem_text(path, (size_t)(slash - path) + 1) : mem_text(".", 1);
}

graft_status tokenizer_load(tokenizer **out, const char *path, const message_sink *sink,
                            graft_error *err) {
    chars_initialize();
    *out = NULL;
    tokenizer *t = mem_array(1, sizeof *t);
    if (!t)
        return error_memory(err, sizeof *t, "a tokenizer");
    pthread_mutex_init(&t->lock, NULL);
    tokenizer_config config = {0};
    char *file = NULL, *folder = folder_of(path);
    graft_status status = folder ? tokenizer_config_read(&config, folder, err)
                                 : error_memory(err, strlen(path), "a path");
    if (status == GRAFT_OK)
        status = load_any(t, &file, path, &config, sink, err);
    if (status == GRAFT_OK)
        status = prepare(t, file, err);
    if (status == GRAFT_OK)
        status = tokenizer_take_names(t, &config, err);
    if (status == GRAFT_OK)
        tokenizer_find_named(t, sink);
    tokenizer_config_free(&config);
    free(folder);
    free(file);
    if (status == GRAFT_OK)
        *out = t;
    else
        tokenizer_destroy(&t);
    return status;
}

/* ---- Encoding ---- */

static graft_status borrow_workspace(workspace **out, const tokenizer *t, graft_error *err) {
    tokenizer *owner = (tokenizer *)(uintptr_t)t;
    pthread_mutex_lock(&owner->lock);
    workspace *w = owner->pool;
    if (w)
        owner->pool = w->next;
    pthread_mutex_unlock(&owner->lock);
    *out = w;
    return w ? GRAFT_OK : workspace_create(out, err);
}

static void return_workspace(workspace *w, const tokenizer *t) {
    tokenizer *owner = (tokenizer *)(uintptr_t)t;
    pthread_mutex_lock(&owner->lock);
    w->next = owner->pool;
    owner->pool = w;
    pthread_mutex_unlock(&owner->lock);
}

static graft_status check_text(const char *text, size_t n, graft_error *err) {
    if (n > TEXT_BYTES_MAX)
        return error_set(err, GRAFT_E_INPUT, "a text of %zu bytes; at most %d are accepted at once",
                         n, TEXT_BYTES_MAX);
    size_t valid = n ? utf8_valid_length(text, n) : 0;
    if (valid < n)
        return error_set(err, GRAFT_E_INPUT,
                         "the text is no valid UTF-8 at byte %zu (0x%02x); convert it to UTF-8",
                         valid, (unsigned char)text[valid]);
    return GRAFT_OK;
}

static void set_limits(workspace *w, size_t n) {
    size_t limit = n * EXPANSION_MAX + EXPANSION_FREE_BYTES;
    if (limit > UINT32_MAX / 2)
        limit = UINT32_MAX / 2;
    for (size_t i = 0; i < 2; i++)
        w->buffers[i].limit = w->steps[i].limit = limit;
}

static graft_status tokenize_pieces(const tokenizer *t, token_writer *writer, graft_error *err) {
    workspace *w = writer->w;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < w->pieces.n && status == GRAFT_OK; i++) {
        text_piece p = w->pieces.items[i];
        writer->piece = text_view_slice(&w->text, p.begin, p.end);
        if (p.id < 0)
            status = model_tokenize(&t->model, writer, err);
        else if (!token_write(writer, p.id, 0, writer->piece.n, writer->piece.bytes,
                              writer->piece.n))
            status = error_memory(err, writer->out->n, "the tokens of a text");
    }
    return status;
}

static graft_status encode_in(const tokenizer *t, workspace *w, encoding *out, const char *text,
                              size_t n, encode_options options, graft_error *err) {
    token_writer writer = {.out = out,
                           .w = w,
                           .text_bytes = (uint32_t)n,
                           .is_plain = options.split_special_tokens,
                           .counts_spaces = t->postprocessor.n_trims > 0};
    w->text = (text_view){text, n, NULL, 0};
    set_limits(w, n);
    graft_status status = added_tokens_split(&t->added, w, options.split_special_tokens, err);
    if (status == GRAFT_OK)
        status = added_tokens_normalize(&t->added, &t->normalizers, w, options.split_special_tokens,
                                        err);
    if (status == GRAFT_OK)
        status = pretokenizer_list_apply(&t->pretokenizers, w, err);
    if (status == GRAFT_OK)
        status = tokenize_pieces(t, &writer, err);
    if (status == GRAFT_OK)
        status =
            postprocessor_apply(&t->postprocessor, w, out, text, options.add_special_tokens, err);
    return status;
}

graft_status tokenizer_encode(const tokenizer *t, encoding *out, const char *text, size_t n,
                              encode_options options, graft_error *err) {
    workspace *w = NULL;
    out->n = 0;
    graft_status status = check_text(text, n, err);
    if (status == GRAFT_OK)
        status = borrow_workspace(&w, t, err);
    if (status != GRAFT_OK)
        return status;
    status = encode_in(t, w, out, text, n, options, err);
    if (status != GRAFT_OK)
        out->n = 0;
    return_workspace(w, t);
    return status;
}

/* ---- Vocabulary ---- */

int32_t tokenizer_vocab_size(const tokenizer *t) {
    return t->n_ids;
}

int32_t tokenizer_token_id(const tokenizer *t, const char *token) {
    size_t n = strlen(token);
    int32_t id = vocab_find(&t->added_names, token, n);
    return id >= 0 ? id : vocab_find(&t->model.tokens, token, n);
}

const char *tokenizer_token_text(const tokenizer *t, int32_t id) {
    const added_token *added = added_token_of(&t->added, id);
    size_t n;
    return added ? added->content : vocab_text(&t->model.tokens, id, &n);
}

bool tokenizer_is_special(const tokenizer *t, int32_t id) {
    const added_token *added = added_token_of(&t->added, id);
    return added && added->special;
}

int32_t tokenizer_bos(const tokenizer *t) {
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t) {
    return t->eos;
}

int32_t tokenizer_pad(const tokenizer *t) {
    return t->pad;
}

bool tokenizer_special_token(const tokenizer *t, size_t i, const char **name, const char **text) {
    if (i >= t->n_named)
        return false;
    *name = t->named[i].name;
    *text = t->named[i].text;
    return true;
}
