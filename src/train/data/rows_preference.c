/* Rows that say which answer is better: pairs (DPO) and judged answers (KTO). */
#include "train/data/rows_parts.h"

#include <stdlib.h>
#include <string.h>

/* ---- Pairs ------------------------------------------------------------------------------------
 */

static const char *answer_key(const data_row *out) {
    return out->answer == ANSWER_REJECTED ? "rejected" : "chosen";
}

/* Messages that both lists begin with: the prompt of a pair that names none. */
static size_t common_messages(const json_t *a, const json_t *b) {
    size_t n = 0;
    while (n < json_array_size(a) && n < json_array_size(b) &&
           json_equal(json_array_get(a, n), json_array_get(b, n)))
        n++;
    return n;
}

/* Bytes that both texts begin with, cut between characters; a space before the difference belongs
 * to the answers, as tokenizers have it (and TRL's extract_prompt). */
static size_t common_text(const char *a, const char *b) {
    size_t n = 0;
    while (a[n] && a[n] == b[n])
        n++;
    while (n > 0 && ((unsigned char)a[n] & 0xC0) == 0x80)
        n--;
    return n > 0 && a[n - 1] == ' ' ? n - 1 : n;
}

static graft_status refuse_equal(const row_input *in, graft_error *err) {
    return error_set(err, GRAFT_E_INPUT,
                     "%s: chosen and rejected are equal; expected two different answers: remove "
                     "the row",
                     in->origin);
}

/* Splits lists of messages with the same beginning. *is_split: there was one. */
static graft_status read_common_messages(bool *is_split, data_row *out, const row_input *in,
                                         graft_error *err) {
    json_t *chosen = json_object_get(in->row, "chosen");
    json_t *rejected = json_object_get(in->row, "rejected");
    size_t n = common_messages(chosen, rejected);
    *is_split = n > 0;
    if (!n)
        return GRAFT_OK;
    if (n == json_array_size(chosen) || n == json_array_size(rejected))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: chosen and rejected are the same up to the end of one; expected "
                         "answers after their common messages",
                         in->origin);
    graft_status status = row_read_turns(out, in, answer_key(out), err);
    out->completion_first = n;
    return status;
}

static graft_status read_common_text(data_row *out, const row_input *in, graft_error *err) {
    json_t *answer;
    graft_status status = row_get_text(&answer, in, answer_key(out), true, err);
    if (status != GRAFT_OK)
        return status;
    const char *text = json_string_value(answer);
    const char *chosen = json_string_value(json_object_get(in->row, "chosen"));
    const char *rejected = json_string_value(json_object_get(in->row, "rejected"));
    if (!chosen || !rejected)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: a pair without a prompt; expected prompt, or chosen and rejected of "
                         "one kind that begin alike",
                         in->origin);
    size_t n = common_text(chosen, rejected);
    strbuf_add(&out->prompt, text, n);
    strbuf_add(&out->completion, text + n, json_string_length(answer) - n);
    out->ends_in_eos = true;
    return GRAFT_OK;
}

/* The answer as a text, one message, or a list of messages, after the prompt that stands in *out.
 */
static graft_status add_answer(data_row *out, const row_input *in, graft_error *err) {
    const char *key = answer_key(out);
    json_t *answer = json_object_get(in->row, key);
    conversation *c = &out->conversation;
    if (json_is_string(answer)) {
        out->has_empty_answer = !json_string_length(answer);
        out->ends_in_eos = true;
        row_add_string(&out->completion, answer);
        if (!c->messages || out->prompt.length)
            return in->has_template ? row_as_conversation(out, err) : GRAFT_OK;
        out->completion_first = json_array_size(c->messages);
        return conversation_add(c, "assistant", json_string_value(answer),
                                json_string_length(answer), err);
    }
    if (out->prompt.length) {
        graft_status status =
            conversation_add(c, "user", strbuf_text(&out->prompt), out->prompt.length, err);
        if (status != GRAFT_OK)
            return status;
    }
    json_t *list = json_is_object(answer) ? json_array() : json_incref(answer);
    if (json_is_object(answer) && (!list || json_array_append(list, answer))) {
        json_decref(list);
        return error_memory(err, 0, "a conversation");
    }
    out->completion_first = json_array_size(c->messages);
    graft_status status = conversation_append(c, list, key, in->origin, err);
    json_decref(list);
    return status;
}

/* The prompt of a pair, wherever it stands. *is_there false: only in the answers' beginnings. */
static graft_status read_pair_prompt(bool *is_there, data_row *out, const row_input *in,
                                     graft_error *err) {
    static const char *const turns[] = {"prompt", "conversations", "messages"};
    static const char *const texts[] = {"prompt", "question"};
    *is_there = true;
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++)
        if (json_is_array(json_object_get(in->row, turns[i])))
            return row_read_turns(out, in, turns[i], err);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (json_is_string(json_object_get(in->row, texts[i]))) {
            row_add_string(&out->prompt, json_object_get(in->row, texts[i]));
            return GRAFT_OK;
        }
    *is_there = json_object_get(in->row, "instruction") != NULL;
    return *is_there ? row_read_question(out, in, err) : GRAFT_OK;
}

graft_status row_read_pair(data_row *out, const row_input *in, graft_error *err) {
    json_t *chosen = json_object_get(in->row, "chosen");
    bool is_split = false, has_prompt = false;
    if (json_equal(chosen, json_object_get(in->row, "rejected")))
        return refuse_equal(in, err);
    /* Lists that begin alike hold the prompt, whatever stands beside them (a prompt's text, the
     * whole chosen conversation); an explicit list is the prompt otherwise. */
    if (!json_is_array(json_object_get(in->row, "prompt"))) {
        graft_status status = read_common_messages(&is_split, out, in, err);
        if (status != GRAFT_OK || is_split)
            return status;
    }
    graft_status status = read_pair_prompt(&has_prompt, out, in, err);
    if (status != GRAFT_OK)
        return status;
    return has_prompt ? add_answer(out, in, err) : read_common_text(out, in, err);
}

/* ---- Judged -----------------------------------------------------------------------------------
 */

graft_status row_read_judged(data_row *out, const row_input *in, graft_error *err) {
    bool is_good = json_is_true(json_object_get(in->row, "label"));
    bool has_turns =
        json_object_get(in->row, "messages") || json_object_get(in->row, "conversations");
    out->answer = is_good ? ANSWER_CHOSEN : ANSWER_REJECTED;
    if (!has_turns)
        return json_object_get(in->row, "instruction") ? row_read_instruction(out, in, err)
                                                       : row_read_prompt(out, in, err);
    graft_status status = row_read_messages(out, in, err);
    if (status != GRAFT_OK)
        return status;
    size_t n = json_array_size(out->conversation.messages);
    const json_t *last = json_array_get(out->conversation.messages, n - 1);
    if (strcmp(json_string_value(json_object_get(last, "role")), "assistant"))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: a judged conversation ends with role \"%s\"; expected the "
                         "assistant's answer that label judges",
                         in->origin, json_string_value(json_object_get(last, "role")));
    out->completion_first = n - 1;
    return GRAFT_OK;
}
