#include "train/dataset_loss.h"

#include <assert.h>

typedef struct ordered_rows {
    const dataset *data;
    const uint64_t *order; /* NULL: file order */
    int64_t next;
    float weight;
} ordered_rows;

static bool next_row(void *context, batch_row *out) {
    ordered_rows *rows = context;
    if (rows->next >= dataset_rows(rows->data))
        return false;
    uint64_t row = rows->order ? rows->order[rows->next] : (uint64_t)rows->next;
    data_row_view view = dataset_row(rows->data, (int64_t)row);
    *out = (batch_row){.ids = view.ids,
                       .targets = view.targets,
                       .n = view.n,
                       .weight = rows->weight,
                       .task = view.task,
                       .row_id = row};
    rows->next++;
    return true;
}

graft_status dataset_loss(loss_total *total, const loss_pass *pass, const dataset *data,
                          const uint64_t *order, float weight, const loss_observer *observer,
                          graft_error *err) {
    ordered_rows rows = {.data = data, .order = order, .weight = weight};
    assert(pass->row_sums);
    graft_status status = loss_evaluate(total, pass, (row_source){next_row, &rows}, observer, err);
    if (status != GRAFT_OK)
        return status;
    total->sum = 0;
    for (int64_t i = 0; i < dataset_rows(data); i++)
        total->sum += pass->row_sums[i];
    return GRAFT_OK;
}
