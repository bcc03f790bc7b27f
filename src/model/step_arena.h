/* The memory of steps outside training: buffers and a batch, laid out for their largest and
 * allocated once. */
#ifndef GRAFT_MODEL_STEP_ARENA_H
#define GRAFT_MODEL_STEP_ARENA_H

#include "model/batch_builder.h"
#include "model/transformer.h"

typedef struct step_arena {
    step_buffers step;
    batch_builder builder;
    block_saved *saved; /* [n_layers] */
    backend *dev;       /* borrowed */
    void *device_memory, *host_memory;
} step_arena;

/* max_tokens counts text: any row that fits has room for its virtual tokens, too. `what` names the
 * purpose when memory is short. After a failure there is nothing to free. */
graft_status step_arena_create(step_arena *, const model_run *, const step_limits *,
                               const char *what, graft_error *);
void step_arena_free(step_arena *);

#endif
