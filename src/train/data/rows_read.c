/* The row kinds that are trained as they are. */
#include "train/data/rows_parts.h"

#include "base/memory.h"

#include <string.h>

graft_status row_get_text(json_t **out, const row_input *in, const char *key, bool is_needed,
                          graft_error *err) {
    json_t *value = json_object_get(in->row, key);
    *out = json_is_string(value) ? value : NULL;
    if (*out || (!is_needed && (!value || json_is_null(value))))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT, "%s: %s is %s; expected a string", in->origin, key,
                     value ? json_type_name(value) : "missing");
}

void row_add_string(strbuf *out, json_t *text) {
    if (text)
        strbuf_add(out, json_string_value(text), json_string_length(text));
}

static graft_status add_message(data_row *out, const char *role, const strbuf *text,
                                graft_error *err) {
    if (text->failed)
        return error_memory(err, text->length, "a row");
    return conversation_add(&out->conversation, role, strbuf_text(text), text->length, err);
}

graft_status row_as_conversation(data_row *out, graft_error *err) {
    graft_status status = add_message(out, "user", &out->prompt, err);
    out->completion_first = json_array_size(out->conversation.messages);
    if (status == GRAFT_OK)
        status = add_message(out, "assistant", &out->completion, err);
    return status;
}

/* ---- Conversations ----------------------------------------------------------------------------
 */

/* ShareGPT and Alpaca name the system message beside the turns. */
static graft_status add_system(data_row *out, const row_input *in, graft_error *err) {
    json_t *system;
    graft_status status = row_get_text(&system, in, "system", false, err);
    if (status == GRAFT_OK && system && json_string_length(system))
        status = conversation_add(&out->conversation, "system", json_string_value(system),
                                  json_string_length(system), err);
    return status;
}

graft_status row_read_turns(data_row *out, const row_input *in, const char *key, graft_error *err) {
    graft_status status = GRAFT_OK;
    if (strcmp(key, "conversations") == 0)
        status = add_system(out, in, err);
    if (status == GRAFT_OK)
        status = conversation_append(&out->conversation, json_object_get(in->row, key), key,
                                     in->origin, err);
    if (status == GRAFT_OK)
        status = conversation_set_tools(&out->conversation, json_object_get(in->row, "tools"),
                                        in->origin, err);
    return status;
}

graft_status row_read_messages(data_row *out, const row_input *in, graft_error *err) {
    return row_read_turns(out, in,
                          json_object_get(in->row, "messages") ? "messages" : "conversations", err);
}

/* ---- Prompt and completion --------------------------------------------------------------------
 */

static graft_status read_message_lists(data_row *out, const row_input *in, const char *first,
                                       const char *second, graft_error *err) {
    graft_status status = row_read_turns(out, in, first, err);
    out->completion_first = json_array_size(out->conversation.messages);
    if (status == GRAFT_OK)
        status = conversation_append(&out->conversation, json_object_get(in->row, second), second,
                                     in->origin, err);
    return status;
}

graft_status row_read_prompt(data_row *out, const row_input *in, graft_error *err) {
    bool is_question =
        !(json_object_get(in->row, "prompt") && json_object_get(in->row, "completion"));
    const char *first = is_question ? "question" : "prompt";
    const char *second = is_question ? "answer" : "completion";
    json_t *prompt = json_object_get(in->row, first);
    json_t *completion = json_object_get(in->row, second);
    if (json_is_array(prompt) && json_is_array(completion))
        return read_message_lists(out, in, first, second, err);
    if (!json_is_string(prompt) || !json_is_string(completion))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s is %s and %s is %s; expected two strings or two lists of messages",
                         in->origin, first, json_type_name(prompt), second,
                         json_type_name(completion));
    row_add_string(&out->prompt, prompt);
    row_add_string(&out->completion, completion);
    out->has_empty_answer = !json_string_length(completion);
    out->ends_in_eos = true;
    return in->has_template ? row_as_conversation(out, err) : GRAFT_OK;
}

/* ---- Alpaca -----------------------------------------------------------------------------------
 */

