/* Tokens added to a tokenizer on disk: the ids that Transformers gives them
 * (tests/fixtures/tokenizers/make_new_tokens.py). */
#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "formats/json.h"
#include "text/tokenizer/new_tokens.h"
#include "text/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char list[] = "foo bar\n\u00fcber\r\n\n<|im_end|>\nfo\n"
                           "{\"content\": \"<|call|>\", \"special\": true}\n";

static void read_list(new_tokens *tokens, const char *text) {
    assert_ok(new_tokens_read(tokens, test_file("list.txt", text, strlen(text)), &test_error));
}

static void test_ids_are_transformers(void **state) {
    (void)state;
    new_tokens tokens;
    int32_t vocab = 0;
    char *grown = path_join(test_folder(), "grown");
    read_list(&tokens, list);
    assert_int_equal(tokens.n, 5);
    assert_ok(tokenizer_grow(grown, test_fixture("data/bytes"), &tokens, &vocab, &test_error));
    const int32_t ids[] = {259, 260, 257, 261, 262}; /* <|im_end|> was there */
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(tokens.items[i].id, ids[i]);
    assert_int_equal(vocab, 263);
    tokenizer *t;
    assert_ok(tokenizer_load(&t, grown, NULL, &test_error));
    assert_int_equal(tokenizer_vocab_size(t), 263);
    assert_true(tokenizer_is_special(t, 262) && !tokenizer_is_special(t, 259));
    assert_int_equal(tokenizer_eos(t), 257); /* its names came along */
    FILE *file = fopen(test_fixture("tokenizers/new_tokens.jsonl"), "rb");
    assert_non_null(file);
    char line[4096];
    int n = 0;
    for (; fgets(line, sizeof line, file); n++) {
        json_t *expected = NULL;
        assert_ok(json_parse(&expected, line, strlen(line), "new_tokens.jsonl", &test_error));
        const json_t *text = json_object_get(expected, "text"),
                     *of = json_object_get(expected, "ids");
        encoding e = {0};
        strbuf decoded = {0};
        assert_ok(tokenizer_encode(t, &e, json_string_value(text), json_string_length(text),
                                   (encode_options){.add_special_tokens = true}, &test_error));
        assert_int_equal(e.n, json_array_size(of));
        for (size_t i = 0; i < e.n; i++)
            assert_int_equal(e.ids[i], json_integer_value(json_array_get(of, i)));
        assert_ok(tokenizer_decode(t, &decoded, e.ids, e.n, true, &test_error));
        assert_string_equal(strbuf_text(&decoded),
                            json_string_value(json_object_get(expected, "skipped")));
        encoding_free(&e);
        strbuf_free(&decoded);
        json_decref(expected);
    }
    assert_int_equal(n, 6);
    fclose(file);
    tokenizer_destroy(&t);
    /* Grown again by the same list, it stays the same. */
    char *again = path_join(test_folder(), "again");
    assert_ok(tokenizer_grow(again, grown, &tokens, &vocab, &test_error));
    assert_int_equal(vocab, 263);
    assert_int_equal(tokens.items[4].id, 262);
    new_tokens_free(&tokens);
    free(again);
    free(grown);
}

/* Where tokenizer_config.json lists tokens (Transformers 4), the new ones are listed too. */
static void test_listed_in_the_config(void **state) {
    (void)state;
    new_tokens tokens;
    int32_t vocab = 0;
    json_t *config = NULL;
    char *grown = path_join(test_folder(), "listed");
    read_list(&tokens, "foo bar\n");
    assert_ok(tokenizer_grow(grown, test_data("tokenizers/smollm"), &tokens, &vocab, &test_error));
    assert_int_equal(tokens.items[0].id, 49153);
    char *path = path_join(grown, "tokenizer_config.json");
    assert_ok(json_read_file(&config, path, 1 << 20, &test_error));
    const json_t *entry = json_object_get(json_object_get(config, "added_tokens_decoder"), "49153");
    assert_string_equal(json_string_value(json_object_get(entry, "content")), "foo bar");
    json_decref(config);
    free(path);
    free(grown);
    new_tokens_free(&tokens);
}

static void assert_bad(const char *text, const char *message) {
    new_tokens tokens;
    assert_refused(new_tokens_read(&tokens, test_file("bad.txt", text, strlen(text)), &test_error),
                   GRAFT_E_INPUT, message);
    assert_null(tokens.items);
}

static void test_bad_lists(void **state) {
    (void)state;
    assert_bad("", "expected one token a line, found none");
    assert_bad("\n\r\n", "expected one token a line, found none");
    assert_bad("a\nb\na\n", "bad.txt:3: token 1 of this list again");
    assert_bad("a\n\xFF\n", "byte 2: expected UTF-8");
    assert_bad("{\"content\": \"\"}\n", "bad.txt:1: expected a token of 1 to 4096 bytes");
    assert_bad("{\"content\": \"a\", \"special\": \"yes\"}\n", "special");
    new_tokens tokens;
    read_list(&tokens, "{\n{\"a\": 1}\n"); /* braces that are no such object are tokens */
    assert_int_equal(tokens.n, 2);
    int32_t vocab;
    assert_refused(tokenizer_grow(test_folder(), test_fixture("tokenizers/sp_bpe"), &tokens, &vocab,
                                  &test_error),
                   GRAFT_E_UNSUPPORTED, "new tokens need a tokenizer.json");
    new_tokens_free(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_transformers),
        cmocka_unit_test(test_listed_in_the_config),
        cmocka_unit_test(test_bad_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
