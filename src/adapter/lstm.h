/* A bidirectional LSTM of one or more layers over the virtual tokens, as torch.nn.LSTM(batch_first,
 * bidirectional) computes it; on the host, in double precision: it reads a few tokens once an
 * update. Inside adapter/ only. */
#ifndef GRAFT_ADAPTER_LSTM_H
#define GRAFT_ADAPTER_LSTM_H

#include "adapter/shape.h"

typedef struct lstm lstm;

/* Adds its tensors (prompt_encoder.default.lstm_head.*) and its output, derived [rows, 2 hidden].
 */
graft_status lstm_create(lstm **, adapter *, int64_t rows, int64_t in, int64_t hidden,
                         int32_t n_layers, graft_error *);
void lstm_destroy(lstm **);
/* As torch draws them: U(-1, 1) / sqrt(hidden). */
void lstm_init(const lstm *, const adapter *, backend *, rng *);
const derived_array *lstm_output(const lstm *, const adapter *);
/* Keeps what backward needs. */
graft_status lstm_fwd(lstm *, const adapter *, backend *, const device_array *x, graft_error *);
/* From the output's gradient: tensors' gradients and dx are added to. */
void lstm_bwd(lstm *, const adapter *, backend *, const device_array *x, device_array *dx);

#endif
