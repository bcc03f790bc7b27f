#include "text/tokenizer/postprocessor.h"

#include "base/memory.h"
#include "text/tokenizer/chars.h"

#include <stdlib.h>
#include <string.h>

void postprocessor_free(postprocessor *p) {
    free(p->template_ids);
    *p = (postprocessor){0};
}

graft_status postprocessor_add_id(postprocessor *p, int32_t id, const char *place,
                                  graft_error *err) {
    if (p->n_template >= TEMPLATE_PIECES_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: more than %d pieces; at most that are accepted",
                         place, TEMPLATE_PIECES_MAX);
    if (!mem_reserve(&p->template_ids, &p->template_capacity, p->n_template + 1,
                     sizeof *p->template_ids))
        return error_memory(err, p->n_template, "a post-processor");
    p->template_ids[p->n_template++] = id;
    return GRAFT_OK;
}

/* One token's offsets without the white space its text begins and ends with, never turned around.
 */
static void trim_token(encoding *out, size_t i, token_spaces spaces, const char *text,
                       bool keeps_prefix_space) {
    uint32_t begin = out->begin[i], end = out->end[i], leading = spaces.leading;
    /* A single space before the first word was put there by the tokenizer. */
    if (keeps_prefix_space && leading == 1 && (i == 0 || begin == 0))
        leading = 0;
    for (; leading > 0 && begin < end; leading--)
        begin += (uint32_t)char_length(text[begin]);
    for (uint32_t trailing = spaces.trailing; trailing > 0 && end > begin; trailing--) {
        size_t length;
        char_decode_before(text + end, &length);
        end -= (uint32_t)length;
    }
    out->begin[i] = begin;
    out->end[i] = end > begin ? end : begin;
}

static void move_tokens(encoding *out, size_t to, size_t n) {
    memmove(out->ids + to, out->ids, n * sizeof *out->ids);
    memmove(out->begin + to, out->begin, n * sizeof *out->begin);
    memmove(out->end + to, out->end, n * sizeof *out->end);
    memmove(out->special + to, out->special, n * sizeof *out->special);
}

/* From the last piece to the first: the text's tokens lie at the front until the first piece that
 * is the text has taken them, and nothing before that one is written earlier. */
static graft_status fill_template(const postprocessor *p, encoding *out, bool add_special_tokens,
                                  graft_error *err) {
    size_t n_text = out->n, total = 0;
    for (size_t i = 0; i < p->n_template; i++)
        total += p->template_ids[i] == TEMPLATE_TEXT ? n_text : add_special_tokens;
    if (!encoding_reserve(out, total))
        return error_memory(err, total * 13, "the tokens of a text");
    size_t at = out->n = total;
    for (size_t i = p->n_template; i-- > 0;) {
        if (p->template_ids[i] == TEMPLATE_TEXT) {
            at -= n_text;
            if (n_text)
                move_tokens(out, at, n_text);
        } else if (add_special_tokens) {
            at--;
            out->ids[at] = p->template_ids[i];
            out->begin[at] = out->end[at] = 0;
            out->special[at] = 1;
        }
    }
    return GRAFT_OK;
}

graft_status postprocessor_apply(const postprocessor *p, workspace *w, encoding *out,
                                 const char *text, bool add_special_tokens, graft_error *err) {
    for (size_t k = 0; k < p->n_trims; k++)
        for (size_t i = 0; i < out->n; i++)
            trim_token(out, i, w->spaces[i], text, p->trim_keeps_prefix_space[k]);
    return p->has_template ? fill_template(p, out, add_special_tokens, err) : GRAFT_OK;
}
