#include "train/data/control_text.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Stand-ins are code points PLANE + k for the k-th different token hidden in the row. Planes 15 and
 * 16 are private use: the first is taken unless the row itself uses it. All have four bytes in
 * UTF-8. */
enum { STAND_IN_BYTES = 4, STAND_INS_MAX = 0xFFFD };

typedef struct special_text {
    const char *text;
    size_t length;
} special_text;

struct control_text {
    const tokenizer *tokens;
    special_text *all; /* sorted by first byte, then longest first */
    size_t n, capacity;
    size_t first[257];           /* all[first[c] .. first[c + 1]) begin with byte c */
    uint32_t plane;              /* 15 or 16 */
    const special_text **hidden; /* stand-in k is hidden[k] */
    size_t n_hidden, hidden_capacity;
};

static int compare_specials(const void *a, const void *b) {
    const special_text *x = a, *y = b;
    unsigned char cx = (unsigned char)x->text[0], cy = (unsigned char)y->text[0];
    if (cx != cy)
        return cx < cy ? -1 : 1;
    return (x->length < y->length) - (x->length > y->length);
}

graft_status control_text_create(control_text **out, const tokenizer *tokens, graft_error *err) {
    *out = NULL;
    control_text *c = mem_array(1, sizeof *c);
    if (!c)
        return error_memory(err, sizeof *c, "the special tokens");
    c->tokens = tokens;
    int32_t vocabulary = tokenizer_vocab_size(tokens);
    for (int32_t id = 0; id < vocabulary; id++) {
        const char *text =
            tokenizer_is_special(tokens, id) ? tokenizer_token_text(tokens, id) : NULL;
        if (!text || !*text)
            continue;
        if (!mem_reserve(&c->all, &c->capacity, c->n + 1, sizeof *c->all)) {
            control_text_destroy(&c);
            return error_memory(err, (size_t)vocabulary * sizeof *c->all, "the special tokens");
        }
        c->all[c->n++] = (special_text){text, strlen(text)};
    }
    if (c->n)
        qsort(c->all, c->n, sizeof *c->all, compare_specials);
    for (size_t i = 0, byte = 0; byte <= 256; byte++) {
        while (i < c->n && (unsigned char)c->all[i].text[0] < byte)
            i++;
        c->first[byte] = i;
    }
    *out = c;
    return GRAFT_OK;
}

void control_text_destroy(control_text **c) {
    if (!*c)
        return;
    free((*c)->all);
    free((*c)->hidden);
    free(*c);
    *c = NULL;
}

/* ---- Hiding -----------------------------------------------------------------------------------
 */

/* The special token that stands at text, or NULL. */
static const special_text *special_at(const control_text *c, const char *text, size_t n) {
    unsigned char byte = (unsigned char)text[0];
    for (size_t i = c->first[byte]; i < c->first[byte + 1]; i++)
        if (c->all[i].length <= n && !memcmp(c->all[i].text, text, c->all[i].length))
            return &c->all[i];
    return NULL;
}

typedef struct string_facts {
    bool has_special, uses_plane_15, uses_plane_16;
} string_facts;

static void survey_text(const control_text *c, string_facts *facts, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (c->first[byte] < c->first[byte + 1] && !facts->has_special)
            facts->has_special = special_at(c, text + i, n - i) != NULL;
        if (byte >= 0xF3 && i + 1 < n) {
            unsigned char next = (unsigned char)text[i + 1];
            facts->uses_plane_15 = facts->uses_plane_15 || (byte == 0xF3 && next >= 0xB0);
            facts->uses_plane_16 = facts->uses_plane_16 || (byte == 0xF4 && next >= 0x80);
        }
    }
}

static void survey(const control_text *c, string_facts *facts, json_t *value) {
    if (json_is_string(value)) {
        survey_text(c, facts, json_string_value(value), json_string_length(value));
    } else if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++)
            survey(c, facts, json_array_get(value, i));
    } else if (json_is_object(value)) {
        const char *key;
        json_t *member;
        json_object_foreach(value, key, member) survey(c, facts, member);
    }
}

static void add_stand_in(strbuf *out, uint32_t plane, size_t k) {
    uint32_t point = plane << 16 | (uint32_t)k;
    char bytes[STAND_IN_BYTES] = {(char)(0xF0 | point >> 18), (char)(0x80 | (point >> 12 & 0x3F)),
                                  (char)(0x80 | (point >> 6 & 0x3F)),
                                  (char)(0x80 | (point & 0x3F))};
    strbuf_add(out, bytes, sizeof bytes);
}

