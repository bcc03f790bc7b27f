/* The arenas of a run. One function lays them out; run once it counts, run again it assigns, so a
 * plan and a run agree to the byte. Sizes depend on shapes and limits only.
 *
 *   trainer  the adapter's values, gradients, optimizer moments        lives as long as the run
 *   step     activations and scratch of one micro-batch                laid out once for the
 * largest host     tokens, targets, staging between files and the device     likewise
 */
#ifndef GRAFT_TRAIN_MEMORY_PLAN_H
#define GRAFT_TRAIN_MEMORY_PLAN_H

#include "base/units.h"
#include "train/data/packing.h"
#include "train/data/row_packer.h"
#include "train/trainer.h"

enum {
    MICRO_BATCH_TOKENS = 1024, /* larger micro-batches cost memory and are hardly faster */
    STAGING_ELEMENTS = 1 << 18 /* of trained tensors on their way to a file */
};

/* What the layout depends on. */
typedef struct arena_shape {
    const model_spec *spec;
    adapter *adapter;
    const model_hooks *hooks; /* bound to the adapter */
    batch_limits limits;
    int32_t bin_tokens;      /* that rows are packed for, whatever the limits are */
    int64_t step_rows;       /* of the largest step */
    int64_t evaluation_rows; /* 0: nothing is evaluated */
    int32_t layers_from_input, layers_without_mlp; /* see step_limits */
    size_t element_bytes;
} arena_shape;

typedef struct run_arenas {
    step_buffers step;
    block_saved *saved; /* [n_layers], caller storage */
    batch_limits limits;
    batch_builder batch;
    row_packer packer;
    int32_t bin_tokens;
    double *row_losses; /* [evaluation_rows] */
    void *staging;      /* STAGING_ELEMENTS elements of the backend's type */
} run_arenas;

graft_status run_arenas_layout(run_arenas *, layout *trainer, layout *step, layout *host,
                               const arena_shape *, graft_error *);

typedef struct plan_request {
    const model_spec *spec;
    adapter *adapter;
    const model_hooks *hooks;
    const train_config *config;
    data_shape data;
    size_t element_bytes, workspace_bytes, mapped_bytes, uploaded_bytes;
} plan_request;

/* The bytes of one shape. */
graft_status memory_plan_count(memory_plan *, const arena_shape *, const plan_request *,
                               graft_error *);

/* memory_choice.c: the shape of a run on a backend with these properties. What costs least comes
 * first: all is kept; micro-batches get smaller, down to one row; then blocks keep less, so that
 * the fewest operations are done again (as far as the config leaves the choice). GRAFT_E_MEMORY
 * with the largest parts when nothing fits; *out is then the smallest. */
graft_status memory_plan_choose(memory_plan *out, arena_shape *, const plan_request *,
                                graft_error *);
/* The shape that a plan was made for. */
arena_shape memory_plan_shape(const memory_plan *, const plan_request *);

#endif
