/* A config's names and expressions, compiled: PEFT's check_target_module_exists and
 * get_pattern_key. */
#ifndef GRAFT_ADAPTER_MATCHER_H
#define GRAFT_ADAPTER_MATCHER_H

#include "adapter/config.h"
#include "adapter/pattern.h"

typedef struct pattern_set {
    pattern **items;
    size_t n;
} pattern_set;

typedef struct matcher {
    const adapter_config *config; /* borrowed */
    pattern *target, *exclude;    /* NULL: lists of names are used */
    pattern_set saved;            /* modules_to_save: what is in them is no target */
    pattern_set layers;           /* where layers are numbered */
    pattern_set ranks, alphas;
} matcher;

/* saved: the modules_to_save that count (see ensure_weight_tying). */
graft_status matcher_create(matcher *, const adapter_config *, const text_list *saved,
                            graft_error *);
void matcher_free(matcher *);

typedef enum match_kind {
    MATCH_NONE,
    MATCH_TARGET,
    MATCH_EXCLUDED /* a target, were it not excluded */
} match_kind;

graft_status matcher_target(match_kind *, const matcher *, const char *name, graft_error *);
/* The first pattern of the set that matches the name: its index; the set's size when none does. */
graft_status pattern_set_first(size_t *index, const pattern_set *, const char *name, graft_error *);

#endif
