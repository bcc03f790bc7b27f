/* Rows told by their keys, normalised or refused; no tokenizer is needed. */
#include "tests/support/support.h"

#include "train/data/rows.h"

#include <string.h>

static graft_status read_as(data_row *out, const char *text, bool has_template) {
    json_t *json = NULL;
    *out = (data_row){0};
    assert_ok(json_parse(&json, text, strlen(text), "t", &test_error));
    graft_status status =
        data_row_read(out, json, ANSWER_CHOSEN, has_template, "d.jsonl:7", &test_error);
    json_decref(json);
    return status;
}

static graft_status read_row(data_row *out, const char *text) {
    return read_as(out, text, true);
}

/* The row must come out as these messages (JSON with sorted keys) and tools (NULL: none). */
static void assert_messages(const char *text, const char *messages, const char *tools) {
    data_row row;
    assert_ok(read_row(&row, text));
    strbuf out = {0};
    json_write(&out, row.conversation.messages, JSON_TIGHT, true);
    assert_string_equal(strbuf_text(&out), messages);
    strbuf_clear(&out);
    if (tools)
        json_write(&out, row.conversation.tools, JSON_TIGHT, true);
    assert_string_equal(strbuf_text(&out), tools ? tools : "");
    assert_int_equal(tools != NULL, row.conversation.tools != NULL);
    strbuf_free(&out);
    data_row_free(&row);
}

static void assert_bad(const char *text, const char *message) {
    data_row row;
    graft_status status = read_row(&row, text);
    assert_refused(status, GRAFT_E_INPUT, message);
    assert_refused(status, GRAFT_E_INPUT, "d.jsonl:7");
    data_row_free(&row);
}

static void assert_plain(const char *text, const char *prompt, const char *completion,
                         bool has_eos) {
    data_row row;
    assert_ok(read_as(&row, text, false));
    assert_string_equal(strbuf_text(&row.prompt), prompt);
    assert_string_equal(strbuf_text(&row.completion), completion);
    assert_int_equal(row.ends_in_eos, has_eos);
    assert_null(row.conversation.messages);
    data_row_free(&row);
}

static void test_messages(void **state) {
    (void)state;
    assert_messages(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\", \"reasoning_content\": \"r\"}]}",
        "[{\"content\":\"a\",\"role\":\"user\"},{\"content\":\"b\",\"reasoning_content\":\"r\","
        "\"role\":\"assistant\"}]",
        NULL);
}

static void test_text_parts_are_joined(void **state) {
    (void)state;
    assert_messages(
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, "
        "{\"type\": \"text\", \"value\": \"b\"}, \"c\"]}]}",
        "[{\"content\":\"abc\",\"role\":\"user\"}]", NULL);
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"url\": "
               "\"x\"}]}]}",
               "messages[0].content has a part that is no text");
}

static void test_weights(void **state) {
    (void)state;
    data_row row;
    assert_ok(read_row(
        &row, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"loss_weight\": 0.0}, "
              "{\"role\": \"assistant\", \"content\": \"b\", \"loss_weight\": 1.0}, "
              "{\"role\": \"assistant\", \"content\": \"c\", \"weight\": 0}]}"));
    assert_int_equal(row.conversation.untrained[0], 1);
    assert_int_equal(row.conversation.untrained[1], 0);
    assert_int_equal(row.conversation.untrained[2], 1);
    assert_null(json_object_get(json_array_get(row.conversation.messages, 1), "loss_weight"));
    data_row_free(&row);
    assert_bad("{\"messages\": [{\"role\": \"assistant\", \"content\": \"b\", \"weight\": 0.5}]}",
               "neither 0 nor 1");
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": \"b\", \"loss_weight\": 1}]}",
               "is no assistant's turn");
}

