/* Which bytes of a rendered conversation are assistant turns: see docs/templates.md. */
#ifndef GRAFT_TEXT_TEMPLATE_SPANS_H
#define GRAFT_TEXT_TEMPLATE_SPANS_H

#include "text/template/template.h"
#include "text/template/value.h"

typedef struct span_request {
    const text *rendered;
    const list *messages;
    const text
        *prompt;     /* what announces an assistant's turn; empty: nothing does; NULL: not known */
    const text *eos; /* the end-of-sequence token; NULL: not known */
    bool add_generation_prompt;
    bool has_generation; /* the template marks turns itself */
} span_request;

/* Fills out->spans, or out->span_error when this template's turns cannot be told apart. False: out
 * of memory. */
bool find_spans(template_result *out, vm *, const span_request *);

/* What the template adds to a conversation of one user message for the assistant's turn, given its
 * rendering with add_generation_prompt and without. eos may be NULL. */
const text *generation_prompt(vm *, const text *with, const text *without, const text *eos);

#endif
