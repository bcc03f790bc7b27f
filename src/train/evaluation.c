#include "train/run.h"

#include "train/dataset_loss.h"

#include <math.h>

graft_status run_evaluate(run *r, double *loss, graft_error *err) {
    const dataset *data = r->in->eval_data;
    /* The same memory, read as an inference would: no gradient is made. */
    step_buffers buffers = r->arenas.step;
    buffers.limits.training = false;
    const loss_pass pass = {.run = &r->model,
                            .step = &buffers,
                            .builder = &r->arenas.batch,
                            .row_sums = r->arenas.row_losses};
    const loss_observer observer = {.stop = r->in->stop};
    loss_total total;
    graft_error reason = {0};
    graft_status status =
        dataset_loss(&total, &pass, data, row_packer_longest_first(&r->arenas.packer, data), 0,
                     &observer, &reason);
    *loss = total.sum / (double)dataset_count(data).supervised;
    if (status == GRAFT_E_NUMERIC) { /* the caller tells it with the part that made it */
        *loss = (double)NAN;
        return blame_forward(&r->blame, &r->model, &buffers, &r->arenas.batch.batch, err);
    }
    if (status != GRAFT_OK && err)
        *err = reason;
    return status;
}