static void test_sharegpt_is_messages(void **state) {
    (void)state;
    assert_messages(
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": "
        "\"function_call\", \"value\": "
        "\"{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"x\\\": 1}}\"}, {\"from\": "
        "\"observation\", \"value\": "
        "\"r\"}, {\"from\": \"gpt\", \"value\": \"a\"}], \"system\": \"s\", \"tools\": "
        "\"[{\\\"name\\\": "
        "\\\"f\\\"}]\"}",
        "[{\"content\":\"s\",\"role\":\"system\"},{\"content\":\"q\",\"role\":\"user\"},{\"role\":"
        "\"assistant\","
        "\"tool_calls\":[{\"function\":{\"arguments\":{\"x\":1},\"name\":\"f\"},\"type\":"
        "\"function\"}]},"
        "{\"content\":\"r\",\"role\":\"tool\"},{\"content\":\"a\",\"role\":\"assistant\"}]",
        "[{\"function\":{\"name\":\"f\"},\"type\":\"function\"}]");
}

/* D12 */
static void test_tool_arguments_as_string_or_object(void **state) {
    (void)state;
    static const char expected[] = "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{"
                                   "\"arguments\":{\"x\":1},\"name\":\"f\"},"
                                   "\"type\":\"function\"}]}]";
    assert_messages(
        "{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"type\": "
        "\"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}}]}]}",
        expected, NULL);
    assert_messages("{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", "
                    "\"arguments\": {\"x\": 1}}]}], \"tools\": []}",
                    expected, NULL);
    assert_messages(
        "{\"messages\": [{\"role\": \"assistant\", \"function_call\": {\"name\": \"f\", "
        "\"arguments\": \"{\\\"x\\\": 1}\"}}], \"tools\": null}",
        expected, NULL);
    assert_bad("{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"arguments\": {}}]}]}",
               "a tool call without a name");
    assert_bad("{\"conversations\": [{\"from\": \"function_call\", \"value\": \"f(1)\"}]}",
               "must be {\"name\", \"arguments\"} as JSON");
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": 5}",
               "tools is");
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": \"[\"}",
               "tools must be");
}

static void test_tool_calls_as_text(void **state) {
    (void)state;
    data_row row;
    assert_ok(read_row(
        &row, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"I call.\", \"tool_calls\": "
              "[{\"name\": \"f\", \"arguments\": {\"x\": \"\\u00e9\"}}]}, {\"role\": "
              "\"assistant\", \"tool_calls\": [{\"name\": \"g\"}, {\"name\": \"h\", "
              "\"arguments\": \"raw\"}]}]}"));
    assert_true(row.conversation.has_tool_calls);
    assert_ok(conversation_flatten_tool_calls(&row.conversation, &test_error));
    const json_t *a = json_array_get(row.conversation.messages, 0);
    const json_t *b = json_array_get(row.conversation.messages, 1);
    assert_string_equal(json_string_value(json_object_get(a, "content")),
                        "I call.\n{\"name\": \"f\", \"arguments\": {\"x\": \"\u00e9\"}}");
    assert_string_equal(
        json_string_value(json_object_get(b, "content")),
        "[{\"name\": \"g\", \"arguments\": {}}, {\"name\": \"h\", \"arguments\": \"raw\"}]");
    assert_null(json_object_get(a, "tool_calls"));
    data_row_free(&row);
}

/* D7 */
static void test_bad_messages(void **state) {
    (void)state;
    assert_bad("{\"messages\": null}", "messages is null");
    assert_bad("{\"messages\": \"hi\"}", "messages is a string");
    assert_bad("{\"messages\": []}", "messages is empty");
    assert_bad("{\"messages\": [\"hi\"]}", "messages[0] is no object");
    assert_bad("{\"messages\": [{\"content\": \"a\"}]}", "messages[0] has no \"role\"");
    assert_bad("{\"messages\": [{\"role\": 3, \"content\": \"a\"}]}",
               "messages[0].role is no string");
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"bot\", "
               "\"content\": \"a\"}]}",
               "messages[1].role is \"bot\"; expected system, developer, user");
    assert_bad("{\"conversations\": [{\"from\": \"narrator\", \"value\": \"a\"}]}",
               "conversations[0].from is \"narrator\"; expected human, gpt");
    assert_bad("{\"messages\": [{\"role\": \"user\"}]}", "messages[0] has no \"content\"");
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": null}]}",
               "messages[0].content is null");
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": 5}]}",
               "messages[0].content is neither");
    assert_bad("{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": []}]}",
               "messages[0].content is null");
}

