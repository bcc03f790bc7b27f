/* graft_eval: loss and perplexity, logits and gradients on request. */
#include "api/open.h"
#include "api/profile.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/peak_memory.h"
#include "formats/safetensors.h"
#include "model/step_arena.h"
#include "train/data/row_packer.h"
#include "train/dataset_loss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASS_TOKENS = 1024, PASS_ROWS = 64 };

/* ---- Logits into a file ---- */

typedef struct logits_writer {
    safetensors_writer *file;
    named_tensor *tensors; /* one a row */
    char (*names)[32];
    float *logits; /* [PASS_TOKENS or the longest row, vocab] */
    int32_t *rows;
} logits_writer;

static void logits_close(logits_writer *w) {
    safetensors_writer_abandon(&w->file);
    free(w->tensors);
    free(w->names);
    free(w->logits);
    free(w->rows);
    *w = (logits_writer){0};
}

static graft_status logits_open(logits_writer *w, const char *path, const dataset *data,
                                const model_spec *spec, graft_error *err) {
    size_t n = (size_t)dataset_rows(data);
    int32_t longest = dataset_count(data).longest;
    w->tensors = mem_array(n, sizeof *w->tensors);
    w->names = mem_array(n, sizeof *w->names);
    w->logits = mem_array((size_t)longest * (size_t)spec->vocab, sizeof *w->logits);
    w->rows = mem_array((size_t)longest, sizeof *w->rows);
    if (!w->tensors || !w->names || !w->logits || !w->rows)
        return error_memory(err, (size_t)longest * (size_t)spec->vocab * sizeof *w->logits,
                            "logits");
    for (size_t i = 0; i < n; i++) {
        snprintf(w->names[i], sizeof w->names[i], "logits.%zu", i);
        w->tensors[i] = (named_tensor){w->names[i],
                                       {.type = DTYPE_F32,
                                        .rank = 2,
                                        .shape = {dataset_row(data, (int64_t)i).n, spec->vocab}}};
    }
    return safetensors_writer_open(&w->file, path, w->tensors, n, err);
}

/* Rows pass in file order, so that their logits can be written as they come. */
static graft_status write_logits(void *context, const model_run *model, step_buffers *buffers,
                                 const batch *b, graft_error *err) {
    logits_writer *w = context;
    graft_status status = GRAFT_OK;
    for (int32_t s = 0; s < b->n_segments && status == GRAFT_OK; s++) {
        int32_t first = b->segments[s].token_begin + b->segments[s].n_virtual;
        int32_t n = b->segments[s].token_end - first;
        for (int32_t i = 0; i < n; i++)
            w->rows[i] = first + i;
        status = step_logits(w->logits, model, buffers, b, w->rows, n, err);
        if (status == GRAFT_OK)
            status = safetensors_writer_add(
                w->file, w->logits, (size_t)n * (size_t)model->spec->vocab * sizeof *w->logits,
                err);
    }
    return status;
}

/* ---- The verb ---- */

/* The order of the rows and what is kept of each, in one piece of memory. */
typedef struct row_memory {
    row_packer packer;
    double *sums;
    void *memory;
} row_memory;

static void row_memory_layout(row_memory *m, layout *l, int64_t rows) {
    row_packer_layout(&m->packer, l, rows);
    m->sums = layout_take(l, COMPONENT_WORKSPACE, (size_t)rows, sizeof *m->sums);
}

static graft_status row_memory_open(row_memory *m, int64_t rows, graft_error *err) {
    layout l = layout_counting();
    row_memory_layout(m, &l, rows);
    m->memory = aligned_alloc(LAYOUT_ALIGNMENT, l.high_water);
    if (!m->memory)
        return error_memory(err, l.high_water, "the order of the rows");
    l = layout_over(m->memory, l.high_water);
    row_memory_layout(m, &l, rows);
    return GRAFT_OK;
}

static graft_status check_request(const opened *o, const dataset_counts *counts, graft_error *err) {
    if (recipe_text(o->recipe, "gradients") && !o->adapter)
        return error_set(err, GRAFT_E_USAGE,
                         "--gradients are an adapter's: give one with --adapter");
    if (!counts->supervised)
        return error_set(err, GRAFT_E_INPUT, "%s: no row has a supervised token",
                         graft_recipe_get(o->recipe, "data"));
    return GRAFT_OK;
}

/* Runs all rows through the buffers, with their logits into the writer where a file is asked for.
 * Gradients add up, and logits are written, in file order; else an order that fills passes well. */
