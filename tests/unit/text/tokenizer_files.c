/* Files of every format, good and bad. A test of bad input is named by what it feeds. */
#include "tests/support/support.h"

#include "formats/jsonl.h"
#include "text/tokenizer/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- A tokenizer.json from its parts ---- */

typedef struct parts {
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder, *model, *added_tokens;
} parts;

static const char small_bpe[] = "{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,"
                                "\"a\":1,\"b\":2,\"ab\":3,\" \":4,\"\\u2581\":5},"
                                "\"merges\":[\"a b\"]}";

static const char *or_null(const char *text) {
    return text ? text : "null";
}

static graft_status load_text(tokenizer **t, const char *text) {
    return tokenizer_load(t, test_file("tokenizer.json", text, strlen(text)), NULL, &test_error);
}

static graft_status load_parts(tokenizer **t, parts p) {
    strbuf text = {0};
    strbuf_printf(&text,
                  "{\"version\":\"1.0\",\"truncation\":{\"max_length\":2,\"stride\":5,\"strategy\":"
                  "\"LongestFirst\"},"
                  "\"padding\":null,\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,"
                  "\"post_processor\":%s,"
                  "\"decoder\":%s,\"model\":%s}",
                  p.added_tokens ? p.added_tokens : "[]", or_null(p.normalizer),
                  or_null(p.pre_tokenizer), or_null(p.post_processor), or_null(p.decoder),
                  p.model ? p.model : small_bpe);
    graft_status status = load_text(t, strbuf_text(&text));
    strbuf_free(&text);
    return status;
}

static void refuse(parts p, graft_status status, const char *text) {
    tokenizer *t = NULL;
    assert_refused(load_parts(&t, p), status, text);
    assert_null(t);
}

static tokenizer *accept(parts p) {
    tokenizer *t = NULL;
    assert_ok(load_parts(&t, p));
    return t;
}

static const encode_options usual = {true, false};

static void assert_ids(const tokenizer *t, const char *text, encode_options options, size_t n,
                       const int32_t *ids) {
    encoding e = {0};
    assert_ok(tokenizer_encode(t, &e, text, strlen(text), options, &test_error));
    for (size_t i = 0; i < e.n && i < n; i++)
        if (e.ids[i] != ids[i])
            fail_msg("\"%s\": id %zu is %d instead of %d", text, i, e.ids[i], ids[i]);
    assert_int_equal(e.n, n);
    encoding_free(&e);
}

#define ASSERT_IDS(t, text, options, ...)                                                          \
    do {                                                                                           \
        const int32_t ids_[] = {__VA_ARGS__};                                                      \
        assert_ids((t), (text), (options), sizeof ids_ / sizeof ids_[0], ids_);                    \
    } while (0)

/* ---- Models ---- */

static void bpe_merge_result_longer_than_the_longest_token(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}"},
           GRAFT_E_INPUT, "model.merges: merge 0: its result \"ab\" is not in the vocabulary");
}

static void bpe_merge_of_an_unknown_token(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":["
                            "\"a b\",[\"a\",\"c\"]]}"},
           GRAFT_E_INPUT, "merge 1: its right token \"c\"");
}

static void bpe_merges_as_strings_and_as_pairs(void **state) {
    (void)state;
    const char *models[] = {
        "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"#version: 0.2\",\"a "
        "b\"]}",
        "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]}"};
    for (size_t i = 0; i < 2; i++) {
        tokenizer *t = accept((parts){.model = models[i]});
        ASSERT_IDS(t, "abba", usual, 2, 1, 0);
        tokenizer_destroy(&t);
    }
}

static void bpe_merge_of_three_tokens(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}"},
           GRAFT_E_INPUT, "expected two tokens");
}

static void bpe_dropout(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}"},
           GRAFT_E_UNSUPPORTED, "model.dropout: 0.1");
    tokenizer *t =
        accept((parts){.model = "{\"type\":\"BPE\",\"dropout\":0,\"vocab\":{},\"merges\":[]}"});
    tokenizer_destroy(&t);
}