static void test_prompt_and_completion(void **state) {
    (void)state;
    assert_plain("{\"prompt\": \"p\", \"completion\": \"c\"}", "p", "c", true);
    assert_plain("{\"question\": \"p\", \"answer\": \"c\"}", "p", "c", true);
    assert_messages(
        "{\"prompt\": \"p\", \"completion\": \"c\"}",
        "[{\"content\":\"p\",\"role\":\"user\"},{\"content\":\"c\",\"role\":\"assistant\"}]", NULL);
    data_row row;
    assert_ok(read_row(&row,
                       "{\"prompt\": [{\"role\": \"user\", \"content\": \"p\"}], \"completion\": "
                       "[{\"role\": \"assistant\", \"content\": \"c\"}]}"));
    assert_int_equal(row.completion_first, 1);
    assert_int_equal(json_array_size(row.conversation.messages), 2);
    data_row_free(&row);
    assert_bad(
        "{\"prompt\": \"p\", \"completion\": [{\"role\": \"assistant\", \"content\": \"c\"}]}",
        "expected two strings or two lists");
    assert_bad("{\"prompt\": \"p\", \"completion\": null}", "completion is null");
}

static void test_alpaca(void **state) {
    (void)state;
    assert_plain("{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\"}",
                 "### Instruction:\ni\n\n### Response:\n", "o", true);
    assert_plain("{\"instruction\": \"i\", \"input\": \"x\", \"output\": \"o\"}",
                 "### Instruction:\ni\nx\n\n### Response:\n", "o", true);
    assert_messages("{\"instruction\": \"i\", \"input\": \"x\", \"output\": \"o\", \"system\": "
                    "\"s\", \"history\": "
                    "[[\"a\", \"b\"]]}",
                    "[{\"content\":\"s\",\"role\":\"system\"},{\"content\":\"a\",\"role\":\"user\"}"
                    ",{\"content\":"
                    "\"b\",\"role\":\"assistant\"},{\"content\":\"i\\nx\",\"role\":\"user\"},{"
                    "\"content\":\"o\","
                    "\"role\":\"assistant\"}]",
                    NULL);
    data_row row;
    graft_status status = read_as(
        &row, "{\"instruction\": \"i\", \"output\": \"o\", \"history\": [[\"a\", \"b\"]]}", false);
    assert_refused(status, GRAFT_E_INPUT, "history can only be shown by a chat template");
    data_row_free(&row);
    assert_bad("{\"instruction\": \"i\", \"output\": \"o\", \"history\": [[\"a\"]]}",
               "history[0] is not a pair");
    assert_bad("{\"instruction\": 1, \"output\": \"o\"}", "instruction is");
    assert_bad("{\"instruction\": \"i\", \"output\": null}", "output is null");
}

static void test_tokens(void **state) {
    (void)state;
    data_row row;
    assert_ok(read_row(
        &row,
        "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 9, 7], \"attention_mask\": [1, 1, 1]}"));
    const int32_t ids[] = {5, 6, 7}, labels[] = {-100, 9, 7};
    assert_int_equal(row.n_ids, 3);
    assert_memory_equal(row.ids, ids, sizeof ids);
    assert_memory_equal(row.labels, labels, sizeof labels);
    data_row_free(&row);
    assert_ok(read_row(&row, "{\"input_ids\": [5, 6]}"));
    assert_memory_equal(row.labels, row.ids, 2 * sizeof *row.ids);
    data_row_free(&row);
    assert_bad("{\"input_ids\": [5, 6], \"labels\": [5]}", "2 input_ids but 1 labels");
    assert_bad("{\"input_ids\": [5, -1]}", "input_ids[1] is out of range");
    assert_bad("{\"input_ids\": [5, 3000000000]}", "input_ids[1] is out of range");
    assert_bad("{\"input_ids\": [5, \"6\"]}", "input_ids[1] is a string");
    assert_bad("{\"input_ids\": [5], \"labels\": [-1]}", "labels[0] is out of range");
    assert_bad("{\"input_ids\": \"5\"}", "input_ids is a string");
}