/* The number of the stand-in for a token, made when it is the first time. */
static bool stand_in_of(control_text *c, size_t *k, const special_text *special) {
    for (*k = 0; *k < c->n_hidden; ++*k)
        if (c->hidden[*k] == special)
            return true;
    if (c->n_hidden == STAND_INS_MAX ||
        !mem_reserve(&c->hidden, &c->hidden_capacity, c->n_hidden + 1, sizeof *c->hidden))
        return false;
    c->hidden[c->n_hidden++] = special;
    return true;
}

static bool hide_in_string(control_text *c, json_t *value) {
    const char *text = json_string_value(value);
    size_t n = json_string_length(value);
    string_facts facts = {0};
    survey_text(c, &facts, text, n);
    if (!facts.has_special)
        return true;
    strbuf out = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < n;) {
        const special_text *special = special_at(c, text + i, n - i);
        if (!special) {
            strbuf_add_char(&out, text[i++]);
            continue;
        }
        size_t k;
        ok = stand_in_of(c, &k, special);
        add_stand_in(&out, c->plane, k);
        i += special->length;
    }
    ok = ok && !out.failed && !json_string_setn(value, strbuf_text(&out), out.length);
    strbuf_free(&out);
    return ok;
}

static bool hide(control_text *c, json_t *value) {
    if (json_is_string(value))
        return hide_in_string(c, value);
    bool ok = true;
    if (json_is_array(value)) {
        for (size_t i = 0; ok && i < json_array_size(value); i++)
            ok = hide(c, json_array_get(value, i));
    } else if (json_is_object(value)) {
        const char *key;
        json_t *member;
        json_object_foreach(value, key, member) ok = ok && hide(c, member);
    }
    return ok;
}

graft_status control_text_hide(control_text *c, bool *found, json_t *messages, json_t *tools,
                               const char *origin, graft_error *err) {
    string_facts facts = {0};
    survey(c, &facts, messages);
    survey(c, &facts, tools);
    *found = facts.has_special;
    c->n_hidden = 0;
    if (!facts.has_special)
        return GRAFT_OK;
    if (facts.uses_plane_15 && facts.uses_plane_16)
        return error_set(
            err, GRAFT_E_UNSUPPORTED,
            "%s: the row holds control-token text and private-use characters of planes 15 and "
            "16 at once; remove one of them",
            origin);
    c->plane = facts.uses_plane_15 ? 16 : 15;
    if (!hide(c, messages) || !hide(c, tools))
        return error_memory(err, 0, "a row's hidden control tokens");
    return GRAFT_OK;
}

/* ---- Encoding ---------------------------------------------------------------------------------
 */

/* The token that the stand-in at text means; NULL when there is none. */
static const special_text *hidden_at(const control_text *c, const char *text, size_t n) {
    const unsigned char *b = (const unsigned char *)text;
    if (n < STAND_IN_BYTES || (b[0] & 0xF8) != 0xF0)
        return NULL;
    uint32_t point = (uint32_t)(b[0] & 7) << 18 | (uint32_t)(b[1] & 0x3F) << 12 |
                     (uint32_t)(b[2] & 0x3F) << 6 | (uint32_t)(b[3] & 0x3F);
    size_t k = point & 0xFFFF;
    return point >> 16 == c->plane && k < c->n_hidden ? c->hidden[k] : NULL;
}

/* Appends text with the hidden tokens' text put back; says whether there was any. */
static bool restore(const control_text *c, strbuf *out, const char *text, size_t n) {
    bool found = false;
    for (size_t i = 0; i < n;) {
        const special_text *special = hidden_at(c, text + i, n - i);
        if (special) {
            strbuf_add(out, special->text, special->length);
            i += STAND_IN_BYTES;
            found = true;
        } else {
            strbuf_add_char(out, text[i++]);
        }
    }
    return found;
}

/* Moves span borders from the rendered text to the restored one. Borders ascend. */
static void move_spans(const control_text *c, template_result *rendered) {
    const char *text = strbuf_text(&rendered->text);
    size_t n = rendered->text.length, at = 0, restored = 0;
    for (size_t i = 0; i < 2 * rendered->n_spans; i++) {
        template_span *span = &rendered->spans[i / 2];
        size_t *border = i % 2 ? &span->end : &span->begin;
        while (at < *border) {
            const special_text *special = hidden_at(c, text + at, n - at);
            at += special ? (size_t)STAND_IN_BYTES : 1;
            restored += special ? special->length : 1;
        }
        *border = restored;
    }
}

