/* Final norm, head and cross-entropy over the rows that have a label, a chunk at a time, so that
 * logits never exist whole.
 *
 * Invariant: gradients of the head and the final norm add blocks of head rows that are counted from
 * each segment's first labelled row, in order, and a chunk holds whole blocks. So the sums do not
 * depend on how rows are packed. */
#include "model/linear_hooked.h"

#include <assert.h>

typedef struct head_pass {
    const model_run *run;
    const step_buffers *buffers;
    const batch *batch;
    const int32_t *rows; /* ascending indices into the batch */
    int32_t n_rows;
    int32_t next;    /* first row that no chunk has taken yet */
    int32_t segment; /* that rows[next] lies in, or an earlier one */
} head_pass;

/* One chunk: rows[begin .. begin + tokens.n) */
typedef struct head_chunk {
    int32_t begin;
    token_rows tokens;
} head_chunk;

static int32_t block_end(head_pass *p) {
    int32_t block = p->buffers->head.chunk < GRID_TOKENS ? p->buffers->head.chunk : GRID_TOKENS;
    const segment *segments = p->batch->segments;
    int32_t end = p->next;
    while (p->rows[p->next] >= segments[p->segment].token_end)
        p->segment++;
    while (end < p->n_rows && end - p->next < block &&
           p->rows[end] < segments[p->segment].token_end)
        end++;
    return end;
}

static void fill_row(head_pass *p, int32_t at, int32_t row) {
    const head_buffers *head = &p->buffers->head;
    const batch *b = p->batch;
    head->targets[at] = b->targets ? b->targets[row] : 0;
    head->weights[at] = b->weights ? b->weights[row] : 0;
    head->dropout_counter[at] = b->tokens.dropout_counter ? b->tokens.dropout_counter[row] : 0;
}

/* Takes as many whole blocks as there is room for; false at the end. */
static bool next_chunk(head_chunk *out, head_pass *p) {
    const head_buffers *head = &p->buffers->head;
    const token_rows *all = &p->batch->tokens;
    int32_t n = 0, n_grid = 0;
    *out = (head_chunk){.begin = p->next};
    head->grid[0] = 0;
    while (p->next < p->n_rows) {
        int32_t end = block_end(p);
        if (n + end - p->next > head->rows)
            break;
        for (; p->next < end; p->next++)
            fill_row(p, n++, p->rows[p->next]);
        head->grid[++n_grid] = n;
    }
    for (int32_t job = 0, at = 0; job <= all->n_jobs; job++) {
        while (at < n && p->rows[out->begin + at] < all->job_begin[job])
            at++;
        head->job_begin[job] = at;
    }
    out->tokens = *all;
    out->tokens.n = n;
    out->tokens.grid = head->grid;
    out->tokens.n_grid = n_grid;
    out->tokens.job_begin = head->job_begin;
    out->tokens.dropout_counter = head->dropout_counter;
    assert(n > 0 || p->next == p->n_rows);
    return n > 0;
}

static hooked_linear head_linear(const head_pass *p) {
    const outer_weights *outer = weight_source_outer(p->run->weights);
    const linear_hook *hook = &p->run->hooks->head;
    const head_buffers *head = &p->buffers->head;
    return (hooked_linear){
        .dev = p->run->dev,
        .call = linear_hooked(p->run->dev, &outer->head, outer->head_bias, hook),
        .hook = hook,
        .xa = head->xa,
        .scratch = head->linear,
        .kept = head->kept,
        .form_scratch = head->form,
    };
}

static norm_call final_norm(const head_pass *p) {
    const outer_weights *outer = weight_source_outer(p->run->weights);
    const model_hooks *hooks = p->run->hooks;
    return norm_hooked(p->run->spec, outer->norm[OUTER_NORM_FINAL],
                       &hooks->outer_norm[OUTER_NORM_FINAL], outer->norm_bias[OUTER_NORM_FINAL],
                       &hooks->outer_norm_bias[OUTER_NORM_FINAL]);
}

/* Between the final norm and a head that is narrower than the blocks. */
static hooked_linear project_out(const head_pass *p) {
    const head_buffers *head = &p->buffers->head;
    const linear_hook *hook = &p->run->hooks->outer_linear[OUTER_PROJECT_OUT];
    const weight_ref *weight = &weight_source_outer(p->run->weights)->linear[OUTER_PROJECT_OUT];
    return (hooked_linear){
        .dev = p->run->dev,
        .call = linear_hooked(p->run->dev, weight, NULL, hook),
        .hook = hook,
        .xa = head->projected_xa,
        .scratch = head->linear,
        .kept = head->projected_kept,
        .form_scratch = head->form,
    };
}

