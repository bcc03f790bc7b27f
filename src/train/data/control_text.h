/* Text that looks like a control token ("<|im_end|>" typed by a user) stays text: only what the
 * chat template itself prints becomes a control token.
 *
 * A template gives back one string, in which the two cannot be told apart. So such text is hidden
 * before rendering: each occurrence in a message becomes one private-use character, which templates
 * pass on as they pass on any letter. After rendering, the control tokens that are found are the
 * template's own; between two of them, a stretch that holds a stand-in gets its text back and is
 * encoded with control tokens switched off. */
#ifndef GRAFT_TRAIN_DATA_CONTROL_TEXT_H
#define GRAFT_TRAIN_DATA_CONTROL_TEXT_H

#include "formats/json.h"
#include "text/template/template.h"
#include "train/data/encoded_row.h"

typedef struct control_text control_text;

/* Collects the tokenizer's special tokens. Borrows it. */
graft_status control_text_create(control_text **, const tokenizer *, graft_error *);
void control_text_destroy(control_text **);

/* Forgets what was hidden before, then hides in every string inside `messages` and `tools` (may be
 * NULL), in place. *found says whether there was any. */
graft_status control_text_hide(control_text *, bool *found, json_t *messages, json_t *tools,
                               const char *origin, graft_error *);

/* Encodes rendered text in which something was hidden: appends to out->text and out->tokens, and
 * moves the spans to where they are in out->text. `scratch` is overwritten. */
graft_status control_text_encode(const control_text *, encoded_row *out, template_result *rendered,
                                 encoding *scratch, graft_error *);

#endif