static bool is_white(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Whether token i of the encoding is a control token that stands in the text as it is named; its
 * range may include white space that the token takes with it. (An unknown character's <unk> is
 * special too, but is not in the text.) */
static bool is_control(const control_text *c, const encoding *e, size_t i, const char *text) {
    if (!tokenizer_is_special(c->tokens, e->ids[i]))
        return false;
    const char *name = tokenizer_token_text(c->tokens, e->ids[i]);
    size_t begin = e->begin[i], end = e->end[i], length = name ? strlen(name) : 0;
    while (end - begin > length && is_white(text[begin]))
        begin++;
    while (end - begin > length && is_white(text[end - 1]))
        end--;
    return length && end - begin == length && !memcmp(text + begin, name, length);
}

/* A stretch of the rendered text without control tokens: tokens [first, last), bytes [begin, end).
 */
typedef struct stretch {
    size_t first, last, begin, end;
} stretch;

/* Whether the encoding of a stretch alone (with its stand-ins) is what the whole text gave. */
static bool is_same_stretch(const encoding *whole, const stretch *s, const encoding *alone) {
    return alone->n == s->last - s->first &&
           (!alone->n || !memcmp(alone->ids, whole->ids + s->first, alone->n * sizeof *alone->ids));
}

/* Encodes restored text [at, end of out->text) of a stretch. Some tokenizers put a space before the
 * first word of a text, and only there: a stretch inside the row is then encoded after a newline,
 * which is taken away again. */
static graft_status encode_restored(const control_text *c, encoded_row *out, const encoding *whole,
                                    const char *text, const stretch *s, size_t at,
                                    encoding *scratch, graft_error *err) {
    const encode_options how = {.split_special_tokens = true};
    graft_status status =
        tokenizer_encode(c->tokens, scratch, text + s->begin, s->end - s->begin, how, err);
    if (status != GRAFT_OK)
        return status;
    bool is_alone = s->begin == 0 || is_same_stretch(whole, s, scratch);
    strbuf line = {0};
    strbuf_add_text(&line, is_alone ? "" : "\n");
    strbuf_add(&line, out->text.data + at, out->text.length - at);
    if (line.failed)
        status = error_memory(err, out->text.length, "a row's text");
    else
        status = tokenizer_encode(c->tokens, scratch, line.data, line.length, how, err);
    size_t first = 0;
    while (!is_alone && status == GRAFT_OK && first < scratch->n && scratch->end[first] <= 1)
        first++;
    if (status == GRAFT_OK &&
        !encoded_row_append(out, scratch, first, scratch->n, (int64_t)at - !is_alone))
        status = error_memory(err, out->n * sizeof *out->tokens, "a row's tokens");
    strbuf_free(&line);
    return status;
}

static graft_status add_stretch(const control_text *c, encoded_row *out, const encoding *whole,
                                const char *text, const stretch *s, encoding *scratch,
                                graft_error *err) {
    size_t at = out->text.length;
    bool has_hidden = restore(c, &out->text, text + s->begin, s->end - s->begin);
    if (out->text.failed)
        return error_memory(err, s->end, "a row's text");
    if (has_hidden)
        return encode_restored(c, out, whole, text, s, at, scratch, err);
    return encoded_row_append(out, whole, s->first, s->last, (int64_t)at - (int64_t)s->begin)
               ? GRAFT_OK
               : error_memory(err, out->n * sizeof *out->tokens, "a row's tokens");
}

graft_status control_text_encode(const control_text *c, encoded_row *out, template_result *rendered,
                                 encoding *scratch, graft_error *err) {
    const char *text = strbuf_text(&rendered->text);
    encoding whole = {0};
    stretch s = {0};
    graft_status status =
        tokenizer_encode(c->tokens, &whole, text, rendered->text.length, (encode_options){0}, err);
    for (size_t i = 0; status == GRAFT_OK && i <= whole.n; i++) {
        bool is_end = i == whole.n;
        if (!is_end && !is_control(c, &whole, i, text))
            continue;
        s.last = i;
        s.end = is_end ? rendered->text.length : whole.begin[i];
        status = add_stretch(c, out, &whole, text, &s, scratch, err);
        if (status != GRAFT_OK || is_end)
            break;
        int64_t shift = (int64_t)out->text.length - (int64_t)whole.begin[i];
        strbuf_add(&out->text, text + whole.begin[i], whole.end[i] - whole.begin[i]);
        if (!encoded_row_append(out, &whole, i, i + 1, shift))
            status = error_memory(err, out->n * sizeof *out->tokens, "a row's tokens");
        s.first = i + 1;
        s.begin = whole.end[i];
    }
    if (status == GRAFT_OK)
        move_spans(c, rendered);
    encoding_free(&whole);
    return status;
}