static void bpe_unknown_token_outside_the_vocabulary(void **state) {
    (void)state;
    encoding e = {0};
    tokenizer *t = accept((parts){
        .model = "{\"type\":\"BPE\",\"unk_token\":\"<u>\",\"vocab\":{\"a\":0},\"merges\":[]}"});
    ASSERT_IDS(t, "aa", usual, 0, 0);
    assert_refused(tokenizer_encode(t, &e, "ab", 2, usual, &test_error), GRAFT_E_INPUT,
                   "unknown token \"<u>\" is not in its vocabulary");
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void vocabulary_ids(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"},
           GRAFT_E_INPUT, "id 0 belongs to both \"a\" and \"b\"");
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"}, GRAFT_E_INPUT,
           "expected an integer from 0 on, found a negative one");
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":2147483648},\"merges\":[]}"},
           GRAFT_E_INPUT, "id 2147483648; expected ids below");
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":9000000},\"merges\":[]}"},
           GRAFT_E_INPUT, "id 9000000 among 1 tokens");
    refuse((parts){.model = "{\"type\":\"WordLevel\",\"vocab\":{\"a\":\"0\"}}"}, GRAFT_E_INPUT,
           "found a string");
    tokenizer *t =
        accept((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":7},\"merges\":[]}"});
    assert_int_equal(tokenizer_vocab_size(t), 8);
    assert_null(tokenizer_token_text(t, 3));
    ASSERT_IDS(t, "ab", usual, 0, 7);
    tokenizer_destroy(&t);
}

static void vocabulary_with_gaps_where_added_tokens_go(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]}",
                   .added_tokens = "[{\"id\":3,\"content\":\"<x>\"}]"},
           GRAFT_E_INPUT, "the added token \"<x>\" would get id 2, which is \"b\" already");
}

static void unigram_scores(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"Unigram\",\"vocab\":[[\"a\",1],[\"a\",2]]}"},
           GRAFT_E_INPUT, "vocab[1]: \"a\" is in the vocabulary before");
    refuse((parts){.model = "{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"x\"]]}"}, GRAFT_E_INPUT,
           "model.vocab[0]: expected [token, score]");
    refuse((parts){.model = "{\"type\":\"Unigram\",\"unk_id\":5,\"vocab\":[[\"a\",1]]}"},
           GRAFT_E_INPUT, "unk_id");
}

static void model_without_its_vocabulary(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"BPE\",\"merges\":[]}"}, GRAFT_E_INPUT,
           "model.vocab: expected an object");
    refuse((parts){.model = "[]"}, GRAFT_E_INPUT, "model: expected an object, found an array");
}

/* ---- Components ---- */

static void component_of_unknown_type(void **state) {
    (void)state;
    refuse((parts){.model = "{\"type\":\"Magic\"}"}, GRAFT_E_UNSUPPORTED, "model.type: \"Magic\"");
    refuse((parts){.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{"
                                 "\"type\":\"Magic\"}]}"},
           GRAFT_E_UNSUPPORTED, "normalizer.normalizers[1].type: \"Magic\"");
    refuse((parts){.pre_tokenizer = "{\"type\":\"Magic\"}"}, GRAFT_E_UNSUPPORTED,
           "pre_tokenizer.type: \"Magic\"");
    refuse((parts){.post_processor = "{\"type\":\"Magic\"}"}, GRAFT_E_UNSUPPORTED,
           "post_processor.type: \"Magic\"");
    refuse((parts){.decoder = "{\"type\":\"Magic\"}"}, GRAFT_E_UNSUPPORTED,
           "decoder.type: \"Magic\"");
    refuse((parts){.decoder = "{}"}, GRAFT_E_INPUT, "decoder.type: missing");
}

static void sequences_nested_too_deep(void **state) {
    (void)state;
    strbuf text = {0};
    for (int i = 0; i < 40; i++)
        strbuf_add_text(&text, "{\"type\":\"Sequence\",\"normalizers\":[");
    strbuf_add_text(&text, "{\"type\":\"NFC\"}");
    for (int i = 0; i < 40; i++)
        strbuf_add_text(&text, "]}");
    refuse((parts){.normalizer = text.data}, GRAFT_E_INPUT, "nested deeper than 32");
    strbuf_free(&text);
}

static void sequence_of_very_many(void **state) {
    (void)state;
    strbuf text = {0};
    strbuf_add_text(&text, "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"}");
    for (int i = 0; i < 300; i++)
        strbuf_add_text(&text, ",{\"type\":\"Fuse\"}");
    strbuf_add_text(&text, "]}");
    refuse((parts){.decoder = text.data}, GRAFT_E_INPUT, "more than 256 components");
    strbuf_free(&text);
}

static void template_names_an_absent_token(void **state) {
    (void)state;
    refuse(
        (parts){
            .post_processor =
                "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"[CLS]\","
                "\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}"},
        GRAFT_E_INPUT, "\"[CLS]\" is missing in special_tokens");
    refuse(
        (parts){
            .post_processor =
                "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],"
                "\"special_tokens\":{\"x\":{\"id\":\"x\",\"ids\":[99],\"tokens\":[\"x\"]}}}"},
        GRAFT_E_INPUT, "id 99");
    refuse((parts){.post_processor =
                       "{\"type\":\"BertProcessing\",\"sep\":[\"s\",50],\"cls\":[\"c\",0]}"},
           GRAFT_E_INPUT, "id 50");
    refuse(
        (parts){.post_processor =
                    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}]}"},
        GRAFT_E_INPUT, "cannot stand in a template for one text");
}

