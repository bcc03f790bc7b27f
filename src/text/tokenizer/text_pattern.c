#include "text/tokenizer/text_pattern.h"

#include "base/memory.h"
#include "text/tokenizer/chars.h"

#include <oniguruma.h>
#include <stdlib.h>
#include <string.h>

static graft_status refuse_regex(int code, const OnigErrorInfo *info, const char *place,
                                 graft_error *err) {
    OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN];
    int n = onig_error_code_to_str(reason, code, info);
    reason[n > 0 && n < (int)sizeof reason ? n : 0] = '\0';
    return error_set(err, GRAFT_E_INPUT,
                     "%s: the regular expression is invalid: %s; expected Oniguruma's syntax",
                     place, (const char *)reason);
}

graft_status text_pattern_regex(text_pattern *p, const char *regex, size_t n, const char *place,
                                graft_error *err) {
    *p = (text_pattern){0};
    if (n > PATTERN_BYTES_MAX)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: a regular expression of %zu bytes; at most %d are accepted", place, n,
                         PATTERN_BYTES_MAX);
    const OnigUChar *begin = (const OnigUChar *)regex;
    OnigErrorInfo info = {0};
    int code = onig_new(&p->regex, begin, begin + n, ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                        ONIG_SYNTAX_DEFAULT, &info);
    if (code != ONIG_NORMAL) {
        p->regex = NULL;
        return refuse_regex(code, &info, place, err);
    }
    p->fast = fast_splitter_of(regex, n);
    return GRAFT_OK;
}

graft_status text_pattern_literal(text_pattern *p, const char *text, size_t n, graft_error *err) {
    *p = (text_pattern){.literal = mem_text(text, n), .literal_bytes = n};
    return p->literal ? GRAFT_OK : error_memory(err, n, "a pattern");
}

graft_status text_pattern_read(text_pattern *p, const json_t *json, const char *place,
                               graft_error *err) {
    *p = (text_pattern){0};
    const json_t *literal = json_object_get(json, "String"),
                 *regex = json_object_get(json, "Regex");
    if (json_is_string(literal) && json_string_length(literal) > 0)
        return text_pattern_literal(p, json_string_value(literal), json_string_length(literal),
                                    err);
    if (json_is_string(literal)) /* an empty literal matches between all characters */
        return text_pattern_regex(p, "", 0, place, err);
    if (json_is_string(regex))
        return text_pattern_regex(p, json_string_value(regex), json_string_length(regex), place,
                                  err);
    return error_set(err, GRAFT_E_INPUT,
                     "%s: expected {\"String\": \"...\"} or {\"Regex\": \"...\"}, found %s", place,
                     json_type_name(json));
}

void text_pattern_free(text_pattern *p) {
    free(p->literal);
    if (p->regex)
        onig_free(p->regex);
    *p = (text_pattern){0};
}

static void literal_spans(const text_pattern *p, span_list *spans, const char *text, size_t n) {
    size_t done = 0;
    for (;;) {
        const char *found = memmem(text + done, n - done, p->literal, p->literal_bytes);
        if (!found)
            break;
        size_t at = (size_t)(found - text);
        if (done < at)
            span_add(spans, (uint32_t)done, (uint32_t)at, false);
        done = at + p->literal_bytes;
        span_add(spans, (uint32_t)at, (uint32_t)done, true);
    }
    if (done < n)
        span_add(spans, (uint32_t)done, (uint32_t)n, false);
}

static graft_status search_failed(int code, size_t at, graft_error *err) {
    if (code == ONIGERR_MEMORY)
        return error_memory(err, 0, "matching a pattern");
    OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN];
    int n = onig_error_code_to_str(reason, code);
    reason[n > 0 && n < (int)sizeof reason ? n : 0] = '\0';
    return error_set(err, GRAFT_E_INPUT,
                     "the tokenizer's regular expression takes too long near byte %zu of the text "
                     "(%s)",
                     at, (const char *)reason);
}

/* An empty match right after another match is passed over, one character on. */
static graft_status regex_spans(const text_pattern *p, workspace *w, const char *text, size_t n,
                                graft_error *err) {
    const OnigUChar *begin = (const OnigUChar *)text, *end = begin + n;
    size_t from = 0, done = 0, last_end = SIZE_MAX;
    while (from <= n) {
        onig_region_clear(w->region);
        int found = onig_search_with_param(p->regex, begin, end, begin + from, end, w->region,
                                           ONIG_OPTION_NONE, w->match_limits);
        if (found == ONIG_MISMATCH)
            break;
        if (found < 0)
            return search_failed(found, from, err);
        size_t at = (size_t)w->region->beg[0], stop = (size_t)w->region->end[0];
        if (at == stop && stop == last_end) {
            from += from < n ? char_length(text[from]) : 1;
            continue;
        }
        if (done < at)
            span_add(&w->spans, (uint32_t)done, (uint32_t)at, false);
        span_add(&w->spans, (uint32_t)at, (uint32_t)stop, true);
        from = done = last_end = stop;
    }
    if (done < n)
        span_add(&w->spans, (uint32_t)done, (uint32_t)n, false);
    return GRAFT_OK;
}

graft_status text_pattern_spans(const text_pattern *p, workspace *w, const char *text, size_t n,
                                graft_error *err) {
    w->spans.n = 0;
    w->spans.failed = false;
    graft_status status = GRAFT_OK;
    if (n == 0)
        return GRAFT_OK;
    if (p->literal)
        literal_spans(p, &w->spans, text, n);
    else if (p->fast)
        for (size_t at = 0, stop; at < n; at = stop) {
            stop = p->fast(text, at, n);
            span_add(&w->spans, (uint32_t)at, (uint32_t)stop, true);
        }
    else
        status = regex_spans(p, w, text, n, err);
    if (w->spans.failed)
        return error_memory(err, w->spans.n * sizeof *w->spans.items, "a text's splits");
    return status;
}
