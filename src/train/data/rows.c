#include "train/data/rows.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- Kinds ------------------------------------------------------------------------------------
 */

enum { KEYS_MAX = 6 };

typedef struct kind_keys {
    row_kind kind;
    const char *needed[2]; /* both must be there; the second may be NULL */
    const char *used[KEYS_MAX];
} kind_keys;

/* In the order in which a row is tried: the most specific first. */
static const kind_keys kinds[] = {
    {ROW_TOKENS, {"input_ids", NULL}, {"input_ids", "labels", "attention_mask"}},
    {ROW_MESSAGES, {"messages", NULL}, {"messages", "tools"}},
    {ROW_MESSAGES, {"conversations", NULL}, {"conversations", "system", "tools"}},
    {ROW_PROMPT, {"prompt", "completion"}, {"prompt", "completion", "tools"}},
    {ROW_PROMPT, {"question", "answer"}, {"question", "answer"}},
    {ROW_INSTRUCTION,
     {"instruction", "output"},
     {"instruction", "input", "output", "system", "history"}},
    {ROW_TEXT, {"text", NULL}, {"text"}},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

const char *row_kind_name(row_kind kind) {
    static const char *const names[] = {
        [ROW_TOKENS] = "input_ids",
        [ROW_MESSAGES] = "messages",
        [ROW_PROMPT] = "prompt + completion",
        [ROW_INSTRUCTION] = "instruction + output",
        [ROW_TEXT] = "text",
    };
    return names[kind];
}

static const kind_keys *find_kind(json_t *row) {
    for (size_t i = 0; i < N_KINDS; i++)
        if (json_object_get(row, kinds[i].needed[0]) &&
            (!kinds[i].needed[1] || json_object_get(row, kinds[i].needed[1])))
            return &kinds[i];
    return NULL;
}

const char *data_row_extra_column(json_t *row, size_t i) {
    const kind_keys *keys = find_kind(row);
    const char *name;
    json_t *value;
    json_object_foreach(row, name, value) {
        bool used = false;
        for (size_t k = 0; k < KEYS_MAX && keys->used[k]; k++)
            used = used || !strcmp(keys->used[k], name);
        if (!used && i-- == 0)
            return name;
    }
    return NULL;
}

static graft_status refuse_unknown(json_t *row, const char *origin, graft_error *err) {
    strbuf keys = {0};
    const char *name;
    json_t *value;
    json_object_foreach(row, name, value) {
        if (keys.length > 200) {
            strbuf_add_text(&keys, ", ...");
            break;
        }
        strbuf_printf(&keys, "%s%.60s", keys.length ? ", " : "", name);
    }
    graft_status status = error_set(
        err, GRAFT_E_INPUT,
        "%s: the row's keys (%s) fit no kind of row; expected messages, conversations, prompt and "
        "completion, instruction and output, text, or input_ids (docs/data.md): rename them",
        origin, keys.length ? strbuf_text(&keys) : "none");
    strbuf_free(&keys);
    return status;
}

/* Preference pairs would train as something else than they are. */
static graft_status check_preference(json_t *row, const char *origin, graft_error *err) {
    bool is_pair = json_object_get(row, "chosen") && json_object_get(row, "rejected");
    bool is_judged = json_is_boolean(json_object_get(row, "label"));
    if (!is_pair && !is_judged)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: a preference row (%s): preference training is not supported; for plain "
                     "fine-tuning keep the good answers as messages or prompt and completion",
                     origin, is_pair ? "chosen and rejected" : "label true or false");
}

/* ---- Members ----------------------------------------------------------------------------------
 */

/* The text under key; *out is NULL when it is missing or null and may be. */
static graft_status get_text(json_t **out, json_t *row, const char *key, bool is_needed,
                             const char *origin, graft_error *err) {
    json_t *value = json_object_get(row, key);
    *out = json_is_string(value) ? value : NULL;
    if (*out || (!is_needed && (!value || json_is_null(value))))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT, "%s: %s is %s; expected a string", origin, key,
                     value ? json_type_name(value) : "missing");
}

static void add_string(strbuf *out, json_t *text) {
    if (text)
        strbuf_add(out, json_string_value(text), json_string_length(text));
}