static void fixed_length_of_zero(void **state) {
    (void)state;
    refuse((parts){.pre_tokenizer = "{\"type\":\"FixedLength\",\"length\":0}"}, GRAFT_E_INPUT,
           "length");
}

/* The crate that Hugging Face uses panics here: more is to be cut than there is. */
static void strip_more_than_there_is(void **state) {
    (void)state;
    const int32_t ids[] = {4, 1, 4, 4};
    strbuf text = {0};
    tokenizer *t = accept((parts){
        .decoder =
            "{\"type\":\"Strip\",\"content\":\" \",\"start\":9000000000,\"stop\":9000000000}"});
    assert_ok(tokenizer_decode(t, &text, ids, 4, false, &test_error));
    assert_string_equal(strbuf_text(&text), "a");
    strbuf_free(&text);
    tokenizer_destroy(&t);
}

static void damaged_character_map(void **state) {
    (void)state;
    refuse((parts){.normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}"},
           GRAFT_E_INPUT, "precompiled_charsmap: the character map is damaged");
    refuse(
        (parts){.normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}"},
        GRAFT_E_INPUT, "the character map is damaged");
    refuse((parts){.normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"A!\"}"},
           GRAFT_E_INPUT, "no base64");
    refuse((parts){.normalizer =
                       "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAAAAD/\"}"},
           GRAFT_E_INPUT, "no valid UTF-8");
}

static void invalid_regex(void **state) {
    (void)state;
    refuse(
        (parts){
            .pre_tokenizer =
                "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}"},
        GRAFT_E_INPUT, "pre_tokenizer.pattern: the regular expression is invalid");
    refuse((parts){.normalizer = "{\"type\":\"Replace\",\"pattern\":3,\"content\":\"\"}"},
           GRAFT_E_INPUT, "normalizer.pattern: expected");
    refuse((parts){.pre_tokenizer =
                       "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Gone\"}"},
           GRAFT_E_UNSUPPORTED, "behavior: \"Gone\"");
}

