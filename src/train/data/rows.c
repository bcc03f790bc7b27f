#include "train/data/rows.h"

#include "train/data/rows_parts.h"

#include <stdlib.h>
#include <string.h>

/* ---- Kinds ------------------------------------------------------------------------------------
 */

enum { KEYS_MAX = 11 };

typedef struct kind_keys {
    row_kind kind;
    const char *needed[3]; /* all must be there; those after the first may be NULL */
    bool is_judged;        /* and label must be true or false */
    const char *used[KEYS_MAX];
    graft_status (*read)(data_row *, const row_input *, graft_error *);
} kind_keys;

/* In the order in which a row is tried: the most specific first. Every kind has "weight" and
 * "task_id" too. */
static const kind_keys kinds[] = {
    {ROW_TOKENS, {"input_ids"}, false, {"input_ids", "labels", "attention_mask"}, row_read_tokens},
    {ROW_PAIR,
     {"chosen", "rejected"},
     false,
     {"prompt", "chosen", "rejected", "conversations", "messages", "question", "instruction",
      "input", "system", "history", "tools"},
     row_read_pair},
    {ROW_JUDGED, {"messages"}, true, {"messages", "tools", "label"}, row_read_judged},
    {ROW_JUDGED,
     {"conversations"},
     true,
     {"conversations", "system", "tools", "label"},
     row_read_judged},
    {ROW_JUDGED,
     {"prompt", "completion"},
     true,
     {"prompt", "completion", "tools", "label"},
     row_read_judged},
    {ROW_JUDGED,
     {"instruction", "output"},
     true,
     {"instruction", "input", "output", "system", "history", "label"},
     row_read_judged},
    {ROW_MESSAGES, {"messages"}, false, {"messages", "tools"}, row_read_messages},
    {ROW_MESSAGES,
     {"conversations"},
     false,
     {"conversations", "system", "tools"},
     row_read_messages},
    {ROW_PROMPT,
     {"prompt", "completion"},
     false,
     {"prompt", "completion", "tools"},
     row_read_prompt},
    {ROW_PROMPT, {"question", "answer"}, false, {"question", "answer"}, row_read_prompt},
    {ROW_INSTRUCTION,
     {"instruction", "output"},
     false,
     {"instruction", "input", "output", "system", "history"},
     row_read_instruction},
    {ROW_TEXT, {"text"}, false, {"text"}, row_read_text},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

const char *row_kind_name(row_kind kind) {
    static const char *const names[] = {
        [ROW_TOKENS] = "input_ids",
        [ROW_PAIR] = "chosen + rejected",
        [ROW_JUDGED] = "a label of true or false",
        [ROW_MESSAGES] = "messages",
        [ROW_PROMPT] = "prompt + completion",
        [ROW_INSTRUCTION] = "instruction + output",
        [ROW_TEXT] = "text",
    };
    return names[kind];
}

bool row_kind_is_preference(row_kind kind) {
    return kind == ROW_PAIR || kind == ROW_JUDGED;
}

static bool fits_kind(const kind_keys *keys, json_t *row) {
    for (size_t i = 0; i < sizeof keys->needed / sizeof *keys->needed && keys->needed[i]; i++)
        if (!json_object_get(row, keys->needed[i]))
            return false;
    return !keys->is_judged || json_is_boolean(json_object_get(row, "label"));
}

static const kind_keys *find_kind(json_t *row) {
    for (size_t i = 0; i < N_KINDS; i++)
        if (fits_kind(&kinds[i], row))
            return &kinds[i];
    return NULL;
}

static bool uses_key(const kind_keys *keys, const char *name) {
    for (size_t i = 0; i < KEYS_MAX && keys->used[i]; i++)
        if (!strcmp(keys->used[i], name))
            return true;
    return !strcmp(name, "weight") || !strcmp(name, "task_id");
}

const char *data_row_extra_column(json_t *row, size_t i) {
    const kind_keys *keys = find_kind(row);
    const char *name;
    json_t *value;
    json_object_foreach(row, name, value) {
        if (!uses_key(keys, name) && i-- == 0)
            return name;
    }
    return NULL;
}

bool data_row_key_is_known(const char *key) {
    for (size_t i = 0; i < N_KINDS; i++)
        if (uses_key(&kinds[i], key))
            return true;
    return false;
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
        "completion, instruction and output, text, chosen and rejected, or input_ids "
        "(docs/data.md): "
        "rename them, or give --columns prompt=NAME,completion=NAME",
        origin, keys.length ? strbuf_text(&keys) : "none");
    strbuf_free(&keys);
    return status;
}

/* ---- A row ------------------------------------------------------------------------------------
 */

static graft_status read_weight(data_row *out, const row_input *in, graft_error *err) {
    const json_t *weight = json_object_get(in->row, "weight");
    out->weight = 1;
    if (!weight || json_is_null(weight))
        return GRAFT_OK;
    double value = json_is_number(weight) ? json_number_value(weight) : -1;
    if (!(value >= 0 && value <= ROW_WEIGHT_MAX))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: weight is %s; expected a number from 0 (not trained) to %g, 1 being "
                         "what a row has anyway",
                         in->origin,
                         json_is_number(weight) ? "out of range" : json_type_name(weight),
                         ROW_WEIGHT_MAX);
    out->weight = value;
    return GRAFT_OK;
}

static graft_status read_task(data_row *out, const row_input *in, graft_error *err) {
    const json_t *task = json_object_get(in->row, "task_id");
    out->task = 0;
    if (!task || json_is_null(task))
        return GRAFT_OK;
    json_int_t value = json_is_integer(task) ? json_integer_value(task) : -1;
    if (value < 0 || value > ROW_TASK_MAX)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: task_id is %s; expected a whole number from 0 to %d", in->origin,
                         json_is_integer(task) ? "out of range" : json_type_name(task),
                         ROW_TASK_MAX);
    out->task = (int32_t)value;
    return GRAFT_OK;
}

graft_status data_row_read(data_row *out, json_t *row, answer_kind answer, bool has_template,
                           const char *origin, graft_error *err) {
    const row_input in = {row, has_template, origin};
    conversation_free(&out->conversation);
    strbuf_clear(&out->prompt);
    strbuf_clear(&out->completion);
    out->n_ids = out->completion_first = 0;
    out->ends_in_eos = out->is_user_text = out->has_empty_answer = false;
    const kind_keys *keys = find_kind(row);
    if (!keys)
        return refuse_unknown(row, origin, err);
    out->kind = keys->kind;
    out->answer = keys->kind == ROW_PAIR ? answer : ANSWER_PLAIN;
    graft_status status = read_weight(out, &in, err);
    if (status == GRAFT_OK)
        status = read_task(out, &in, err);
    if (status == GRAFT_OK)
        status = keys->read(out, &in, err);
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