/* Earlier turns: [[instruction, output], ...]. */
static graft_status add_history(data_row *out, json_t *history, const char *origin,
                                graft_error *err) {
    if (!json_is_array(history))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: history is %s; expected [[instruction, output], ...]", origin,
                         json_type_name(history));
    for (size_t i = 0; i < json_array_size(history); i++) {
        json_t *pair = json_array_get(history, i);
        json_t *question = json_array_get(pair, 0), *answer = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_string(question) || !json_is_string(answer))
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: history[%zu] is not a pair of strings; expected [instruction, output]", origin,
                i);
        graft_status status =
            conversation_add(&out->conversation, "user", json_string_value(question),
                             json_string_length(question), err);
        if (status == GRAFT_OK)
            status = conversation_add(&out->conversation, "assistant", json_string_value(answer),
                                      json_string_length(answer), err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

/* What comes before the instruction: only a template can show it. */
static graft_status add_earlier_turns(data_row *out, const row_input *in, graft_error *err) {
    json_t *system, *history = json_object_get(in->row, "history");
    graft_status status = row_get_text(&system, in, "system", false, err);
    if (status != GRAFT_OK)
        return status;
    bool has_system = system && json_string_length(system);
    bool has_history =
        history && !json_is_null(history) && (!json_is_array(history) || json_array_size(history));
    if ((has_system || has_history) && !in->has_template)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s can only be shown by a chat template, and there is none; give "
                         "--chat-template FILE or a built-in name such as chatml",
                         in->origin, has_system ? "system" : "history");
    if (has_system)
        status = add_system(out, in, err);
    if (status == GRAFT_OK && has_history)
        status = add_history(out, history, in->origin, err);
    return status;
}

graft_status row_read_question(data_row *out, const row_input *in, graft_error *err) {
    json_t *instruction, *input;
    graft_status status = row_get_text(&instruction, in, "instruction", true, err);
    if (status == GRAFT_OK)
        status = row_get_text(&input, in, "input", false, err);
    if (status == GRAFT_OK)
        status = add_earlier_turns(out, in, err);
    if (status != GRAFT_OK)
        return status;
    if (!in->has_template)
        strbuf_add_text(&out->prompt, "### Instruction:\n");
    row_add_string(&out->prompt, instruction);
    if (input && json_string_length(input)) {
        strbuf_add_text(&out->prompt, "\n");
        row_add_string(&out->prompt, input);
    }
    if (!in->has_template)
        strbuf_add_text(&out->prompt, "\n\n### Response:\n");
    out->ends_in_eos = out->is_user_text = true;
    return GRAFT_OK;
}

graft_status row_read_instruction(data_row *out, const row_input *in, graft_error *err) {
    json_t *output;
    graft_status status = row_get_text(&output, in, "output", true, err);
    if (status == GRAFT_OK)
        status = row_read_question(out, in, err);
    if (status != GRAFT_OK)
        return status;
    row_add_string(&out->completion, output);
    out->has_empty_answer = !json_string_length(output);
    if (!in->has_template)
        return GRAFT_OK;
    status = row_as_conversation(out, err);
    out->completion_first = 0; /* the history's answers are trained too, as LLaMA-Factory does */
    return status;
}

/* ---- Text and tokens --------------------------------------------------------------------------
 */

graft_status row_read_text(data_row *out, const row_input *in, graft_error *err) {
    json_t *text;
    graft_status status = row_get_text(&text, in, "text", true, err);
    row_add_string(&out->completion, text);
    return status;
}

static graft_status read_id(int32_t *out, json_t *value, const char *key, size_t i, bool is_label,
                            const char *origin, graft_error *err) {
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    bool ok = (id >= 0 && id < INT32_MAX) || (is_label && id == NOT_TRAINED);
    if (!ok)
        return error_set(err, GRAFT_E_INPUT, "%s: %s[%zu] is %s; expected a token id%s", origin,
                         key, i, json_is_integer(value) ? "out of range" : json_type_name(value),
                         is_label ? " or -100" : "");
    *out = (int32_t)id;
    return GRAFT_OK;
}

graft_status row_read_tokens(data_row *out, const row_input *in, graft_error *err) {
    json_t *ids = json_object_get(in->row, "input_ids");
    json_t *labels = json_object_get(in->row, "labels");
    bool has_labels = labels && !json_is_null(labels);
    if (!json_is_array(ids) || (has_labels && !json_is_array(labels)))
        return error_set(err, GRAFT_E_INPUT, "%s: %s is %s; expected a list of token ids",
                         in->origin, json_is_array(ids) ? "labels" : "input_ids",
                         json_type_name(json_is_array(ids) ? labels : ids));
    size_t n = json_array_size(ids);
    if (has_labels && json_array_size(labels) != n)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: %zu input_ids but %zu labels; expected as many labels as ids, not shifted",
            in->origin, n, json_array_size(labels));
    if (!mem_reserve(&out->ids, &out->capacity, n, sizeof *out->ids) ||
        !mem_reserve(&out->labels, &out->labels_capacity, n, sizeof *out->labels))
        return error_memory(err, n * sizeof *out->ids, "a row's ids");
    graft_status status = GRAFT_OK;
    for (size_t i = 0; status == GRAFT_OK && i < n; i++) {
        status =
            read_id(&out->ids[i], json_array_get(ids, i), "input_ids", i, false, in->origin, err);
        out->labels[i] = out->ids[i];
        if (status == GRAFT_OK && has_labels)
            status = read_id(&out->labels[i], json_array_get(labels, i), "labels", i, true,
                             in->origin, err);
    }
    out->n_ids = n;
    return status;
}
