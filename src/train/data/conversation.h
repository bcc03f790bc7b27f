/* Conversations, brought to the one form that chat templates expect: messages with a role and a
 * content that is text. */
#ifndef GRAFT_TRAIN_DATA_CONVERSATION_H
#define GRAFT_TRAIN_DATA_CONVERSATION_H

#include "formats/json.h"

typedef struct conversation {
    json_t *messages;   /* array of objects; NULL: no conversation */
    json_t *tools;      /* array of {"type": "function", "function": {...}}, or NULL */
    uint8_t *untrained; /* [messages] 1: the message's own weight is 0 */
    size_t untrained_capacity;
    bool has_tool_calls;
} conversation;

void conversation_free(conversation *);

/* Appends one message of plain text. */
graft_status conversation_add(conversation *, const char *role, const char *text, size_t n,
                              graft_error *);
/* Appends turns, an array under `key` of the row: messages (role, content) or ShareGPT turns (from,
 * value). Content given as text parts is joined; tool calls' arguments given as a string become
 * objects. Refuses, naming origin and place: an unknown role, missing content, parts that are no
 * text, weights other than 0 and 1. */
graft_status conversation_append(conversation *, json_t *turns, const char *key, const char *origin,
                                 graft_error *);
/* Tools as a list or as JSON text; bare {"name", ...} entries are wrapped as functions. NULL, null,
 * empty: none. */
graft_status conversation_set_tools(conversation *, json_t *tools, const char *origin,
                                    graft_error *);

/* For templates that know no tool calls: each call becomes text of its message, as JSON. */
graft_status conversation_flatten_tool_calls(conversation *, graft_error *);

#endif