static void test_unknown_rows(void **state) {
    (void)state;
    assert_bad("{\"foo\": 1, \"bar\": 2}", "the row's keys (foo, bar) fit no kind of row");
    assert_bad("{}", "the row's keys (none)");
    assert_bad("{\"text\": 5}", "text is");
}

/* ---- Preference rows --------------------------------------------------------------------------
 */

/* One answer of a pair: as messages (JSON) where the first `prompts` are the prompt. */
static void assert_answer(const char *text, answer_kind answer, const char *messages,
                          size_t prompts) {
    json_t *json = NULL;
    data_row row = {0};
    strbuf out = {0};
    assert_ok(json_parse(&json, text, strlen(text), "t", &test_error));
    assert_ok(data_row_read(&row, json, answer, true, "d.jsonl:7", &test_error));
    json_write(&out, row.conversation.messages, JSON_TIGHT, true);
    assert_string_equal(strbuf_text(&out), messages);
    assert_int_equal(row.completion_first, prompts);
    assert_int_equal(row.answer, answer);
    strbuf_free(&out);
    data_row_free(&row);
    json_decref(json);
}

static const char chosen_a[] = "[{\"content\":\"p\",\"role\":\"user\"},"
                               "{\"content\":\"a\",\"role\":\"assistant\"}]";
static const char rejected_b[] = "[{\"content\":\"p\",\"role\":\"user\"},"
                                 "{\"content\":\"b\",\"role\":\"assistant\"}]";

static void test_pairs(void **state) {
    (void)state;
    static const char *const rows[] = {
        "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}",
        "{\"question\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}",
        "{\"instruction\": \"p\", \"input\": \"\", \"chosen\": \"a\", \"rejected\": \"b\"}",
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"p\"}], \"chosen\": [{\"role\": "
        "\"assistant\", \"content\": \"a\"}], \"rejected\": [{\"role\": \"assistant\", "
        "\"content\": \"b\"}]}",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"p\"}], \"chosen\": {\"from\": "
        "\"gpt\", \"value\": \"a\"}, \"rejected\": {\"from\": \"gpt\", \"value\": \"b\"}}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"p\"}], \"chosen\": \"a\", "
        "\"rejected\": \"b\"}",
        /* The prompt in the answers' beginnings, and beside it as a text. */
        "{\"prompt\": \"p\", \"chosen\": [{\"role\": \"user\", \"content\": \"p\"}, {\"role\": "
        "\"assistant\", \"content\": \"a\"}], \"rejected\": [{\"role\": \"user\", \"content\": "
        "\"p\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_answer(rows[i], ANSWER_CHOSEN, chosen_a, 1);
        assert_answer(rows[i], ANSWER_REJECTED, rejected_b, 1);
    }
}

/* As TRL's extract_prompt: a space before the difference is the answers'. */
static void test_pairs_of_texts_that_begin_alike(void **state) {
    (void)state;
    assert_plain("{\"chosen\": \"Q: 1? A: yes\", \"rejected\": \"Q: 1? A: no\"}",
                 "Q: 1? A:", " yes", true);
    assert_plain("{\"chosen\": \"\u00e9\u00e8\", \"rejected\": \"\u00e9\u00e9\"}", "\u00e9",
                 "\u00e8", true);
    assert_plain("{\"chosen\": \"x\", \"rejected\": \"y\"}", "", "x", true);
}

