/* Tokens flow from step to step as begin, parts (of whole characters), end; after the last token
 * comes finish. A step that fuses tokens begins one and ends it at finish, so what comes after it
 * sees one long token in parts. */
#include "text/tokenizer/decoder.h"

#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/chars.h"

#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

decoder *decoder_list_add(decoder_list *list) {
    if (!mem_reserve(&list->items, &list->capacity, list->n + 1, sizeof *list->items))
        return NULL;
    decoder *added = &list->items[list->n++];
    *added = (decoder){0};
    return added;
}

void decoder_list_free(decoder_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        text_pattern_free(&list->items[i].pattern);
        free(list->items[i].content);
        free(list->items[i].delimiter);
    }
    free(list->items);
    *list = (decoder_list){0};
}

graft_status decoding_create(decoding *d, const decoder_list *steps, graft_error *err) {
    *d = (decoding){.steps = steps, .status = GRAFT_OK};
    d->states = mem_array(steps->n, sizeof *d->states);
    return d->states ? GRAFT_OK : error_memory(err, steps->n * sizeof *d->states, "decoding");
}

void decoding_free(decoding *d) {
    for (size_t i = 0; d->states && i < d->steps->n; i++) {
        strbuf_free(&d->states[i].token);
        strbuf_free(&d->states[i].pending);
    }
    free(d->states);
    workspace_destroy(&d->w);
    *d = (decoding){0};
}

/* ---- The flow: each step's three entrances, which call the next step's ---- */

static void token_begin(decoding *d, size_t i);
static void token_part(decoding *d, size_t i, const char *text, size_t n);
static void token_end(decoding *d, size_t i);

/* Empties a buffer without forgetting that it ran out of memory. */
static void drop_text(decoding *d, strbuf *text) {
    d->failed |= text->failed;
    strbuf_clear(text);
}

static void token_whole(decoding *d, size_t i, const char *text, size_t n) {
    token_begin(d, i);
    token_part(d, i, text, n);
    token_end(d, i);
}

/* For steps whose output is one token. */
static void open_once(decoding *d, size_t i) {
    if (!d->states[i].flag)
        token_begin(d, i + 1);
    d->states[i].flag = true;
}

/* Replaces `from` (not empty) everywhere in text. */
static void replace_all(strbuf *text, const char *from, const char *to) {
    size_t n_from = strlen(from);
    if (!text->length || !memmem(text->data, text->length, from, n_from))
        return;
    strbuf old = *text;
    *text = (strbuf){0};
    const char *at = old.data, *end = old.data + old.length, *found;
    while ((found = memmem(at, (size_t)(end - at), from, n_from))) {
        strbuf_add(text, at, (size_t)(found - at));
        strbuf_add_text(text, to);
        at = found + n_from;
    }
    strbuf_add(text, at, (size_t)(end - at));
    text->failed |= old.failed;
    strbuf_free(&old);
}

static void clean_up(strbuf *text) {
    static const char *const table[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        replace_all(text, table[i][0], table[i][1]);
}

/* ---- Bytes ---- */

void add_lossy(strbuf *out, const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t valid = utf8_valid_length(text + i, n - i);
        strbuf_add(out, text + i, valid);
        i += valid;
        if (i == n)
            break;
        strbuf_add_text(out, replacement);
        /* The invalid part: as many bytes as could have begun a character. */
        size_t part = 1;
        while (part < 3 && i + part < n && char_unfinished_suffix(text + i, part + 1) == part + 1)
            part++;
        i += part;
    }
}

/* Sends on what is certain of the pending bytes; all of them at the end. */
static void flush_bytes(decoding *d, size_t i, bool at_end) {
    decoder_state *state = &d->states[i];
    size_t n = state->pending.length;
    size_t kept = at_end || !n ? 0 : char_unfinished_suffix(state->pending.data, n);
    if (n == kept)
        return;
    open_once(d, i);
    size_t valid = utf8_valid_length(state->pending.data, n - kept);
    token_part(d, i + 1, state->pending.data, valid);
    if (valid < n - kept) {
        strbuf text = {0};
        add_lossy(&text, state->pending.data + valid, n - kept - valid);
        token_part(d, i + 1, strbuf_text(&text), text.length);
        d->failed |= text.failed;
        strbuf_free(&text);
    }
    memmove(state->pending.data, state->pending.data + (n - kept), kept);
    state->pending.length = kept;
}

