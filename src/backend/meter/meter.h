/* A backend around a backend: it hands every op on and keeps count of calls, time, operations and
 * bytes. Around nothing it computes nothing and only counts: what a step would cost is then found
 * by running the model's own code, for every family and method alike. Without a meter nothing is
 * measured and nothing is lost. */
#ifndef GRAFT_BACKEND_METER_METER_H
#define GRAFT_BACKEND_METER_METER_H

#include "backend/meter/op_cost.h"

typedef enum meter_op {
    METER_UPLOAD,
    METER_DOWNLOAD,
    METER_EMBED_FWD,
    METER_EMBED_BWD,
    METER_NORM_FWD,
    METER_NORM_BWD,
    METER_LINEAR_FWD,
    METER_LINEAR_BWD,
    METER_ROPE,
    METER_ATTENTION_FWD,
    METER_ATTENTION_BWD,
    METER_GATED_FWD,
    METER_GATED_BWD,
    METER_CROSS_ENTROPY,
    METER_FILL,
    METER_COPY,
    METER_COPY_BLOCKS,
    METER_SOFT_CAP,
    METER_CLAMP,
    METER_CLAMP_BWD,
    METER_ROUTE_FWD,
    METER_ROUTE_BWD,
    METER_ADD,
    METER_SCALE,
    METER_GATHER_ROWS,
    METER_SCATTER_ROWS,
    METER_MATMUL,
    METER_WEIGHT_LOAD,
    METER_ADD_SCALED,
    METER_MUL,
    METER_SCALE_COLS,
    METER_SCALE_ROWS,
    METER_ADD_ROWS,
    METER_SUM_ROWS,
    METER_SUM_COLS,
    METER_SCATTER_ADD_ROWS,
    METER_ROTATE_HALVES,
    METER_SPECTRUM_FWD,
    METER_SPECTRUM_BWD,
    METER_ACTIVATION_FWD,
    METER_ACTIVATION_BWD,
    METER_SOFTMAX_FWD,
    METER_SOFTMAX_BWD,
    METER_DROPOUT,
    METER_SUM_SQUARES,
    METER_ADAMW,
    N_METER_OPS
} meter_op;

const char *meter_op_name(meter_op);
bool meter_op_is_attention(meter_op);

typedef struct meter_tally {
    int64_t calls;
    double seconds;
    op_cost cost;
} meter_tally;

/* Takes `inner` over (also when it fails) and looks like it; NULL: nothing is computed, elements
 * are f32, alloc gives addresses that nobody may touch, and downloads are zeros. */
graft_status backend_create_meter(backend **, backend *inner, graft_error *);
/* The counts since it was made, or set back; NULL when this backend is no meter. */
const meter_tally *meter_tallies(const backend *); /* [N_METER_OPS] */
void meter_reset(backend *);

#endif
