#include "model/labelled_rows.h"

/* Blocks of at most GRID_TOKENS labelled rows, counted from each segment's first one: so sums over
 * them do not depend on how rows are packed. */
static int32_t make_grid(const labelled_rows *l, int32_t n, const batch *b) {
    int32_t n_grid = 0, begin = 0, s = 0;
    l->grid[0] = 0;
    for (int32_t i = 0; i < n; i++) {
        bool begins = l->index[i] >= b->segments[s].token_end;
        while (l->index[i] >= b->segments[s].token_end)
            s++;
        if (i > begin && (begins || i - begin == GRID_TOKENS)) {
            l->grid[++n_grid] = i;
            begin = i;
        }
    }
    if (n > 0)
        l->grid[++n_grid] = n;
    return n_grid;
}

graft_status labelled_rows_find(step_buffers *buffers, const batch *b, graft_error *err) {
    labelled_rows *l = &buffers->labelled;
    const token_rows *all = &b->tokens;
    int32_t n = 0, most = buffers->limits.max_labelled;
    for (int32_t t = 0; b->targets && t < all->n; t++) {
        if (b->targets[t] < 0)
            continue;
        if (n == most)
            return error_set(err, GRAFT_E_INTERNAL, "more labelled rows than buffers for %d", most);
        l->dropout_counter[n] = all->dropout_counter ? all->dropout_counter[t] : 0;
        l->index[n++] = t;
    }
    for (int32_t job = 0, at = 0; job <= all->n_jobs; job++) {
        while (at < n && l->index[at] < all->job_begin[job])
            at++;
        l->job_begin[job] = at;
    }
    l->tokens = *all;
    l->tokens.n = n;
    l->tokens.grid = l->grid;
    l->tokens.n_grid = make_grid(l, n, b);
    l->tokens.job_begin = l->job_begin;
    l->tokens.dropout_counter = l->dropout_counter;
    return GRAFT_OK;
}
