/* How a method lists its tensors: targets first, then tensors by module, then what the config frees
 * beside them. */
#ifndef GRAFT_ADAPTER_SHAPE_H
#define GRAFT_ADAPTER_SHAPE_H

#include "adapter/adapter.h"
#include "adapter/targets.h"

/* Resolves config.target_modules into a->targets. */
graft_status shape_targets(adapter *, const message_sink *, graft_error *);
/* Adds a tensor named "<module>.<suffix>" (module MODULE_NONE: suffix is the whole key). shape is
 * ADAPTER_TENSOR_RANK_MAX long at most, of `rank`; the tensor is borrowed until the next call and
 * its role is ROLE_OTHER. NULL when memory runs out (err is set). */
adapter_tensor *shape_tensor(adapter *, size_t module, const char *suffix, int32_t rank,
                             const int64_t *shape, graft_error *);
/* The same for vectors and matrices; cols 0: a vector. */
adapter_tensor *shape_matrix(adapter *, size_t module, const char *suffix, int64_t rows,
                             int64_t cols, graft_error *);
/* An integer tensor that is fixed: integers are allocated and zero. */
adapter_tensor *shape_integers(adapter *, size_t module, const char *suffix, dtype, int64_t rows,
                               int64_t cols, graft_error *);
/* Adds an array that the method derives from its tensors; its index in a->derived, SIZE_MAX when
 * memory runs out. */
size_t shape_derived(adapter *, int64_t count, bool has_gradient, graft_error *);
/* Adds the freed parameters (modules_to_save, bias), sorts, and lists the copies that the file
 * holds beside. Call it last; the tensors' addresses are stable from here on. */
graft_status shape_finish(adapter *, const message_sink *, graft_error *);

/* A tensor that the file holds once more, under a module's key; after shape_finish. */
graft_status shape_copy(adapter *, size_t module, const char *suffix, const adapter_tensor *of,
                        graft_error *);
/* The usual shape: resolves the targets, lets `add` list the tensors of each, finishes. */
graft_status shape_each_target(adapter *,
                               graft_status (*add)(adapter *, size_t module, graft_error *),
                               const message_sink *, graft_error *);

/* A tensor by its place, after shape_finish; NULL: there is none. */
adapter_tensor *adapter_tensor_at(const adapter *, size_t module, const char *suffix);

typedef enum distribution { DRAW_CONSTANT, DRAW_UNIFORM, DRAW_NORMAL } distribution;
/* Fills a tensor with `spread` itself, U(-spread, spread), or N(0, spread). */
void shape_fill(const adapter_tensor *, backend *, distribution, double spread, rng *);
/* N(mean, deviation). */
void shape_fill_around(const adapter_tensor *, backend *, double mean, double deviation, rng *);
/* First values of the freed parameters: the base's. */
graft_status shape_init_freed(adapter *, backend *, const weight_source *, graft_error *);
/* Puts the freed parameters into the hooks. */
void shape_bind_freed(adapter *, model_hooks *);

#endif
