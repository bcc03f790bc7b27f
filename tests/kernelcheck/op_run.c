#include "tests/kernelcheck/op_run.h"

#include "base/rng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void *own(op_run *run, void *memory) {
    assert(memory && run->n_owned < OP_ARRAYS_MAX);
    run->owned[run->n_owned++] = memory;
    return memory;
}

static void fill_segments(op_run *run, const int32_t *lengths, const int32_t *jobs) {
    op_batch *all = &run->all;
    int32_t n = 0;
    for (int32_t s = 0; lengths[s]; s++) {
        assert(s < OP_SEGMENTS_MAX);
        int32_t job = jobs ? jobs[s] : 0;
        all->segments[s] = (segment){.token_begin = n,
                                     .token_end = n + lengths[s],
                                     .job = job,
                                     .row_id = 1000u + (uint64_t)s};
        n += lengths[s];
        all->n_segments = s + 1;
        all->n_jobs = job + 1;
    }
}

void op_run_begin(op_run *run, backend *dev, uint64_t seed, const int32_t *lengths,
                  const int32_t *jobs, int32_t vocab) {
    *run = (op_run){.dev = dev, .seed = seed, .magnitude = run->magnitude > 0 ? run->magnitude : 1};
    fill_segments(run, lengths, jobs);
    op_batch *all = &run->all;
    size_t n = (size_t)all->segments[all->n_segments - 1].token_end;
    all->grid = own(run, calloc(n + 1, sizeof *all->grid));
    run->grid_now = own(run, calloc(n + 1, sizeof *run->grid_now));
    all->dropout_counter = own(run, calloc(n, sizeof *all->dropout_counter));
    all->ids = own(run, calloc(n, sizeof *all->ids));
    all->targets = own(run, calloc(n, sizeof *all->targets));
    all->weights = own(run, calloc(n, sizeof *all->weights));
    rng r = rng_create(seed, 1u << 20);
    for (int32_t s = 0; s < all->n_segments; s++)
        for (int32_t t = all->segments[s].token_begin; t < all->segments[s].token_end; t++) {
            uint64_t index = (uint64_t)(t - all->segments[s].token_begin);
            all->dropout_counter[t] = all->segments[s].row_id << 20 | index;
            all->ids[t] = (int32_t)rng_below(&r, (uint64_t)vocab);
            all->targets[t] = (int32_t)rng_below(&r, (uint64_t)vocab);
            all->weights[t] = (float)(0.5 + rng_uniform(&r));
        }
    op_run_select_all(run);
}

void op_run_end(op_run *run) {
    for (int i = 0; i < run->n_arrays; i++)
        run->dev->ops->release(run->dev, run->arrays[i].memory);
    for (int i = 0; i < run->n_owned; i++)
        free(run->owned[i]);
    free(run->state);
    *run = (op_run){0};
}

static void select_range(op_run *run, int32_t s_begin, int32_t s_end) {
    op_batch *all = &run->all;
    int32_t first = all->segments[s_begin].token_begin;
    int32_t n = all->segments[s_end - 1].token_end - first, n_grid = 0;
    for (int32_t s = s_begin; s < s_end; s++) {
        segment *seg = &run->segments_now[s - s_begin];
        *seg = all->segments[s];
        seg->token_begin -= first;
        seg->token_end -= first;
        for (int32_t t = seg->token_begin; t < seg->token_end; t += GRID_TOKENS)
            run->grid_now[n_grid++] = t;
    }
    run->grid_now[n_grid] = n;
    for (int32_t job = 0; job <= all->n_jobs; job++) {
        run->job_begin_now[job] = n;
        for (int32_t s = s_end - s_begin - 1; s >= 0; s--)
            if (run->segments_now[s].job >= job)
                run->job_begin_now[job] = run->segments_now[s].token_begin;
    }
    run->token_first = first;
    run->batch = (batch){.tokens = {.n = n,
                                    .grid = run->grid_now,
                                    .n_grid = n_grid,
                                    .job_begin = run->job_begin_now,
                                    .n_jobs = all->n_jobs,
                                    .dropout_counter = all->dropout_counter + first,
                                    .dropout_key = 0x123456789ABCDEFu,
                                    .training = true},
                         .segments = run->segments_now,
                         .n_segments = s_end - s_begin,
                         .ids = all->ids + first,
                         .targets = all->targets + first,
                         .weights = all->weights + first};
}

void op_run_select_all(op_run *run) {
    select_range(run, 0, run->all.n_segments);
}

void op_run_select(op_run *run, int32_t s) {
    select_range(run, s, s + 1);
}

static void fill_random(op_run *run, int index) {
    op_array *array = &run->arrays[index];
    rng r = rng_create(run->seed, (uint64_t)index);
    double *values = malloc((size_t)array->n * sizeof *values);
    assert(values);
    for (int64_t i = 0; i < array->n; i++)
        values[i] = (double)(float)(run->magnitude * rng_normal(&r));
    op_set(run, index, values);
    free(values);
}

int op_array_add(op_run *run, const char *name, int64_t n, array_role role, int partner) {
    assert(run->n_arrays < OP_ARRAYS_MAX);
    int index = run->n_arrays++;
    size_t bytes = (size_t)n * run->dev->element_bytes;
    run->arrays[index] = (op_array){.name = name,
                                    .memory = run->dev->ops->alloc(run->dev, bytes ? bytes : 1),
                                    .n = n,
                                    .role = role,
                                    .partner = partner};
    assert(run->arrays[index].memory);
    if (role == ROLE_INPUT || role == ROLE_COTANGENT)
        fill_random(run, index);
    return index;
}

int op_array_add_tokens(op_run *run, const char *name, int64_t token_width, array_role role,
                        int partner) {
    int64_t n = run->all.segments[run->all.n_segments - 1].token_end;
    int index = op_array_add(run, name, n * token_width, role, partner);
    run->arrays[index].token_width = token_width;
    return index;
}

device_array *op_at(const op_run *run, int index) {
    if (index < 0)
        return NULL;
    const op_array *array = &run->arrays[index];
    return array_at(run->dev, array->memory, run->token_first * array->token_width);
}

double *op_values(const op_run *run, int index) {
    const op_array *array = &run->arrays[index];
    double *values = malloc((size_t)(array->n ? array->n : 1) * sizeof *values);
    assert(values);
    run->dev->ops->download_f64(run->dev, values, array->memory, array->n);
    return values;
}

void op_set(op_run *run, int index, const double *values) {
    run->dev->ops->upload(run->dev, run->arrays[index].memory, values, DTYPE_F64,
                          run->arrays[index].n);
}

void *op_stored(op_run *run, dtype type, int64_t n, double scale) {
    float *values = malloc((size_t)n * sizeof *values);
    assert(values);
    rng r = rng_create(run->seed, (1u << 21) + (uint64_t)run->n_owned);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(scale * rng_normal(&r));
    void *stored = own(run, malloc((size_t)n * dtype_bytes(type)));
    dtype_store_f32(stored, values, type, (size_t)n);
    free(values);
    return stored;
}