/* Logits of a chunk, into head.logits. */
static void chunk_forward(const head_pass *p, const head_chunk *chunk) {
    const head_buffers *head = &p->buffers->head;
    const model_spec *spec = p->run->spec;
    backend *dev = p->run->dev;
    hooked_linear linear = head_linear(p);
    const device_array *input = head->x;
    int64_t n = chunk->tokens.n;
    dev->ops->gather_rows(dev, head->x, p->buffers->x, p->rows + chunk->begin, n, spec->hidden);
    if (spec->has_final_norm) {
        norm_call norm = final_norm(p);
        dev->ops->norm_fwd(dev, head->normed, head->rstd, head->x, &norm, n, spec->hidden);
        input = head->normed;
    }
    if (head->projected) {
        hooked_linear out = project_out(p);
        hooked_linear_fwd(&out, head->projected, input, false, &chunk->tokens, p->batch);
        input = head->projected;
    }
    hooked_linear_fwd(&linear, head->logits, input, false, &chunk->tokens, p->batch);
    if (spec->logit_cap > 0)
        dev->ops->soft_cap(dev, head->logits, spec->logit_scale, spec->logit_cap, n * spec->vocab);
    else if (spec->logit_scale != 1)
        dev->ops->scale(dev, head->logits, spec->logit_scale, n * spec->vocab);
}

static bool outer_norm_trains(const model_run *run, outer_norm slot) {
    return run->hooks->outer_norm[slot].gradient || run->hooks->outer_norm_bias[slot].gradient;
}

/* head.logits holds their gradient; fills the chunk's rows of dx. */
static void chunk_backward(const head_pass *p, const head_chunk *chunk) {
    const head_buffers *head = &p->buffers->head;
    const model_spec *spec = p->run->spec;
    backend *dev = p->run->dev;
    hooked_linear linear = head_linear(p);
    bool needs_dx = p->buffers->dx || outer_norm_trains(p->run, OUTER_NORM_FINAL);
    device_array *dx = needs_dx ? head->dx : NULL;
    const device_array *normed = spec->has_final_norm ? head->normed : head->x;
    if (spec->logit_scale != 1)
        dev->ops->scale(dev, head->logits, spec->logit_scale,
                        (int64_t)chunk->tokens.n * spec->vocab);
    if (head->projected) {
        hooked_linear out = project_out(p);
        bool needs_projected = dx || hooked_linear_trains(&out);
        hooked_linear_bwd(&linear, needs_projected ? head->d_projected : NULL, head->logits,
                          head->projected, false, &chunk->tokens, p->batch);
        hooked_linear_bwd(&out, dx, head->d_projected, normed, false, &chunk->tokens, p->batch);
    } else
        hooked_linear_bwd(&linear, dx, head->logits, normed, false, &chunk->tokens, p->batch);
    if (dx && spec->has_final_norm) {
        norm_call norm = final_norm(p);
        dev->ops->norm_bwd(dev, dx, dx, head->x, head->rstd, &norm, 1, spec->hidden, false,
                           &chunk->tokens);
    }
    if (p->buffers->dx)
        dev->ops->scatter_rows(dev, p->buffers->dx, dx, p->rows + chunk->begin, chunk->tokens.n,
                               spec->hidden);
}

graft_status step_loss(int32_t *n_labelled, const model_run *run, step_buffers *buffers,
                       const batch *b, graft_error *err) {
    backend *dev = run->dev;
    const head_buffers *head = &buffers->head;
    head_pass pass = {.run = run,
                      .buffers = buffers,
                      .batch = b,
                      .rows = buffers->labelled.index,
                      .n_rows = buffers->labelled.tokens.n};
    head_chunk chunk;
    *n_labelled = pass.n_rows;
    if (!b->targets)
        return error_set(err, GRAFT_E_INTERNAL, "a loss without targets");
    if (buffers->limits.training && buffers->dx)
        dev->ops->fill(dev, buffers->dx, 0, (int64_t)b->tokens.n * run->spec->hidden);
    while (next_chunk(&chunk, &pass)) {
        chunk_forward(&pass, &chunk);
        dev->ops->cross_entropy(dev, array_at(dev, buffers->loss, chunk.begin), head->logits,
                                head->targets, head->weights, chunk.tokens.n, run->spec->vocab,
                                run->spec->logit_cap, buffers->limits.training);
        if (buffers->limits.training)
            chunk_backward(&pass, &chunk);
    }
    dev->ops->download(dev, buffers->loss_host, buffers->loss, pass.n_rows);
    return GRAFT_OK;
}

graft_status step_logits(float *out, const model_run *run, step_buffers *buffers, const batch *b,
                         const int32_t *rows, int32_t n, graft_error *err) {
    backend *dev = run->dev;
    int64_t vocab = run->spec->vocab;
    head_pass pass = {.run = run, .buffers = buffers, .batch = b, .rows = rows, .n_rows = n};
    head_chunk chunk;
    for (int32_t i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= b->tokens.n || (i > 0 && rows[i] <= rows[i - 1]))
            return error_set(err, GRAFT_E_INTERNAL, "row %d of %d tokens, or not ascending",
                             rows[i], b->tokens.n);
    while (next_chunk(&chunk, &pass)) {
        chunk_forward(&pass, &chunk);
        dev->ops->download(dev, out + chunk.begin * vocab, buffers->head.logits,
                           chunk.tokens.n * vocab);
    }
    return GRAFT_OK;
}