static void catastrophic_regex(void **state) {
    (void)state;
    char text[4096];
    encoding e = {0};
    memset(text, 'a', sizeof text);
    tokenizer *t = accept((parts){.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"("
                                                   "a|a|aa)+$b\"},\"behavior\":\"Isolated\"}"});
    clock_t start = clock();
    assert_refused(tokenizer_encode(t, &e, text, sizeof text, usual, &test_error), GRAFT_E_INPUT,
                   "takes too long");
    assert_true(clock() - start < 20 * CLOCKS_PER_SEC);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void normalizer_that_expands_without_bound(void **state) {
    (void)state;
    char text[20000];
    encoding e = {0};
    strbuf json = {0};
    memset(text, 'a', sizeof text);
    strbuf_add_text(&json, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"");
    for (int i = 0; i < 20000; i++)
        strbuf_add_char(&json, 'b');
    strbuf_add_text(&json, "\"}");
    tokenizer *t = accept((parts){.normalizer = json.data});
    assert_refused(tokenizer_encode(t, &e, text, sizeof text, usual, &test_error), GRAFT_E_INPUT,
                   "the normalized text grows past");
    strbuf_free(&json);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

/* ---- Added tokens ---- */

static void added_token_of_no_text(void **state) {
    (void)state;
    tokenizer *t = accept(
        (parts){.added_tokens = "[{\"id\":6,\"content\":\"\"},{\"id\":6,\"content\":\"<x>\"}]"});
    ASSERT_IDS(t, "a<x>b", usual, 1, 6, 2);
    tokenizer_destroy(&t);
}

static void added_tokens_in_their_millions(void **state) {
    (void)state;
    strbuf list = {0};
    for (int i = 0; i < 200000; i++)
        strbuf_printf(&list, "%s{\"id\":%d,\"content\":\"<t%d>\"}", i ? "," : "[", i + 6, i);
    strbuf_add_text(&list, "]");
    tokenizer *t = accept((parts){.added_tokens = list.data});
    ASSERT_IDS(t, "<t7>a<t70><t199999><t200000>", usual, 13, 1, 76, 200005, 0, 0, 0, 0, 0, 0, 0, 0,
               0);
    strbuf_free(&list);
    tokenizer_destroy(&t);
}

static void added_token_that_takes_white_space_twice(void **state) {
    (void)state;
    tokenizer *t = accept((parts){
        .added_tokens = "[{\"id\":6,\"content\":\"  \",\"rstrip\":true,\"normalized\":false}]"});
    ASSERT_IDS(t, "a      b", usual, 1, 6, 2);
    tokenizer_destroy(&t);
}

static void text_with_a_control_token(void **state) {
    (void)state;
    const encode_options plain = {true, true};
    tokenizer *t =
        accept((parts){.added_tokens = "[{\"id\":6,\"content\":\"<|im_end|>\",\"special\":true},{"
                                       "\"id\":7,\"content\":\"<tool>\"}]"});
    ASSERT_IDS(t, "a<|im_end|>b", usual, 1, 6, 2);
    ASSERT_IDS(t, "a<|im_end|>b", plain, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2);
    ASSERT_IDS(t, "a<tool>b", plain, 1, 7, 2); /* an ordinary added token */
    tokenizer_destroy(&t);
    t = accept((parts){.model = "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"</"
                                "s>\",0],[\"<\",-3],[\"/\",-3],[\"s\",-3],"
                                "[\">\",-3]]}",
                       .added_tokens = "[{\"id\":1,\"content\":\"</s>\",\"special\":true}]"});
    ASSERT_IDS(t, "</s>", usual, 1);
    ASSERT_IDS(t, "</s>", plain, 2, 3, 4, 5);
    ASSERT_IDS(t, "</s>", usual, 1); /* the words remembered for the other way are not mixed up */
    tokenizer_destroy(&t);
    t = accept((parts){
        .model = "{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"[MASK]\":1}}",
        .added_tokens = "[{\"id\":1,\"content\":\"[MASK]\",\"special\":true}]"});
    ASSERT_IDS(t, "[MASK]", usual, 1);
    ASSERT_IDS(t, "[MASK]", plain, 0);
    tokenizer_destroy(&t);
}

/* ---- Texts ---- */

static void text_of_invalid_utf8(void **state) {
    (void)state;
    encoding e = {0};
    tokenizer *t = accept((parts){0});
    assert_refused(tokenizer_encode(t, &e, "ab\xC3(", 4, usual, &test_error), GRAFT_E_INPUT,
                   "no valid UTF-8 at byte 2 (0xc3)");
    assert_refused(tokenizer_encode(t, &e, "\xED\xA0\x80", 3, usual, &test_error), GRAFT_E_INPUT,
                   "at byte 0");
    assert_int_equal(e.n, 0);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void text_with_nul(void **state) {
    (void)state;
    encoding e = {0};
    tokenizer *t = accept((parts){0});
    assert_ok(tokenizer_encode(t, &e, "a\0b", 3, usual, &test_error));
    assert_int_equal(e.n, 3);
    assert_int_equal(e.ids[2], 2);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void text_longer_than_offsets_reach(void **state) {
    (void)state;
    encoding e = {0};
    tokenizer *t = accept((parts){0});
    assert_refused(tokenizer_encode(t, &e, "a", (size_t)1 << 32, usual, &test_error), GRAFT_E_INPUT,
                   "a text of 4294967296 bytes");
    tokenizer_destroy(&t);
}

static void long_words_merge_like_short_ones(void **state) {
    (void)state;
    enum { N = 20000 };
    static char text[N];
    encoding e = {0};
    tokenizer *t = accept((parts){
        .model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2,\"b\":3,\"ab\":4},"
                 "\"merges\":[\"a a\",\"aa aa\",\"a b\"]}"});
    memset(text, 'a', N);
    text[N - 1] = 'b';
    assert_ok(tokenizer_encode(t, &e, text, N, usual, &test_error));
    assert_int_equal(e.n, (N - 4) / 4 + 2);
    assert_int_equal(e.ids[0], 2);
    assert_int_equal(e.ids[e.n - 2], 1);
    assert_int_equal(e.ids[e.n - 1], 4);
    assert_int_equal(e.end[e.n - 1], N);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void ids_without_a_token_decode_to_nothing(void **state) {
    (void)state;
    const int32_t ids[] = {1, -1, 77, INT32_MAX, 2};
    strbuf text = {0};
    tokenizer *t = accept((parts){.decoder = "{\"type\":\"Fuse\"}"});
    assert_ok(tokenizer_decode(t, &text, ids, 5, true, &test_error));
    assert_string_equal(strbuf_text(&text), "ab");
    strbuf_free(&text);
    tokenizer_destroy(&t);
}

enum { THREADS = 4, ROUNDS = 50 };

typedef struct job {
    const tokenizer *t;
    const char *text;
    const encoding *expected;
    bool same;
} job;

static void *encode_often(void *context) {
    job *j = context;
    encoding e = {0};
    j->same = true;
    for (int i = 0; i < ROUNDS && j->same; i++)
        j->same = tokenizer_encode(j->t, &e, j->text, strlen(j->text), usual, NULL) == GRAFT_OK &&
                  e.n == j->expected->n &&
                  memcmp(e.ids, j->expected->ids, e.n * sizeof *e.ids) == 0;
    encoding_free(&e);
    return NULL;
}

static void several_threads_encode_at_once(void **state) {
    (void)state;
    static const char text[] = "To be, or not to be: that is the question. Whether 'tis nobler";
    tokenizer *t = NULL;
    encoding expected = {0};
    pthread_t threads[THREADS];
    job jobs[THREADS];
    assert_ok(tokenizer_load(&t, test_fixture("tokenizers/sp_bpe"), NULL, &test_error));
    assert_ok(tokenizer_encode(t, &expected, text, strlen(text), usual, &test_error));
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){t, text, &expected, false};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(jobs[i].same);
    }
    encoding_free(&expected);
    tokenizer_destroy(&t);
}

/* ---- Other formats ---- */

static void check_cases(const char *tokenizer_path, const char *cases, const char *unknown) {
    tokenizer *t = NULL;
    row_reader *reader = NULL;
    encoding e = {0};
    int64_t line = 0;
    json_t *row = NULL;
    assert_ok(tokenizer_load(&t, test_fixture(tokenizer_path), NULL, &test_error));
    assert_ok(row_reader_open(&reader, test_fixture(cases), &test_error));
    for (;; json_decref(row)) {
        assert_ok(row_reader_next(reader, &row, &line, &test_error));
        if (!row)
            break;
        const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
        strbuf decoded = {0};
        assert_ok(tokenizer_encode(t, &e, json_string_value(text), json_string_length(text),
                                   (encode_options){false, true}, &test_error));
        bool has_unknown = false;
        for (size_t i = 0; i < e.n; i++) {
            assert_int_equal(e.ids[i], json_integer_value(json_array_get(ids, i)));
            has_unknown |= unknown && e.ids[i] == tokenizer_token_id(t, unknown);
        }
        assert_int_equal(e.n, json_array_size(ids));
        /* SentencePiece prints an unknown piece in a way of its own. */
        assert_ok(tokenizer_decode(t, &decoded, e.ids, e.n, false, &test_error));
        if (!has_unknown)
            assert_string_equal(strbuf_text(&decoded),
                                json_string_value(json_object_get(row, "decoded")));
        strbuf_free(&decoded);
    }
    assert_true(line > 20);
    row_reader_close(&reader);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void sentencepiece_unigram(void **state) {
    (void)state;
    check_cases("tokenizers/sp_unigram", "tokenizers/sp_unigram/cases.jsonl", "<unk>");
}

static void sentencepiece_bpe(void **state) {
    (void)state;
    check_cases("tokenizers/sp_bpe/tokenizer.model", "tokenizers/sp_bpe/cases.jsonl", "<unk>");
}

static void sentencepiece_adds_bos_like_llama(void **state) {
    (void)state;
    tokenizer *t = NULL;
    encoding e = {0};
    assert_ok(tokenizer_load(&t, test_fixture("tokenizers/sp_bpe"), NULL, &test_error));
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_ok(tokenizer_encode(t, &e, "a", 1, usual, &test_error));
    assert_int_equal(e.ids[0], 1);
    assert_int_equal(e.special[0], 1);
    encoding_free(&e);
    tokenizer_destroy(&t);
}

static void sentencepiece_cut_short(void **state) {
    (void)state;
    char bytes[4096];
    FILE *file = fopen(test_fixture("tokenizers/sp_bpe/tokenizer.model"), "rb");
    assert_non_null(file);
    size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    tokenizer *t = NULL;
    assert_refused(tokenizer_load(&t, test_file("cut.model", bytes, n - 3), NULL, &test_error),
                   GRAFT_E_INPUT, "cut.model: damaged");
}

static void tiktoken_ranks(void **state) {
    (void)state;
    tokenizer *t = NULL;
    check_cases("tokenizers/tiktoken", "tokenizers/tiktoken/cases.jsonl", NULL);
    assert_ok(tokenizer_load(&t, test_fixture("tokenizers/tiktoken"), NULL, &test_error));
    assert_int_equal(tokenizer_eos(t), 405);
    ASSERT_IDS(t, "<|end|>", usual, 405);
    tokenizer_destroy(&t);
}

static void tiktoken_without_a_pattern(void **state) {
    (void)state;
    tokenizer *t = NULL;
    assert_refused(tokenizer_load(&t, test_file("mine.tiktoken", "YQ== 0\n", 7), NULL, &test_error),
                   GRAFT_E_UNSUPPORTED, "does not say how text is split");
}

static void tiktoken_line_that_is_no_rank(void **state) {
    (void)state;
    tokenizer *t = NULL;
    static const char text[] = "YQ== 0\nYg== -1\n";
    assert_refused(tokenizer_load(&t, test_file("cl100k_base.tiktoken", text, strlen(text)), NULL,
                                  &test_error),
                   GRAFT_E_INPUT, "cl100k_base.tiktoken:2: expected a token in base64");
}

/* vocab.json + merges.txt; the lines end in CRLF, and the last has no end. */
static void merges_with_crlf(void **state) {
    (void)state;
    tokenizer *t = NULL;
    static const char vocab[] = "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"<|endoftext|>\":5}";
    static const char merges[] = "#version: 0.2\r\na b\r\nab c";
    test_file("merges.txt", merges, strlen(merges));
    assert_ok(tokenizer_load(&t, test_file("vocab.json", vocab, strlen(vocab)), NULL, &test_error));
    ASSERT_IDS(t, "abcab<|endoftext|>", usual, 4, 3, 5);
    assert_int_equal(tokenizer_eos(t), 5);
    tokenizer_destroy(&t);
}

static void merges_line_of_one_token(void **state) {
    (void)state;
    tokenizer *t = NULL;
    test_file("merges.txt", "#version: 0.2\na b\nab\n", 21);
    assert_refused(tokenizer_load(&t, test_file("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", 20),
                                  NULL, &test_error),
                   GRAFT_E_INPUT, "merges.txt:3: expected two tokens");
}

static void folder_without_a_tokenizer(void **state) {
    (void)state;
    tokenizer *t = NULL;
    assert_refused(tokenizer_load(&t, test_fixture("tokenizers"), NULL, &test_error), GRAFT_E_INPUT,
                   "no tokenizer; expected tokenizer.json");
    assert_refused(tokenizer_load(&t, "/nowhere/tokenizer.json", NULL, &test_error), GRAFT_E_INPUT,
                   "/nowhere/tokenizer.json");
}

static void names_from_the_config(void **state) {
    (void)state;
    tokenizer *t = NULL;
    const char *name, *text;
    assert_ok(tokenizer_load(&t, test_data("tokenizers/smollm"), NULL, &test_error));
    assert_int_equal(tokenizer_bos(t), 0);
    assert_int_equal(tokenizer_eos(t), 0);
    assert_int_equal(tokenizer_pad(t), 49152);
    assert_true(tokenizer_special_token(t, 0, &name, &text));
    assert_string_equal(name, "bos_token");
    assert_string_equal(text, "<|endoftext|>");
    assert_true(tokenizer_is_special(t, 0));
    assert_false(tokenizer_is_special(t, 500));
    tokenizer_destroy(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_merge_result_longer_than_the_longest_token),
        cmocka_unit_test(bpe_merge_of_an_unknown_token),
        cmocka_unit_test(bpe_merges_as_strings_and_as_pairs),
        cmocka_unit_test(bpe_merge_of_three_tokens),
        cmocka_unit_test(bpe_dropout),
        cmocka_unit_test(bpe_unknown_token_outside_the_vocabulary),
        cmocka_unit_test(vocabulary_ids),
        cmocka_unit_test(vocabulary_with_gaps_where_added_tokens_go),
        cmocka_unit_test(unigram_scores),
        cmocka_unit_test(model_without_its_vocabulary),
        cmocka_unit_test(component_of_unknown_type),
        cmocka_unit_test(sequences_nested_too_deep),
        cmocka_unit_test(sequence_of_very_many),
        cmocka_unit_test(template_names_an_absent_token),
        cmocka_unit_test(fixed_length_of_zero),
        cmocka_unit_test(strip_more_than_there_is),
        cmocka_unit_test(damaged_character_map),
        cmocka_unit_test(invalid_regex),
        cmocka_unit_test(catastrophic_regex),
        cmocka_unit_test(normalizer_that_expands_without_bound),
        cmocka_unit_test(added_token_of_no_text),
        cmocka_unit_test(added_tokens_in_their_millions),
        cmocka_unit_test(added_token_that_takes_white_space_twice),
        cmocka_unit_test(text_with_a_control_token),
        cmocka_unit_test(text_of_invalid_utf8),
        cmocka_unit_test(text_with_nul),
        cmocka_unit_test(text_longer_than_offsets_reach),
        cmocka_unit_test(long_words_merge_like_short_ones),
        cmocka_unit_test(ids_without_a_token_decode_to_nothing),
        cmocka_unit_test(several_threads_encode_at_once),
        cmocka_unit_test(sentencepiece_unigram),
        cmocka_unit_test(sentencepiece_bpe),
        cmocka_unit_test(sentencepiece_adds_bos_like_llama),
        cmocka_unit_test(sentencepiece_cut_short),
        cmocka_unit_test(tiktoken_ranks),
        cmocka_unit_test(tiktoken_without_a_pattern),
        cmocka_unit_test(tiktoken_line_that_is_no_rank),
        cmocka_unit_test(merges_with_crlf),
        cmocka_unit_test(merges_line_of_one_token),
        cmocka_unit_test(folder_without_a_tokenizer),
        cmocka_unit_test(names_from_the_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