static graft_status add_message(data_row *out, const char *role, const strbuf *text,
                                graft_error *err) {
    if (text->failed)
        return error_memory(err, text->length, "a row");
    return conversation_add(&out->conversation, role, strbuf_text(text), text->length, err);
}

/* ---- The kinds, one by one --------------------------------------------------------------------
 */

static graft_status read_messages(data_row *out, json_t *row, const char *origin,
                                  graft_error *err) {
    bool is_sharegpt = !json_object_get(row, "messages");
    const char *key = is_sharegpt ? "conversations" : "messages";
    json_t *system = NULL;
    graft_status status = GRAFT_OK;
    if (is_sharegpt)
        status = get_text(&system, row, "system", false, origin, err);
    if (status == GRAFT_OK && system && json_string_length(system))
        status = conversation_add(&out->conversation, "system", json_string_value(system),
                                  json_string_length(system), err);
    if (status == GRAFT_OK)
        status =
            conversation_append(&out->conversation, json_object_get(row, key), key, origin, err);
    if (status == GRAFT_OK)
        status =
            conversation_set_tools(&out->conversation, json_object_get(row, "tools"), origin, err);
    return status;
}

/* prompt and completion as they stand in *out, as a user's and an assistant's message. */
static graft_status as_conversation(data_row *out, graft_error *err) {
    graft_status status = add_message(out, "user", &out->prompt, err);
    if (status == GRAFT_OK)
        status = add_message(out, "assistant", &out->completion, err);
    out->completion_first =
        status == GRAFT_OK ? json_array_size(out->conversation.messages) - 1 : 0;
    return status;
}

static graft_status read_prompt(data_row *out, json_t *row, bool has_template, const char *origin,
                                graft_error *err) {
    bool is_question = !(json_object_get(row, "prompt") && json_object_get(row, "completion"));
    const char *first = is_question ? "question" : "prompt";
    const char *second = is_question ? "answer" : "completion";
    json_t *prompt = json_object_get(row, first), *completion = json_object_get(row, second);
    if (json_is_array(prompt) && json_is_array(completion)) {
        graft_status status = conversation_append(&out->conversation, prompt, first, origin, err);
        if (status != GRAFT_OK)
            return status;
        out->completion_first = json_array_size(out->conversation.messages);
        status = conversation_append(&out->conversation, completion, second, origin, err);
        if (status != GRAFT_OK)
            return status;
        return conversation_set_tools(&out->conversation, json_object_get(row, "tools"), origin,
                                      err);
    }
    if (!json_is_string(prompt) || !json_is_string(completion))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s is %s and %s is %s; expected two strings or two lists of messages",
                         origin, first, json_type_name(prompt), second, json_type_name(completion));
    add_string(&out->prompt, prompt);
    add_string(&out->completion, completion);
    out->has_empty_answer = !json_string_length(completion);
    out->ends_in_eos = true;
    return has_template ? as_conversation(out, err) : GRAFT_OK;
}

/* Earlier turns of an Alpaca row: [[instruction, output], ...]. */
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

static graft_status read_instruction(data_row *out, json_t *row, bool has_template,
                                     const char *origin, graft_error *err) {
    json_t *instruction, *input, *output, *system;
    json_t *history = json_object_get(row, "history");
    graft_status status = get_text(&instruction, row, "instruction", true, origin, err);
    if (status == GRAFT_OK)
        status = get_text(&input, row, "input", false, origin, err);
    if (status == GRAFT_OK)
        status = get_text(&output, row, "output", true, origin, err);
    if (status == GRAFT_OK)
        status = get_text(&system, row, "system", false, origin, err);
    if (status != GRAFT_OK)
        return status;
    bool has_system = system && json_string_length(system);
    bool has_history =
        history && !json_is_null(history) && (!json_is_array(history) || json_array_size(history));
    if ((has_system || has_history) && !has_template)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s can only be shown by a chat template, and there is none; give "
                         "--chat-template FILE or a built-in name such as chatml",
                         origin, has_system ? "system" : "history");

    if (!has_template)
        strbuf_add_text(&out->prompt, "### Instruction:\n");
    add_string(&out->prompt, instruction);
    if (input && json_string_length(input)) {
        strbuf_add_text(&out->prompt, "\n");
        add_string(&out->prompt, input);
    }
    if (!has_template)
        strbuf_add_text(&out->prompt, "\n\n### Response:\n");
    add_string(&out->completion, output);
    out->has_empty_answer = !json_string_length(output);
    out->ends_in_eos = out->is_user_text = true;
    if (!has_template)
        return GRAFT_OK;
    if (has_system)
        status = conversation_add(&out->conversation, "system", json_string_value(system),
                                  json_string_length(system), err);
    if (status == GRAFT_OK && has_history)
        status = add_history(out, history, origin, err);
    if (status == GRAFT_OK)
        status = as_conversation(out, err);
    out->completion_first = 0; /* the history's answers are trained too, as LLaMA-Factory does */
    return status;
}

