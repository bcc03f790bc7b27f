/* The readers of single row kinds: rows.c finds the kind and calls them. */
#ifndef GRAFT_TRAIN_DATA_ROWS_PARTS_H
#define GRAFT_TRAIN_DATA_ROWS_PARTS_H

#include "train/data/rows.h"

/* What every reader needs. */
typedef struct row_input {
    json_t *row;
    bool has_template;
    const char *origin;
} row_input;

graft_status row_read_messages(data_row *, const row_input *, graft_error *);
graft_status row_read_prompt(data_row *, const row_input *, graft_error *);
graft_status row_read_instruction(data_row *, const row_input *, graft_error *);
graft_status row_read_tokens(data_row *, const row_input *, graft_error *);
graft_status row_read_text(data_row *, const row_input *, graft_error *);
/* rows_preference.c: the chosen or the rejected answer (out->answer says which); and a row that is
 * judged as a whole. */
graft_status row_read_pair(data_row *, const row_input *, graft_error *);
graft_status row_read_judged(data_row *, const row_input *, graft_error *);

/* The question of an Alpaca row: everything before its output, as a conversation or as plain text
 * in out->prompt. */
graft_status row_read_question(data_row *, const row_input *, graft_error *);

/* The text under key; *out is NULL when it is missing or null and may be. */
graft_status row_get_text(json_t **out, const row_input *, const char *key, bool is_needed,
                          graft_error *);
void row_add_string(strbuf *, json_t *text); /* NULL: nothing */
/* prompt and completion as they stand in *out, as a user's and an assistant's message. */
graft_status row_as_conversation(data_row *, graft_error *);
/* The conversation under `key` of the row, with its system and tools. */
graft_status row_read_turns(data_row *, const row_input *, const char *key, graft_error *);

#endif
