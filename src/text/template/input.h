/* What Transformers puts around a template: messages made ready, variables, the mark of
 * continue_final_message. */
#ifndef GRAFT_TEXT_TEMPLATE_INPUT_H
#define GRAFT_TEXT_TEMPLATE_INPUT_H

#include "text/template/evaluator.h"
#include "text/template/parser.h"
#include "text/template/template.h"

/* The conversation as the template sees it. Borrows the strings of the JSON. NULL when it failed.
 */
list *input_messages(vm *, const json_t *messages);
/* A conversation of one short user message. */
list *input_probe(vm *);
/* A JSON value that belongs to no message. */
value input_value(vm *, const json_t *);
/* The outermost scope: those of the template's variables that have a value. */
scope *input_scope(vm *, const syntax_tree *, const template_input *, list *messages, value tools,
                   value documents);

/* Marks the end of the last message's content, so that the text can be cut there. */
bool input_mark_final(vm *, list *messages, const char *source, const text **final_content);
/* The text up to the mark; without white space before it where the template dropped the mark's own.
 */
const text *input_cut_at_mark(vm *, const text *rendered, const text *final_content);

#endif
