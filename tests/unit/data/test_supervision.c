/* Rows against what Transformers and TRL's recipe make of them
 * (tests/fixtures/data/make_supervision.py), and what must hold for every row. The tokenizer of the
 * fixtures gives one token a byte. */
#include "tests/support/support.h"

#include "base/rng.h"
#include "train/data/row_stream.h"
#include "train/data/templates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IM_START = 256, IM_END = 257, BOS = 258 };

static tokenizer *bytes;
static data_templates own; /* the fixture's template */

static int setup(void **state) {
    (void)state;
    assert_ok(tokenizer_load(&bytes, test_fixture("data/bytes"), NULL, &test_error));
    assert_ok(data_templates_load(&own, test_fixture("data/bytes"), NULL, &test_error));
    assert_non_null(own.chat);
    assert_null(own.tools);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tokenizer_destroy(&bytes);
    data_templates_free(&own);
    return 0;
}

/* One row through the stream, with a template (NULL: none). */
typedef struct opened {
    const char *path;
    dataset_options options;
    row_stream *stream;
    const encoded_row *row;
} opened;

static void open_row(opened *o, const char *row, const chat_template *template, train_on what) {
    o->path = test_file("row.jsonl", row, strlen(row));
    o->options = (dataset_options){.paths = &o->path,
                                   .n_paths = 1,
                                   .tokenizer = bytes,
                                   .chat = template,
                                   .train_on = what,
                                   .max_length = 4096};
    assert_ok(row_stream_open(&o->stream, &o->options, &test_error));
    assert_ok(row_stream_next(o->stream, &o->row, &test_error));
    assert_non_null(o->row);
}

static void close_row(opened *o) {
    row_stream_close(&o->stream);
}

/* The labels as text: trained bytes as they are, control tokens as letters, the rest as dots. */
static void assert_trained(const char *row, const chat_template *template, train_on what,
                           const char *expected) {
    opened o;
    open_row(&o, row, template, what);
    strbuf shown = {0};
    for (size_t i = 0; i < o.row->n; i++) {
        int32_t label = o.row->tokens[i].label;
        strbuf_add_char(&shown, label == NOT_TRAINED ? '.'
                                : label == IM_START  ? 'S'
                                : label == IM_END    ? 'E'
                                : label == BOS       ? 'B'
                                                     : (char)label);
    }
    assert_string_equal(strbuf_text(&shown), expected);
    strbuf_free(&shown);
    close_row(&o);
}

/* ---- Against Hugging Face ----------------------------------------------------------------------
 */

static void assert_case(json_t *expected, int64_t line) {
    const char *name = json_string_value(json_object_get(expected, "template"));
    json_t *ids = json_object_get(expected, "ids"), *labels = json_object_get(expected, "labels");
    strbuf text = {0};
    json_write(&text, json_object_get(expected, "row"), JSON_PYTHON, false);
    opened o;
    open_row(&o, strbuf_text(&text), strcmp(name, "none") ? own.chat : NULL, TRAIN_ON_COMPLETIONS);
    for (size_t i = 0; i < o.row->n && i < json_array_size(ids); i++) {
        const row_token *token = &o.row->tokens[i];
        long long id = json_integer_value(json_array_get(ids, i));
        long long label = json_integer_value(json_array_get(labels, i));
        if (token->id != id || token->label != label)
            fail_msg("case %lld, token %zu: id %d label %d instead of %lld %lld", (long long)line,
                     i, (int)token->id, (int)token->label, id, label);
    }
    assert_int_equal(o.row->n, json_array_size(ids));
    close_row(&o);
    strbuf_free(&text);
}

static void test_as_transformers_and_trl(void **state) {
    (void)state;
    FILE *file = fopen(test_fixture("data/supervision.jsonl"), "rb");
    assert_non_null(file);
    static char line[1 << 16];
    int64_t n = 0;
    while (fgets(line, sizeof line, file)) {
        json_t *expected = NULL;
        n++;
        assert_ok(json_parse(&expected, line, strlen(line), "supervision.jsonl", &test_error));
        assert_case(expected, n);
        json_decref(expected);
    }
    fclose(file);
    assert_true(n > 20);
}

/* ---- What is trained ----------------------------------------------------------------------------
 */

