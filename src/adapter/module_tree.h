/* The names of Transformers' module tree that the table of modules leaves out: containers, and
 * modules without weights. PEFT matches these too, so that a target which reaches one is an error
 * there, and must be one here. */
#ifndef GRAFT_ADAPTER_MODULE_TREE_H
#define GRAFT_ADAPTER_MODULE_TREE_H

#include "model/spec.h"

typedef graft_status (*module_name_fn)(void *context, const char *name, graft_error *);

/* Calls visit with "model", "model.rotary_emb", "model.layers", "model.layers.0",
 * "model.layers.0.self_attn", "model.layers.0.mlp", "model.layers.0.mlp.act_fn", ... until it
 * fails. */
graft_status module_tree_visit(const model_spec *, const model_module *, size_t n,
                               module_name_fn visit, void *context, graft_error *);

/* Whether `name` is `module` itself or below it. */
bool module_is_within(const char *name, const char *module);
/* The last part of a dotted name. */
const char *module_last_part(const char *name);
/* Whether name is `end`, or ends in "." and `end`. */
bool module_ends_with(const char *name, const char *end);

#endif