static void test_bad_pairs(void **state) {
    (void)state;
    assert_bad("{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}",
               "chosen and rejected are equal");
    assert_bad("{\"prompt\": \"p\", \"chosen\": 5, \"rejected\": \"a\"}", "chosen is");
    assert_bad("{\"chosen\": \"p\", \"rejected\": []}", "a pair without a prompt");
    assert_bad("{\"chosen\": [{\"role\": \"user\", \"content\": \"p\"}], \"rejected\": [{\"role\": "
               "\"user\", \"content\": \"p\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}",
               "the same up to the end of one");
    assert_bad("{\"prompt\": \"p\", \"chosen\": {\"content\": \"a\"}, \"rejected\": \"b\"}",
               "chosen[0] has no \"role\"");
}

static void test_judged(void **state) {
    (void)state;
    assert_answer("{\"prompt\": \"p\", \"completion\": \"a\", \"label\": true}", ANSWER_CHOSEN,
                  chosen_a, 1);
    assert_answer("{\"messages\": [{\"role\": \"user\", \"content\": \"p\"}, {\"role\": "
                  "\"assistant\", \"content\": \"b\"}], \"label\": false}",
                  ANSWER_REJECTED, rejected_b, 1);
    assert_bad("{\"messages\": [{\"role\": \"user\", \"content\": \"p\"}], \"label\": false}",
               "a judged conversation ends with role \"user\"");
    data_row row; /* a class is no judgement */
    assert_ok(read_row(&row, "{\"prompt\": \"p\", \"completion\": \"a\", \"label\": 1}"));
    assert_int_equal(row.kind, ROW_PROMPT);
    data_row_free(&row);
    assert_ok(read_row(&row, "{\"text\": \"p\", \"label\": true}"));
    assert_int_equal(row.kind, ROW_TEXT);
    data_row_free(&row);
}

static void test_row_weight(void **state) {
    (void)state;
    data_row row;
    assert_ok(read_row(&row, "{\"text\": \"p\", \"weight\": 0.5}"));
    assert_true(row.weight == 0.5);
    data_row_free(&row);
    assert_ok(read_row(&row, "{\"text\": \"p\", \"weight\": null}"));
    assert_true(row.weight == 1);
    data_row_free(&row);
    assert_bad("{\"text\": \"p\", \"weight\": -1}", "weight is out of range");
    assert_bad("{\"text\": \"p\", \"weight\": \"1\"}", "weight is a string");
}

static void test_row_task(void **state) {
    (void)state;
    data_row row;
    assert_ok(read_row(&row, "{\"text\": \"p\", \"task_id\": 7}"));
    assert_int_equal(row.task, 7);
    data_row_free(&row);
    assert_ok(read_row(&row, "{\"text\": \"p\"}"));
    assert_int_equal(row.task, 0);
    data_row_free(&row);
    assert_bad("{\"text\": \"p\", \"task_id\": -1}", "task_id is out of range");
    assert_bad("{\"text\": \"p\", \"task_id\": 65536}", "task_id is out of range");
    assert_bad("{\"text\": \"p\", \"task_id\": 1.5}", "task_id is a");
}

static void test_extra_columns(void **state) {
    (void)state;
    json_t *json = NULL;
    static const char text[] =
        "{\"id\": 1, \"instruction\": \"i\", \"output\": \"o\", \"text\": \"t\"}";
    assert_ok(json_parse(&json, text, strlen(text), "t", &test_error));
    assert_string_equal(data_row_extra_column(json, 0), "id");
    assert_string_equal(data_row_extra_column(json, 1), "text");
    assert_null(data_row_extra_column(json, 2));
    json_decref(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_text_parts_are_joined),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_sharegpt_is_messages),
        cmocka_unit_test(test_tool_arguments_as_string_or_object),
        cmocka_unit_test(test_tool_calls_as_text),
        cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_prompt_and_completion),
        cmocka_unit_test(test_alpaca),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_unknown_rows),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_pairs_of_texts_that_begin_alike),
        cmocka_unit_test(test_bad_pairs),
        cmocka_unit_test(test_judged),
        cmocka_unit_test(test_row_weight),
        cmocka_unit_test(test_row_task),
        cmocka_unit_test(test_extra_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