/* A token with a character outside the alphabet stands for its own bytes. */
static void byte_level_end(decoding *d, size_t i) {
    decoder_state *state = &d->states[i];
    const char *token = strbuf_text(&state->token);
    size_t n = state->token.length, before = state->pending.length, n_bytes = 0;
    char bytes[64];
    for (size_t at = 0, length; at < n; at += length) {
        int byte = character_to_byte(char_decode(token + at, &length));
        if (byte < 0) {
            state->pending.length = before;
            strbuf_add(&state->pending, token, n);
            n_bytes = 0;
            break;
        }
        bytes[n_bytes++] = (char)byte;
        if (n_bytes == sizeof bytes) {
            strbuf_add(&state->pending, bytes, n_bytes);
            n_bytes = 0;
        }
    }
    strbuf_add(&state->pending, bytes, n_bytes);
    drop_text(d, &state->token);
    flush_bytes(d, i, false);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of "<0xNN>", or -1. "<0x+N>" counts: Rust's parser takes the sign. */
static int byte_token(const strbuf *token) {
    const char *t = strbuf_text(token);
    if (token->length != 6 || memcmp(t, "<0x", 3) != 0 || t[5] != '>')
        return -1;
    int high = t[3] == '+' ? 0 : hex_digit(t[3]), low = hex_digit(t[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens is text when all of it is valid, else every byte is an unknown character: so
 * nothing of it is certain before it ends. */
static void flush_run(decoding *d, size_t i) {
    strbuf *run = &d->states[i].pending;
    if (!run->length)
        return;
    if (utf8_valid_length(run->data, run->length) == run->length)
        token_whole(d, i + 1, run->data, run->length);
    else
        for (size_t k = 0; k < run->length; k++)
            token_whole(d, i + 1, replacement, sizeof replacement - 1);
    drop_text(d, run);
}

static void byte_fallback_part(decoding *d, size_t i, const char *text, size_t n) {
    decoder_state *state = &d->states[i];
    if (state->flag) {
        token_part(d, i + 1, text, n);
        return;
    }
    strbuf_add(&state->token, text, n);
    if (state->token.length <= 6)
        return;
    state->flag = true;
    flush_run(d, i);
    token_begin(d, i + 1);
    token_part(d, i + 1, strbuf_text(&state->token), state->token.length);
}

static void byte_fallback_end(decoding *d, size_t i) {
    decoder_state *state = &d->states[i];
    int byte = state->flag ? -1 : byte_token(&state->token);
    if (state->flag) {
        token_end(d, i + 1);
    } else if (byte >= 0) {
        strbuf_add_char(&state->pending, (char)byte);
    } else {
        flush_run(d, i);
        token_whole(d, i + 1, strbuf_text(&state->token), state->token.length);
    }
    state->flag = false;
    drop_text(d, &state->token);
}

/* ---- Characters ---- */

static void metaspace_part(decoding *d, size_t i, const char *text, size_t n) {
    const decoder *step = &d->steps->items[i];
    bool drops = step->drops_first && d->states[i].index == 1;
    size_t done = 0, length;
    for (size_t at = 0; at < n; at += length) {
        if (char_decode(text + at, &length) != step->character)
            continue;
        if (done < at)
            token_part(d, i + 1, text + done, at - done);
        if (!drops)
            token_part(d, i + 1, " ", 1);
        done = at + length;
    }
    if (done < n)
        token_part(d, i + 1, text + done, n - done);
}

/* Cuts up to `start` leading characters, and holds trailing ones back until something follows them.
 */
static void strip_part(decoding *d, size_t i, const char *text, size_t n) {
    const decoder *step = &d->steps->items[i];
    decoder_state *state = &d->states[i];
    char content[4];
    size_t content_bytes = utf8_encode(content, step->character), length;
    for (size_t at = 0; at < n; at += length) {
        bool same = char_decode(text + at, &length) == step->character;
        if (!state->flag && same && state->count < step->start) {
            state->count++;
            continue;
        }
        if (!state->flag)
            state->count = 0;
        state->flag = true;
        if (same && state->count < step->stop) {
            state->count++;
            continue;
        }
        for (; !same && state->count > 0; state->count--)
            token_part(d, i + 1, content, content_bytes);
        token_part(d, i + 1, text + at, length);
    }
}

/* Bytes at the end of text that begin the pattern without being all of it. */
static size_t partial_match(const strbuf *text, const text_pattern *pattern) {
    size_t longest = pattern->literal_bytes - 1;
    for (size_t n = text->length < longest ? text->length : longest; n > 0; n--)
        if (memcmp(text->data + text->length - n, pattern->literal, n) == 0)
            return n;
    return 0;
}

static void replace_literal(decoding *d, size_t i, bool at_end) {
    const decoder *step = &d->steps->items[i];
    strbuf *held = &d->states[i].token;
    if (!held->length)
        return;
    const char *at = held->data, *end = held->data + held->length, *found;
    while ((found = memmem(at, (size_t)(end - at), step->pattern.literal,
                           step->pattern.literal_bytes))) {
        token_part(d, i + 1, at, (size_t)(found - at));
        token_part(d, i + 1, step->content, strlen(step->content));
        at = found + step->pattern.literal_bytes;
    }
    size_t rest = (size_t)(end - at);
    memmove(held->data, at, rest);
    held->length = rest;
    size_t kept = at_end || !rest ? 0 : partial_match(held, &step->pattern);
    token_part(d, i + 1, held->data, rest - kept);
    memmove(held->data, held->data + (rest - kept), kept);
    held->length = kept;
}

static void replace_regex(decoding *d, size_t i) {
    const decoder *step = &d->steps->items[i];
    strbuf *token = &d->states[i].token;
    if (!d->w)
        d->status = workspace_create(&d->w, d->err);
    if (d->status == GRAFT_OK)
        d->status =
            text_pattern_spans(&step->pattern, d->w, strbuf_text(token), token->length, d->err);
    if (d->status != GRAFT_OK)
        return;
    for (size_t k = 0; k < d->w->spans.n; k++) {
        span s = d->w->spans.items[k];
        if (s.match)
            token_part(d, i + 1, step->content, strlen(step->content));
        else
            token_part(d, i + 1, token->data + s.begin, s.end - s.begin);
    }
    drop_text(d, token);
}

/* ---- Whole tokens ---- */

static void wordpiece_end(decoding *d, size_t i) {
    const decoder *step = &d->steps->items[i];
    decoder_state *state = &d->states[i];
    size_t n_prefix = strlen(step->content), n = state->token.length;
    const char *token = strbuf_text(&state->token);
    strbuf text = {0};
    if (state->index > 1 && n >= n_prefix && memcmp(token, step->content, n_prefix) == 0) {
        strbuf_add(&text, token + n_prefix, n - n_prefix);
    } else {
        if (state->index > 1)
            strbuf_add_char(&text, ' ');
        strbuf_add(&text, token, n);
    }
    if (step->cleanup)
        clean_up(&text);
    token_whole(d, i + 1, strbuf_text(&text), text.length);
    d->failed |= text.failed;
    strbuf_free(&text);
}

/* A token that repeats the one before it is dropped; pad tokens vanish. */
static void ctc_end(decoding *d, size_t i) {
    const decoder *step = &d->steps->items[i];
    decoder_state *state = &d->states[i];
    bool repeated =
        state->flag && state->token.length == state->pending.length &&
        memcmp(strbuf_text(&state->token), strbuf_text(&state->pending), state->token.length) == 0;
    state->flag = true;
    if (repeated)
        return;
    drop_text(d, &state->pending);
    strbuf_add(&state->pending, strbuf_text(&state->token), state->token.length);
    if (*step->content)
        replace_all(&state->token, step->content, "");
    if (step->cleanup) {
        clean_up(&state->token);
        replace_all(&state->token, step->delimiter, " ");
    }
    if (state->token.length)
        token_whole(d, i + 1, state->token.data, state->token.length);
}

/* The end-of-word suffix is a space, except in the last token. */
static void bpe_flush(decoding *d, size_t i, const char *space) {
    decoder_state *state = &d->states[i];
    if (!state->flag)
        return;
    replace_all(&state->pending, d->steps->items[i].content, space);
    token_whole(d, i + 1, strbuf_text(&state->pending), state->pending.length);
    drop_text(d, &state->pending);
    state->flag = false;
}

/* ---- Dispatch ---- */

static void token_begin(decoding *d, size_t i) {
    if (i == d->steps->n || d->status != GRAFT_OK)
        return;
    decoder_state *state = &d->states[i];
    state->index++;
    switch (d->steps->items[i].kind) {
    case DECODER_JOIN:
        token_begin(d, i + 1);
        if (state->index > 1)
            token_part(d, i + 1, " ", 1);
        break;
    case DECODER_STRIP:
        state->count = 0;
        state->flag = false;
        token_begin(d, i + 1);
        break;
    case DECODER_METASPACE:
    case DECODER_REPLACE:
        token_begin(d, i + 1);
        break;
    case DECODER_FUSE:
        open_once(d, i);
        break;
    case DECODER_BPE:
        bpe_flush(d, i, " ");
        break;
    case DECODER_BYTE_LEVEL:
    case DECODER_WORDPIECE:
    case DECODER_CTC:
    case DECODER_BYTE_FALLBACK:
        break;
    }
}

static void token_part(decoding *d, size_t i, const char *text, size_t n) {
    if (n == 0 || d->status != GRAFT_OK)
        return;
    if (i == d->steps->n) {
        strbuf_add(d->out, text, n);
        return;
    }
    switch (d->steps->items[i].kind) {
    case DECODER_JOIN:
    case DECODER_FUSE:
        token_part(d, i + 1, text, n);
        break;
    case DECODER_METASPACE:
        metaspace_part(d, i, text, n);
        break;
    case DECODER_STRIP:
        strip_part(d, i, text, n);
        break;
    case DECODER_BYTE_FALLBACK:
        byte_fallback_part(d, i, text, n);
        break;
    case DECODER_REPLACE:
        strbuf_add(&d->states[i].token, text, n);
        if (d->steps->items[i].pattern.literal)
            replace_literal(d, i, false);
        break;
    case DECODER_BPE:
        strbuf_add(&d->states[i].pending, text, n);
        break;
    case DECODER_BYTE_LEVEL:
    case DECODER_WORDPIECE:
    case DECODER_CTC:
        strbuf_add(&d->states[i].token, text, n);
        break;
    }
}

static void token_end(decoding *d, size_t i) {
    if (i == d->steps->n || d->status != GRAFT_OK)
        return;
    switch (d->steps->items[i].kind) {
    case DECODER_JOIN:
    case DECODER_METASPACE:
    case DECODER_STRIP: /* what is held back is what is cut */
        token_end(d, i + 1);
        break;
    case DECODER_REPLACE:
        if (d->steps->items[i].pattern.literal)
            replace_literal(d, i, true);
        else
            replace_regex(d, i);
        token_end(d, i + 1);
        break;
    case DECODER_FUSE:
        break;
    case DECODER_BYTE_LEVEL:
        byte_level_end(d, i);
        break;
    case DECODER_BYTE_FALLBACK:
        byte_fallback_end(d, i);
        break;
    case DECODER_WORDPIECE:
        wordpiece_end(d, i);
        drop_text(d, &d->states[i].token);
        break;
    case DECODER_CTC:
        ctc_end(d, i);
        drop_text(d, &d->states[i].token);
        break;
    case DECODER_BPE:
        d->states[i].flag = true;
        break;
    }
}

static void all_ended(decoding *d, size_t i) {
    switch (d->steps->items[i].kind) {
    case DECODER_BYTE_LEVEL:
        flush_bytes(d, i, true);
        open_once(d, i);
        token_end(d, i + 1);
        break;
    case DECODER_FUSE:
        open_once(d, i);
        token_end(d, i + 1);
        break;
    case DECODER_BYTE_FALLBACK:
        flush_run(d, i);
        break;
    case DECODER_BPE:
        bpe_flush(d, i, "");
        break;
    default:
        break;
    }
}

static graft_status outcome(const decoding *d) {
    if (d->status != GRAFT_OK)
        return d->status;
    bool failed = d->failed || d->out->failed;
    for (size_t i = 0; i < d->steps->n; i++)
        failed |= d->states[i].token.failed || d->states[i].pending.failed;
    return failed ? error_memory(d->err, d->out->length, "decoded text") : GRAFT_OK;
}

graft_status decoding_add(decoding *d, strbuf *out, const char *token, size_t n, graft_error *err) {
    d->out = out;
    d->err = err;
    token_whole(d, 0, token, n);
    return outcome(d);
}

graft_status decoding_finish(decoding *d, strbuf *out, graft_error *err) {
    d->out = out;
    d->err = err;
    for (size_t i = 0; i < d->steps->n; i++)
        all_ended(d, i);
    return outcome(d);
}
