#define PCRE2_CODE_UNIT_WIDTH 8
#include "adapter/pattern.h"

#include "adapter/config.h"
#include "base/memory.h"
#include "base/strbuf.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATTERN_STEPS_MAX = 50000, /* of one expression on one name */
    PATTERN_HEAP_KIB_MAX = 1024
};

struct pattern {
    pcre2_code *code;
    pcre2_match_context *limits;
    pcre2_match_data *data;
    uint32_t options;
    char *text, *what; /* for messages */
};

/* The text is put in as it is, ungrouped, because PEFT does so: "a|b" binds there as it binds here.
 */
static void wrap(strbuf *out, const char *text, pattern_form form) {
    static const char *const around[][2] = {
        [PATTERN_WHOLE] = {"", ""},
        [PATTERN_END] = {"(.*\\.)?(", ")$"},
        [PATTERN_WITHIN] = {"(^|.*\\.)", "($|\\..*)"},
        [PATTERN_LAYER] = {"(?:^|.*?\\.)", "\\.(?P<idx>\\d+)\\."},
    };
    strbuf_add_text(out, around[form][0]);
    strbuf_add_text(out, text);
    strbuf_add_text(out, around[form][1]);
}

/* What follows "(?" in Python's language; PCRE has more, such as recursion. */
static bool is_group_of_python(const char *c) {
    if (*c == '<')
        return c[1] == '=' || c[1] == '!';
    if (*c == 'P')
        return c[1] == '<' || c[1] == '=';
    return *c && strchr(":=!#(>aiLmsux-", *c) && !(*c == '-' && c[1] >= '0' && c[1] <= '9');
}

/* What PCRE accepts and Python refuses, or reads otherwise. */
static const char *foreign_syntax(const char *text) {
    for (const char *c = text; *c; c++) {
        if (c[0] == '\\' && c[1]) {
            c++;
            if (((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z')) &&
                !strchr("AbBdDsSwWafnrtx", *c))
                return "a backslash sequence that Python refuses or reads otherwise than PCRE";
        } else if (c[0] == '{' && c[1] == ',') {
            return "{,n}, which Python reads as {0,n}: write it so";
        } else if (c[0] == '[' && c[1] == '[' && c[2] && strchr(":.=", c[2])) {
            return "a POSIX class, which Python does not have";
        } else if (c[0] == '(' && (c[1] == '*' || (c[1] == '?' && !is_group_of_python(c + 2)))) {
            return "a kind of group that Python does not have";
        }
    }
    return NULL;
}

static graft_status compile(pattern *p, const char *wrapped, size_t prefix, graft_error *err) {
    int number;
    size_t offset;
    p->code = pcre2_compile((PCRE2_SPTR)wrapped, strlen(wrapped),
                            PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY, &number,
                            &offset, NULL);
    if (p->code)
        return GRAFT_OK;
    if (number == PCRE2_ERROR_HEAP_FAILED)
        return error_memory(err, strlen(wrapped), p->what);
    PCRE2_UCHAR8 message[160];
    if (pcre2_get_error_message(number, message, sizeof message) < 0)
        message[0] = 0;
    return error_set(err, GRAFT_E_INPUT,
                     "%s: \"%s\" is not a regular expression: %s at character %zu", p->what,
                     p->text, (const char *)message, offset > prefix ? offset - prefix : 0);
}

graft_status pattern_create(pattern **out, const char *text, pattern_form form, const char *what,
                            graft_error *err) {
    *out = NULL;
    strbuf wrapped = {0};
    graft_status status = GRAFT_OK;
    const char *foreign = foreign_syntax(text);
    pattern *p = NULL;
    if (strlen(text) > ADAPTER_PATTERN_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: a pattern is longer than %d bytes", what,
                         ADAPTER_PATTERN_MAX);
    if (foreign)
        return error_set(err, GRAFT_E_INPUT, "%s: \"%s\" has %s", what, text, foreign);
    p = mem_array(1, sizeof *p);
    wrap(&wrapped, text, form);
    if (!p || wrapped.failed || !(p->text = mem_text(text, strlen(text))) ||
        !(p->what = mem_text(what, strlen(what)))) {
        status = error_memory(err, strlen(text), what);
        goto cleanup;
    }
    status = compile(p, strbuf_text(&wrapped), wrapped.length - strlen(text), err);
    if (status != GRAFT_OK)
        goto cleanup;
    p->options = form == PATTERN_WHOLE ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : PCRE2_ANCHORED;
    p->limits = pcre2_match_context_create(NULL);
    p->data = pcre2_match_data_create_from_pattern(p->code, NULL);
    if (!p->limits || !p->data) {
        status = error_memory(err, 4096, what);
        goto cleanup;
    }
    pcre2_set_match_limit(p->limits, PATTERN_STEPS_MAX);
    pcre2_set_heap_limit(p->limits, PATTERN_HEAP_KIB_MAX);
    *out = p;
    p = NULL;
cleanup:
    strbuf_free(&wrapped);
    pattern_destroy(&p);
    return status;
}

void pattern_destroy(pattern **p) {
    if (!*p)
        return;
    pcre2_match_data_free((*p)->data);
    pcre2_match_context_free((*p)->limits);
    pcre2_code_free((*p)->code);
    free((*p)->text);
    free((*p)->what);
    free(*p);
    *p = NULL;
}

graft_status pattern_match(bool *matched, const pattern *p, const char *name, graft_error *err) {
    int found =
        pcre2_match(p->code, (PCRE2_SPTR)name, strlen(name), 0, p->options, p->data, p->limits);
    *matched = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return GRAFT_OK;
    if (found == PCRE2_ERROR_NOMEMORY)
        return error_memory(err, strlen(name), p->what);
    return error_set(err, GRAFT_E_INPUT,
                     "%s: \"%s\" takes too long to match \"%s\" (more than %d steps): write it "
                     "without nested repeats",
                     p->what, p->text, name, PATTERN_STEPS_MAX);
}

graft_status pattern_layer(int64_t *layer, const pattern *p, const char *name, graft_error *err) {
    *layer = -1;
    bool matched;
    graft_status status = pattern_match(&matched, p, name, err);
    if (status != GRAFT_OK || !matched)
        return status;
    const size_t *spans = pcre2_get_ovector_pointer(p->data);
    int group = pcre2_substring_number_from_name(p->code, (PCRE2_SPTR) "idx");
    if (group > 0)
        *layer = strtoll(name + spans[2 * group], NULL, 10);
    return GRAFT_OK;
}
