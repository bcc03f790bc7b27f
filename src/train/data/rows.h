/* One JSON row of a data file, told by its keys and brought to one of three forms: a conversation,
 * a plain text with a prompt before it, or token ids. */
#ifndef GRAFT_TRAIN_DATA_ROWS_H
#define GRAFT_TRAIN_DATA_ROWS_H

#include "train/data/conversation.h"

typedef enum row_kind {
    ROW_TOKENS,      /* input_ids, labels */
    ROW_PAIR,        /* chosen, rejected; their prompt before them or as their common beginning */
    ROW_JUDGED,      /* a conversation or a completion, and label: true or false */
    ROW_MESSAGES,    /* messages, tools; or ShareGPT's conversations, system, tools: the same once
                        normalised */
    ROW_PROMPT,      /* prompt, completion (texts or messages); question, answer */
    ROW_INSTRUCTION, /* instruction, input, output, system, history (Alpaca) */
    ROW_TEXT         /* text */
} row_kind;

/* What a preference row says of an answer. */
typedef enum answer_kind {
    ANSWER_PLAIN, /* no preference row */
    ANSWER_CHOSEN,
    ANSWER_REJECTED
} answer_kind;

typedef struct data_row {
    row_kind kind;
    answer_kind answer;
    double weight; /* of the row's loss: its "weight", else 1 */
    int32_t task;  /* its "task_id", else 0 */
    /* A conversation: messages before completion_first are a prompt. */
    conversation conversation;
    size_t completion_first;
    /* Or plain text. */
    strbuf prompt, completion;
    bool ends_in_eos;  /* the completion does */
    bool is_user_text; /* the text of control tokens in it is text, not control tokens */
    /* Or ids. labels[t] belongs to ids[t]; NOT_TRAINED where it is none. */
    int32_t *ids, *labels;
    size_t n_ids, capacity, labels_capacity;

    bool has_empty_answer;
} data_row;

enum { NOT_TRAINED = -100 };
#define ROW_WEIGHT_MAX 1e6
#define ROW_TASK_MAX   65535

const char *row_kind_name(row_kind); /* "messages", "prompt + completion", ... */
bool row_kind_is_preference(row_kind);

/* Reuses *out's memory. has_template: Alpaca and prompt/completion rows become conversations.
 * `answer` says which of a pair's two is read (other kinds do not use it). `origin` names the row
 * ("data.jsonl:17"). */
graft_status data_row_read(data_row *out, json_t *row, answer_kind answer, bool has_template,
                           const char *origin, graft_error *);
void data_row_free(data_row *);

/* The i-th key of the row that its kind does not use; NULL past the end. */
const char *data_row_extra_column(json_t *row, size_t i);
/* Does any kind use this key? */
bool data_row_key_is_known(const char *key);

#endif