static graft_status pass_rows(loss_total *total, opened *o, const dataset *data,
                              const loss_pass *pass, row_memory *rows, graft_error *err) {
    const char *logits_path = recipe_text(o->recipe, "logits");
    bool in_file_order = logits_path || pass->gradients;
    const dataset_counts counts = dataset_count(data);
    /* Gradients are those of the loss that training has. */
    int64_t labelled =
        counts.supervised + (pass->gradients ? counts.rows * o->hooks.sequence.n_labelled : 0);
    float weight = (float)(1.0 / (double)labelled);
    logits_writer writer = {0};
    loss_observer observer = {.stop = o->observer ? o->observer->stop : NULL};
    graft_status status = GRAFT_OK;
    if (logits_path) {
        observer.on_pass = write_logits;
        observer.context = &writer;
        status = logits_open(&writer, logits_path, data, &o->spec, err);
    }
    if (status == GRAFT_OK)
        status = dataset_loss(total, pass, data,
                              in_file_order ? NULL : row_packer_longest_first(&rows->packer, data),
                              weight, &observer, err);
    if (status == GRAFT_OK && logits_path)
        status = safetensors_writer_commit(&writer.file, err);
    logits_close(&writer);
    return status;
}

static graft_status evaluate(loss_total *total, opened *o, const dataset *data, graft_error *err) {
    const char *gradients_path = recipe_text(o->recipe, "gradients");
    dataset_counts counts = dataset_count(data);
    int32_t max_tokens = counts.longest > PASS_TOKENS ? counts.longest : PASS_TOKENS;
    const model_run model = {o->dev, &o->spec, o->weights, &o->hooks};
    const step_limits limits = {.max_tokens = max_tokens,
                                .max_labelled = max_tokens,
                                .max_segments = recipe_flag(o->recipe, "packing") ? PASS_ROWS : 1,
                                .training = gradients_path != NULL,
                                .labelled_only = !recipe_text(o->recipe, "logits")};
    row_memory rows = {0};
    step_arena arena = {0};
    graft_status status = check_request(o, &counts, err);
    if (status == GRAFT_OK)
        status = dataset_check_tasks(data, o->hooks.n_tasks, err);
    if (status == GRAFT_OK)
        status = row_memory_open(&rows, counts.rows, err);
    if (status == GRAFT_OK)
        status = step_arena_create(&arena, &model, &limits, "evaluation", err);
    const loss_pass pass = {.run = &model,
                            .step = &arena.step,
                            .builder = &arena.builder,
                            .gradients = gradients_path != NULL,
                            .row_sums = rows.sums};
    if (status == GRAFT_OK)
        status = pass_rows(total, o, data, &pass, &rows, err);
    if (status == GRAFT_OK && gradients_path)
        adapter_chain(o->adapter, o->dev);
    if (status == GRAFT_OK && gradients_path)
        status = adapter_save_gradients(o->adapter, o->dev, gradients_path, err);
    step_arena_free(&arena);
    free(rows.memory);
    return status;
}

graft_status graft_eval(graft_eval_result *out, const graft_recipe *recipe,
                        const graft_observer *observer, graft_error *err) {
    *out = (graft_eval_result){0};
    opened o = opened_begin(recipe, observer);
    dataset *data = NULL;
    loss_total total = {0};
    graft_status status = need_option(recipe, "data", err);
    if (status == GRAFT_OK)
        status = open_weights(&o, err);
    if (status == GRAFT_OK)
        status = open_trained_adapter(&o, recipe_text(recipe, "gradients") != NULL, err);
    if (status == GRAFT_OK)
        status = open_text(&o, err);
    if (status == GRAFT_OK)
        status = open_data(&data, &o, "data", true, err);
    double began = clock_seconds();
    if (status == GRAFT_OK)
        status = evaluate(&total, &o, data, err);
    if (status == GRAFT_OK) {
        double seconds = clock_seconds() - began, loss = total.sum / (double)total.supervised;
        *out = (graft_eval_result){.loss = loss,
                                   .perplexity = exp(loss),
                                   .rows = total.rows,
                                   .tokens = total.tokens,
                                   .supervised_tokens = total.supervised,
                                   .seconds = seconds,
                                   .tokens_per_second = (double)total.tokens / seconds,
                                   .peak_memory_bytes = peak_memory_bytes()};
        profile_take(&out->profile, &o, seconds);
    }
    dataset_close(&data);
    opened_close(&o);
    return status;
}
