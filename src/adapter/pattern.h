/* Regular expressions over module names, as PEFT uses Python's re for them. The text comes from
 * files, so that compiling and matching are bounded: an expression that backtracks without end is
 * refused. */
#ifndef GRAFT_ADAPTER_PATTERN_H
#define GRAFT_ADAPTER_PATTERN_H

#include "base/status.h"

typedef enum pattern_form {
    PATTERN_WHOLE,  /* re.fullmatch(text, name) */
    PATTERN_END,    /* re.match("(.*\.)?(text)$", name): keys of rank_pattern and alpha_pattern */
    PATTERN_WITHIN, /* re.match("(^|.*\.)text($|\..*)", name): a module or what is below it */
    PATTERN_LAYER /* re.match("(?:^|.*?\.)text\.(?P<idx>\d+)\.", name): where layers are numbered */
} pattern_form;

typedef struct pattern pattern;

/* `what` names the place in messages ("target_modules"). */
graft_status pattern_create(pattern **, const char *text, pattern_form, const char *what,
                            graft_error *);
void pattern_destroy(pattern **);
/* Fails when the expression needs more steps than a module name may cost. */
graft_status pattern_match(bool *matched, const pattern *, const char *name, graft_error *);
/* PATTERN_LAYER: also the number; -1 when it does not match. */
graft_status pattern_layer(int64_t *layer, const pattern *, const char *name, graft_error *);

#endif
