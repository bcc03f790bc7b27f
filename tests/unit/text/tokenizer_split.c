/* The hand-written splitters against Oniguruma on the patterns they stand for. */
#include "tests/support/support.h"

#include "base/rng.h"
#include "formats/utf8.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/fast_split.h"
#include "text/tokenizer/text_pattern.h"

#include <string.h>

enum { TEXTS = 20000, CHARACTERS_MAX = 40 };

/* What the patterns tell apart, and characters on the edges of their classes. */
static const char *const alphabet[] = {
    " ",
    " ",
    "  ",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\v",
    "\xC2\xA0",
    "\xE3\x80\x80",
    "\xC2\x85",
    "'",
    "'",
    "s",
    "S",
    "t",
    "re",
    "'re",
    "'VE",
    "'Ll",
    "'d",
    "'\xC5\xBF",
    "\xC5\xBF",
    "ve",
    "m",
    "d",
    "ll",
    "a",
    "Z",
    "\xC3\xA9",
    "e\xCC\x81",
    "\xD0\x96",
    "\xE4\xB8\xAD",
    "1",
    "23",
    "4567",
    "\xD9\xA3",
    "\xC2\xBD",
    "\xE2\x85\xA7",
    ".",
    ",",
    "!?",
    "\xE2\x80\x99",
    "\xE2\x82\xAC",
    "\xF0\x9F\x98\x80",
    "\xE2\x80\x8D",
    "\xEF\xBB\xBF",
    "_",
    "-",
    "\x01",
    "\x7F",
    "\xF0\x9D\x92\xB3",
    "\xF3\xA0\x80\x81",
};

static size_t random_text(char *out, rng *random) {
    size_t n = 0;
    for (uint64_t i = rng_below(random, CHARACTERS_MAX); i-- > 0;) {
        char any[4];
        const char *part = alphabet[rng_below(random, sizeof alphabet / sizeof alphabet[0])];
        size_t length = strlen(part);
        if (rng_below(random, 20) == 0) {
            length = utf8_encode(any, (uint32_t)rng_below(random, N_CHARACTERS));
            part = any;
        }
        memcpy(out + n, part, length);
        n += length;
    }
    return n;
}

static void check_text(const text_pattern *p, fast_splitter split, workspace *w, const char *text,
                       size_t n) {
    assert_ok(text_pattern_spans(p, w, text, n, &test_error));
    size_t at = 0;
    for (size_t i = 0; i < w->spans.n; i++) {
        assert_true(w->spans.items[i].match);
        assert_int_equal(w->spans.items[i].begin, at);
        size_t stop = split(text, at, n);
        if (stop != w->spans.items[i].end)
            fail_msg("\"%.*s\" at %zu: split ends at %zu, Oniguruma's at %u", (int)n, text, at,
                     stop, w->spans.items[i].end);
        at = stop;
    }
    assert_int_equal(at, n);
}

static void check_pattern(const char *pattern) {
    char text[16 * CHARACTERS_MAX];
    rng random = rng_create(17, 0);
    workspace *w = NULL;
    text_pattern p;
    chars_initialize();
    assert_ok(workspace_create(&w, &test_error));
    assert_ok(text_pattern_regex(&p, pattern, strlen(pattern), "pattern", &test_error));
    fast_splitter split = p.fast;
    assert_non_null(split);
    p.fast = NULL; /* so that Oniguruma does it */
    for (int i = 0; i < TEXTS; i++)
        check_text(&p, split, w, text, random_text(text, &random));
    text_pattern_free(&p);
    workspace_destroy(&w);
}

static void gpt2(void **state) {
    (void)state;
    check_pattern(gpt2_pattern);
}

static void llama3(void **state) {
    (void)state;
    check_pattern(llama3_pattern);
}

static void qwen2(void **state) {
    (void)state;
    check_pattern(qwen2_pattern);
}

static void other_patterns_are_left_to_oniguruma(void **state) {
    (void)state;
    assert_null(fast_splitter_of("\\s+", 3));
    assert_null(fast_splitter_of(gpt2_pattern, strlen(gpt2_pattern) - 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2),
        cmocka_unit_test(llama3),
        cmocka_unit_test(qwen2),
        cmocka_unit_test(other_patterns_are_left_to_oniguruma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