static graft_status read_text(data_row *out, json_t *row, const char *origin, graft_error *err) {
    json_t *text;
    graft_status status = get_text(&text, row, "text", true, origin, err);
    add_string(&out->completion, text);
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

static graft_status read_tokens(data_row *out, json_t *row, const char *origin, graft_error *err) {
    json_t *ids = json_object_get(row, "input_ids"), *labels = json_object_get(row, "labels");
    bool has_labels = labels && !json_is_null(labels);
    if (!json_is_array(ids) || (has_labels && !json_is_array(labels)))
        return error_set(err, GRAFT_E_INPUT, "%s: %s is %s; expected a list of token ids", origin,
                         json_is_array(ids) ? "labels" : "input_ids",
                         json_type_name(json_is_array(ids) ? labels : ids));
    size_t n = json_array_size(ids);
    if (has_labels && json_array_size(labels) != n)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: %zu input_ids but %zu labels; expected as many labels as ids, not shifted", origin,
            n, json_array_size(labels));
    if (!mem_reserve(&out->ids, &out->capacity, n, sizeof *out->ids) ||
        !mem_reserve(&out->labels, &out->labels_capacity, n, sizeof *out->labels))
        return error_memory(err, n * sizeof *out->ids, "a row's ids");
    graft_status status = GRAFT_OK;
    for (size_t i = 0; status == GRAFT_OK && i < n; i++) {
        status = read_id(&out->ids[i], json_array_get(ids, i), "input_ids", i, false, origin, err);
        out->labels[i] = out->ids[i];
        if (status == GRAFT_OK && has_labels)
            status =
                read_id(&out->labels[i], json_array_get(labels, i), "labels", i, true, origin, err);
    }
    out->n_ids = n;
    return status;
}

graft_status data_row_read(data_row *out, json_t *row, bool has_template, const char *origin,
                           graft_error *err) {
    conversation_free(&out->conversation);
    strbuf_clear(&out->prompt);
    strbuf_clear(&out->completion);
    out->n_ids = out->completion_first = 0;
    out->ends_in_eos = out->is_user_text = out->has_empty_answer = false;
    graft_status status = check_preference(row, origin, err);
    if (status != GRAFT_OK)
        return status;
    const kind_keys *keys = find_kind(row);
    if (!keys)
        return refuse_unknown(row, origin, err);
    out->kind = keys->kind;
    switch (keys->kind) {
    case ROW_TOKENS:
        status = read_tokens(out, row, origin, err);
        break;
    case ROW_MESSAGES:
        status = read_messages(out, row, origin, err);
        break;
    case ROW_PROMPT:
        status = read_prompt(out, row, has_template, origin, err);
        break;
    case ROW_INSTRUCTION:
        status = read_instruction(out, row, has_template, origin, err);
        break;
    case ROW_TEXT:
        status = read_text(out, row, origin, err);
        break;
    }
    if (status == GRAFT_OK && (out->prompt.failed || out->completion.failed))
        status = error_memory(err, out->prompt.length + out->completion.length, "a row's text");
    return status;
}

void data_row_free(data_row *row) {
    conversation_free(&row->conversation);
    strbuf_free(&row->prompt);
    strbuf_free(&row->completion);
    free(row->ids);
    free(row->labels);
    *row = (data_row){0};
}
