/* Every golden tokenizer: ids, offsets and decoding as Hugging Face's tokenizers gives them, and
 * streaming that agrees with decoding at once. */
#include "tests/support/support.h"

#include "formats/jsonl.h"
#include "text/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Code points before each byte, so that a byte inside a character counts the character it is in. */
static size_t code_points(const char *text, size_t byte) {
    size_t count = 0;
    for (size_t i = 0; i < byte; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

typedef struct test_case {
    const char *folder;
    int64_t line;
    const tokenizer *t;
    const json_t *row;
} test_case;

static void fail_case(const test_case *c, const char *what, size_t i, long long got,
                      long long expected) {
    const char *text = json_string_value(json_object_get(c->row, "text"));
    fail_msg("%s:%lld: %s %zu: %lld instead of %lld; text \"%.80s\"", c->folder, (long long)c->line,
             what, i, got, expected, text);
}

static void check_encoding(const test_case *c, const encoding *e) {
    const json_t *text = json_object_get(c->row, "text"), *ids = json_object_get(c->row, "ids");
    const json_t *offsets = json_object_get(c->row, "offsets");
    for (size_t i = 0; i < json_array_size(ids) && i < e->n; i++) {
        json_int_t expected = json_integer_value(json_array_get(ids, i));
        if (e->ids[i] != expected)
            fail_case(c, "id", i, e->ids[i], expected);
    }
    if (e->n != json_array_size(ids))
        fail_case(c, "count", 0, (long long)e->n, (long long)json_array_size(ids));
    for (size_t i = 0; i < e->n; i++) {
        const json_t *pair = json_array_get(offsets, i);
        size_t begin = code_points(json_string_value(text), e->begin[i]);
        size_t end = code_points(json_string_value(text), e->end[i]);
        if ((json_int_t)begin != json_integer_value(json_array_get(pair, 0)))
            fail_case(c, "begin of token", i, (long long)begin,
                      json_integer_value(json_array_get(pair, 0)));
        if ((json_int_t)end != json_integer_value(json_array_get(pair, 1)))
            fail_case(c, "end of token", i, (long long)end,
                      json_integer_value(json_array_get(pair, 1)));
    }
}

static void check_text(const test_case *c, const char *what, const strbuf *got, const char *key) {
    const json_t *expected = json_object_get(c->row, key);
    if (got->length != json_string_length(expected) ||
        memcmp(strbuf_text(got), json_string_value(expected), got->length) != 0)
        fail_msg("%s:%lld: %s: \"%s\" instead of \"%s\"", c->folder, (long long)c->line, what,
                 strbuf_text(got), json_string_value(expected));
}

static void check_decoding(const test_case *c, const encoding *e, bool skip, const char *key) {
    strbuf whole = {0}, streamed = {0};
    decode_stream *stream = NULL;
    assert_ok(tokenizer_decode(c->t, &whole, e->ids, e->n, skip, &test_error));
    check_text(c, "decoding", &whole, key);
    assert_ok(decode_stream_create(&stream, c->t, skip, &test_error));
    for (size_t i = 0; i < e->n; i++) {
        assert_ok(decode_stream_add(stream, &streamed, e->ids[i], &test_error));
        /* Nothing is cut: what is out already is the beginning of the whole, at a character's end.
         */
        assert_true(streamed.length <= whole.length);
        assert_memory_equal(strbuf_text(&streamed), strbuf_text(&whole), streamed.length);
        assert_int_not_equal((unsigned char)strbuf_text(&whole)[streamed.length] & 0xC0, 0x80);
    }
    assert_ok(decode_stream_finish(stream, &streamed, &test_error));
    check_text(c, "streaming", &streamed, key);
    decode_stream_destroy(&stream);
    strbuf_free(&whole);
    strbuf_free(&streamed);
}

static void check_row(const test_case *c, encoding *e) {
    const json_t *text = json_object_get(c->row, "text");
    encode_options options = {json_is_true(json_object_get(c->row, "add_special_tokens")), false};
    assert_ok(tokenizer_encode(c->t, e, json_string_value(text), json_string_length(text), options,
                               &test_error));
    check_encoding(c, e);
    check_decoding(c, e, false, "decoded");
    check_decoding(c, e, true, "decoded_skip");
}

static void check_folder(const char *folder, const char *path) {
    char cases[512];
    tokenizer *t = NULL;
    row_reader *reader = NULL;
    encoding e = {0};
    test_case c = {.folder = folder};
    snprintf(cases, sizeof cases, "tokenizers_golden/%s/cases.jsonl", folder);
    assert_ok(tokenizer_load(&t, path, NULL, &test_error));
    assert_ok(row_reader_open(&reader, test_data(cases), &test_error));
    c.t = t;
    for (;;) {
        json_t *row = NULL;
        assert_ok(row_reader_next(reader, &row, &c.line, &test_error));
        if (!row)
            break;
        c.row = row;
        check_row(&c, &e);
        json_decref(row);
    }
    assert_true(c.line >= 136);
    row_reader_close(&reader);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void golden(void **state) {
    char path[512];
    snprintf(path, sizeof path, "tokenizers_golden/%s/tokenizer.json", (const char *)*state);
    check_folder(*state, test_data(path));
}

static void real_gpt2(void **state) {
    (void)state;
    check_folder("real_gpt2", test_data("tokenizers/gpt2/tokenizer.json"));
}

static void real_gpt2_vocab_and_merges(void **state) {
    (void)state;
    check_folder("real_gpt2", test_data("tokenizers/gpt2/vocab.json"));
}

static void real_neox(void **state) {
    (void)state;
    check_folder("real_neox", test_data("tokenizers/neox"));
}

static void real_smollm(void **state) {
    (void)state;
    check_folder("real_smollm", test_data("tokenizers/smollm"));
}

static void real_stories260K(void **state) {
    (void)state;
    check_folder("real_stories260K", test_data("models/stories260K"));
}

static void real_qwen2(void **state) {
    (void)state;
    check_folder("real_qwen2", test_data("tokenizers/qwen2"));
}

/* GRAFT_SMOLLM2 names the model's folder: it is not among the shared data. */
static void real_smollm2_135m_instruct(void **state) {
    (void)state;
    if (!getenv("GRAFT_SMOLLM2"))
        skip();
    check_folder("real_smollm2_135m_instruct", getenv("GRAFT_SMOLLM2"));
}

#define GOLDEN(name)                                                                               \
    { #name, golden, NULL, NULL, #name }

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(real_gpt2),
    cmocka_unit_test(real_gpt2_vocab_and_merges),
    cmocka_unit_test(real_neox),
    cmocka_unit_test(real_smollm),
    cmocka_unit_test(real_stories260K),
    cmocka_unit_test(real_qwen2),
    cmocka_unit_test(real_smollm2_135m_instruct),
    GOLDEN(bpe_gpt2),
    GOLDEN(bpe_roberta),
    GOLDEN(bpe_llama3),
    GOLDEN(bpe_qwen2),
    GOLDEN(bpe_cl100k),
    GOLDEN(bpe_o200k),
    GOLDEN(bpe_deepseek),
    GOLDEN(bpe_starcoder),
    GOLDEN(bpe_falcon),
    GOLDEN(bpe_bloom),
    GOLDEN(bpe_clip),
    GOLDEN(bpe_gpt1),
    GOLDEN(bpe_no_unk),
    GOLDEN(bpe_prefix_unk),
    GOLDEN(sp_llama2),
    GOLDEN(sp_metaspace_first),
    GOLDEN(sp_metaspace_always),
    GOLDEN(sp_metaspace_never),
    GOLDEN(sp_metaspace_split),
    GOLDEN(sp_gemma),
    GOLDEN(unigram_t5),
    GOLDEN(unigram_xlnet),
    GOLDEN(unigram_byte_fallback),
    GOLDEN(wordpiece_bert_uncased),
    GOLDEN(wordpiece_bert_cased),
    GOLDEN(wordlevel),
    GOLDEN(added_flags),
    GOLDEN(norm_nfc),
    GOLDEN(norm_nfd),
    GOLDEN(norm_nfkc),
    GOLDEN(norm_nfkd_stripaccents),
    GOLDEN(norm_lowercase),
    GOLDEN(norm_strip),
    GOLDEN(norm_strip_left),
    GOLDEN(norm_nmt),
    GOLDEN(norm_replace_regex),
    GOLDEN(norm_prepend),
    GOLDEN(norm_bytelevel),
    GOLDEN(pre_digits_individual),
    GOLDEN(pre_digits_group),
    GOLDEN(pre_whitespace),
    GOLDEN(pre_whitespace_split),
    GOLDEN(pre_bert),
    GOLDEN(pre_char_delimiter),
    GOLDEN(pre_unicode_scripts),
    GOLDEN(pre_fixed_length),
    GOLDEN(pre_metaspace_custom),
    GOLDEN(pre_split_regex_removed),
    GOLDEN(pre_split_regex_isolated),
    GOLDEN(pre_split_regex_merged_with_previous),
    GOLDEN(pre_split_regex_merged_with_next),
    GOLDEN(pre_split_regex_contiguous),
    GOLDEN(pre_punctuation_removed),
    GOLDEN(pre_punctuation_isolated),
    GOLDEN(pre_punctuation_merged_with_previous),
    GOLDEN(pre_punctuation_merged_with_next),
    GOLDEN(pre_punctuation_contiguous),
    GOLDEN(pre_split_string),
    GOLDEN(pre_split_invert),
    GOLDEN(pre_split_invert_removed),
    GOLDEN(dec_fuse),
    GOLDEN(dec_metaspace),
    GOLDEN(dec_replace_strip),
    GOLDEN(dec_ctc),
};

int main(void) {
    return cmocka_run_group_tests(tests, NULL, NULL);
}