static void test_train_on(void **state) {
    (void)state;
    static const char chat[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                               "{\"role\": \"assistant\", \"content\": \"b\"}]}";
    assert_trained(chat, own.chat, TRAIN_ON_COMPLETIONS, "....................bE.");
    assert_trained(chat, own.chat, TRAIN_ON_ASSISTANT, "....................bE.");
    assert_trained(chat, own.chat, TRAIN_ON_ALL, "Suser\naE\nSassistant\nbE\n");
}

static void test_conversation_as_prompt(void **state) {
    (void)state;
    static const char row[] =
        "{\"prompt\": [{\"role\": \"assistant\", \"content\": \"x\"}], \"completion\": "
        "[{\"role\": \"assistant\", \"content\": \"y\"}]}";
    assert_trained(row, own.chat, TRAIN_ON_COMPLETIONS, ".........................yE.");
    assert_trained(row, own.chat, TRAIN_ON_ASSISTANT, "...........xE............yE.");
}

static void test_turn_of_weight_0(void **state) {
    (void)state;
    assert_trained(
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\", \"weight\": 0}, {\"role\": "
        "\"assistant\", \"content\": \"y\"}]}",
        own.chat, TRAIN_ON_COMPLETIONS, ".........................yE.");
}

static void test_plain_text(void **state) {
    (void)state;
    static const char row[] = "{\"prompt\": \"ab\", \"completion\": \"cd\"}";
    assert_trained(row, NULL, TRAIN_ON_COMPLETIONS, "...cdE");
    assert_trained(row, NULL, TRAIN_ON_ALL, "BabcdE");
    assert_trained("{\"text\": \"ab\"}", NULL, TRAIN_ON_COMPLETIONS, "Bab");
    assert_trained("{\"text\": \"ab<|im_end|>\"}", own.chat, TRAIN_ON_ASSISTANT, "BabE");
    assert_trained("{\"prompt\": \"\", \"completion\": \"cd\"}", NULL, TRAIN_ON_COMPLETIONS,
                   ".cdE");
    assert_trained("{\"input_ids\": [97, 98, 99], \"labels\": [-100, -100, 99]}", own.chat,
                   TRAIN_ON_ALL, "..c");
}

static void test_one_eos_however_the_completion_ends(void **state) {
    (void)state;
    assert_trained("{\"prompt\": \"a\", \"completion\": \"b<|im_end|><|im_end|>\"}", NULL,
                   TRAIN_ON_COMPLETIONS, "..bE");
    assert_trained("{\"instruction\": \"a\", \"output\": \"b<|im_end|>\"}", NULL,
                   TRAIN_ON_COMPLETIONS, "...................................bE");
    assert_trained("{\"messages\": [{\"role\": \"assistant\", \"content\": \"b<|im_end|>\"}]}",
                   own.chat, TRAIN_ON_COMPLETIONS, "...........bE.");
    assert_trained("{\"prompt\": \"a\", \"completion\": \"\"}", NULL, TRAIN_ON_COMPLETIONS, "..E");
}

static bool found(const opened *o, gate_finding finding) {
    return o->row->findings >> finding & 1;
}

static void test_findings(void **state) {
    (void)state;
    opened o;
    open_row(&o, "{\"text\": \"<s>a\", \"id\": 7}", NULL, TRAIN_ON_ALL);
    assert_true(found(&o, GATE_DOUBLED_BOS));
    assert_true(found(&o, GATE_EXTRA_COLUMNS));
    assert_int_equal(o.row->n, 2);
    assert_int_equal(o.row->tokens[0].id, BOS);
    assert_string_equal(row_stream_gate(o.stream)->extra_columns, "id");
    close_row(&o);
    open_row(&o, "{\"input_ids\": [258, 258, 97]}", NULL, TRAIN_ON_ALL);
    assert_true(found(&o, GATE_DOUBLED_BOS_KEPT));
    assert_int_equal(o.row->n, 3);
    close_row(&o);
    open_row(&o, "{\"prompt\": \"a\", \"completion\": \"\"}", NULL, TRAIN_ON_ALL);
    assert_true(found(&o, GATE_EMPTY_ANSWER));
    close_row(&o);
    open_row(&o, "{\"messages\": [{\"role\": \"user\", \"content\": \"<|im_end|>\"}]}", own.chat,
             TRAIN_ON_ALL);
    assert_true(found(&o, GATE_CONTROL_TEXT));
    close_row(&o);
    open_row(&o, "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\"}]}]}",
             own.chat, TRAIN_ON_ALL);
    assert_true(found(&o, GATE_TOOLS_NOT_SHOWN));
    assert_non_null(
        strstr(strbuf_text(&o.row->text), "{\"name\": \"f\", \"arguments\": {}}<|im_end|>"));
    close_row(&o);
}

static chat_template *parse(const char *source) {
    chat_template *t = NULL;
    assert_ok(template_parse(&t, source, strlen(source), "t.jinja", &test_error));
    return t;
}

static const char one_turn[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, "
                               "{\"role\": \"assistant\", \"content\": \"a\"}]}";

/* A turn that no control token ends is given one, where the text ends with it. */
static void test_template_without_an_end_of_turn(void **state) {
    (void)state;
    chat_template *bare =
        parse("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    opened o;
    open_row(&o, one_turn, bare, TRAIN_ON_COMPLETIONS);
    assert_true(found(&o, GATE_EOS_ADDED));
    assert_false(found(&o, GATE_NO_STOP));
    assert_int_equal(o.row->tokens[o.row->n - 1].label, IM_END);
    close_row(&o);
    open_row(&o, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"weight\": 0}]}",
             bare, TRAIN_ON_COMPLETIONS); /* an untrained turn teaches no end */
    assert_false(found(&o, GATE_EOS_ADDED));
    close_row(&o);
    template_destroy(&bare);

    chat_template *marked =
        parse("{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
              "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
              "<|im_end|>{% endfor %}");
    open_row(&o, one_turn, marked, TRAIN_ON_COMPLETIONS);
    assert_true(found(&o, GATE_NO_STOP));
    close_row(&o);
    template_destroy(&marked);
}

static void test_template_that_prints_bos(void **state) {
    (void)state;
    chat_template *t = parse("{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
                             "{{ m.content }}{{ eos_token }}{% endfor %}");
    assert_trained(one_turn, t, TRAIN_ON_ALL, "BSuser\nqESassistant\naE");
    template_destroy(&t);
}

/* T15, where text and template meet without a space. */
static void test_control_text_beside_control_tokens(void **state) {
    (void)state;
    assert_trained("{\"messages\": [{\"role\": \"user\", \"content\": \"<|im_end|>\"}, {\"role\": "
                   "\"assistant\", "
                   "\"content\": \"<|im_start|><|im_end|>x<s>\"}]}",
                   own.chat, TRAIN_ON_ALL,
                   "Suser\n<|im_end|>E\nSassistant\n<|im_start|><|im_end|>x<s>E\n");
}

/* A tokenizer that puts a space before a text's first word must not put one where a stretch was
 * encoded alone. */
static void test_control_text_under_a_first_word_space(void **state) {
    (void)state;
    tokenizer *first;
    assert_ok(tokenizer_load(&first, test_fixture("data/first/tokenizer.json"), NULL, &test_error));
    const char *path = test_fixture("data/first.jsonl");
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char line[8192];
    int n = 0;
    for (; fgets(line, sizeof line, file); n++) {
        json_t *expected = NULL;
        assert_ok(json_parse(&expected, line, strlen(line), "first.jsonl", &test_error));
        strbuf text = {0};
        json_write(&text, json_object_get(expected, "row"), JSON_PYTHON, false);
        json_t *ids = json_object_get(expected, "ids");
        tokenizer *kept = bytes;
        bytes = first;
        opened o;
        open_row(&o, strbuf_text(&text), own.chat, TRAIN_ON_COMPLETIONS);
        bytes = kept;
        assert_int_equal(o.row->n, json_array_size(ids));
        for (size_t i = 0; i < o.row->n; i++)
            assert_int_equal(o.row->tokens[i].id, json_integer_value(json_array_get(ids, i)));
        close_row(&o);
        strbuf_free(&text);
        json_decref(expected);
    }
    fclose(file);
    assert_int_equal(n, 3);
    tokenizer_destroy(&first);
}

static void test_refused(void **state) {
    (void)state;
    const char *path = test_file("r.jsonl", one_turn, strlen(one_turn));
    dataset_options options = {.paths = &path, .n_paths = 1, .tokenizer = bytes, .max_length = 64};
    row_stream *s = NULL;
    const encoded_row *row;
    assert_ok(row_stream_open(&s, &options, &test_error));
    assert_refused(row_stream_next(s, &row, &test_error), GRAFT_E_INPUT,
                   "r.jsonl:1: a conversation needs a chat template");
    row_stream_close(&s);

    chat_template *raising = parse("{{ raise_exception('no such role') }}");
    options.chat = raising;
    assert_ok(row_stream_open(&s, &options, &test_error));
    graft_status status = row_stream_next(s, &row, &test_error);
    assert_int_not_equal(status, GRAFT_OK);
    assert_non_null(strstr(test_error.message, "r.jsonl:1"));
    assert_non_null(strstr(test_error.message, "no such role"));
    row_stream_close(&s);
    template_destroy(&raising);

    options.chat = own.chat;
    options.embedding_rows = 256; /* T17: fine until a row uses such a token */
    assert_ok(row_stream_open(&s, &options, &test_error));
    assert_refused(row_stream_next(s, &row, &test_error), GRAFT_E_INPUT,
                   "token 0 is id 256 (\"<|im_start|>\"), but the model's embedding has 256 rows");
    row_stream_close(&s);

    options.tokenizer = NULL;
    assert_ok(row_stream_open(&s, &options, &test_error));
    assert_refused(row_stream_next(s, &row, &test_error), GRAFT_E_INPUT, "needs a tokenizer");
    row_stream_close(&s);
    options.max_length = 1;
    assert_refused(row_stream_open(&s, &options, &test_error), GRAFT_E_USAGE, "max_length is 1");
}

/* ---- For every row ------------------------------------------------------------------------------
 */

static void add_random_text(strbuf *out, rng *r) {
    static const char *const pieces[] = {
        "a",   " ", "\n", "\u00e9", "\u732b",     "\U0001F642", "<|im_end|>", "<|im_start|>",
        "<s>", "<", "|>", "user\n", "\U000F0001", "{{ x }}",    "assistant\n"};
    for (uint64_t n = rng_below(r, 12); n > 0; n--)
        strbuf_add_text(out, pieces[rng_below(r, sizeof pieces / sizeof *pieces)]);
}

/* Builds a random conversation as JSON and, beside it, what the fixture's template prints and what
 * must be trained. */
static void random_chat(strbuf *json, strbuf *text, strbuf *trained, rng *r) {
    strbuf_add_text(json, "{\"messages\": [");
    uint64_t n = 1 + rng_below(r, 5);
    for (uint64_t i = 0; i < n; i++) {
        bool speaks = rng_below(r, 2);
        strbuf content = {0};
        add_random_text(&content, r);
        strbuf_add_text(&content, "."); /* no EOS text at the end: that would be dropped */
        strbuf_printf(json, "%s{\"role\": \"%s\", \"content\": ", i ? ", " : "",
                      speaks ? "assistant" : "user");
        json_write_string(json, strbuf_text(&content), content.length);
        strbuf_add_text(json, "}");
        strbuf_printf(text, "<|im_start|>%s\n", speaks ? "assistant" : "user");
        strbuf_add(text, content.data, content.length);
        strbuf_add_text(text, "<|im_end|>\n");
        if (speaks) {
            strbuf_add(trained, content.data, content.length);
            strbuf_add_text(trained, "<|im_end|>");
        }
        strbuf_free(&content);
    }
    strbuf_add_text(json, "]}");
}

static void test_every_label_belongs_to_a_span(void **state) {
    (void)state;
    rng r = rng_create(11, 0);
    for (int round = 0; round < 300; round++) {
        strbuf json = {0}, text = {0}, trained = {0}, ids = {0}, labels = {0};
        random_chat(&json, &text, &trained, &r);
        opened o;
        open_row(&o, strbuf_text(&json), own.chat, TRAIN_ON_COMPLETIONS);
        assert_string_equal(strbuf_text(&o.row->text), strbuf_text(&text));
        for (size_t i = 0; i < o.row->n; i++) {
            const row_token *t = &o.row->tokens[i];
            const char *name = t->id < 256 ? NULL : tokenizer_token_text(bytes, t->id);
            char byte = (char)t->id;
            strbuf_add(&ids, name ? name : &byte, name ? strlen(name) : 1);
            if (name) /* a control token stands where its text does */
                assert_memory_equal(o.row->text.data + t->begin, name, strlen(name));
            assert_true(t->begin < t->end && t->end <= o.row->text.length);
            assert_true(i == 0 || t->begin >= t[-1].begin);
            if (t->label == NOT_TRAINED)
                continue;
            assert_int_equal(t->label, t->id);
            strbuf_add(&labels, name ? name : &byte, name ? strlen(name) : 1);
        }
        assert_string_equal(strbuf_text(&ids), strbuf_text(&text));
        assert_string_equal(strbuf_text(&labels), strbuf_text(&trained));
        close_row(&o);
        strbuf_free(&json);
        strbuf_free(&text);
        strbuf_free(&trained);
        strbuf_free(&ids);
        strbuf_free(&labels);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_transformers_and_trl),
        cmocka_unit_test(test_train_on),
        cmocka_unit_test(test_conversation_as_prompt),
        cmocka_unit_test(test_turn_of_weight_0),
        cmocka_unit_test(test_plain_text),
        cmocka_unit_test(test_one_eos_however_the_completion_ends),
        cmocka_unit_test(test_findings),
        cmocka_unit_test(test_template_without_an_end_of_turn),
        cmocka_unit_test(test_template_that_prints_bos),
        cmocka_unit_test(test_control_text_beside_control_tokens),
        cmocka_unit_test(test_control_text_under_a_first_word_space),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_every_label_belongs_to_a_span),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
