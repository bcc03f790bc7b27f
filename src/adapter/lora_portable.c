/* An adapter whose start changed the base, as plain LoRA on the untouched base: s B A - s B0 A0 =
 * s' [B, -B0] [A; A0], of twice the rank (PEFT's save_pretrained with
 * path_initial_model_for_weight_conversion). */
#include "adapter/lora.h"
#include "adapter/methods.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The scale alpha / r stays, or alpha / sqrt(r). */
static graft_status plain_config(adapter_config *out, const adapter_config *from,
                                 graft_error *err) {
    graft_status status = adapter_config_copy(out, from, err);
    if (status != GRAFT_OK)
        return status;
    double grown = from->use_rslora ? sqrt(2) : 2;
    out->r *= 2;
    out->lora_alpha *= grown;
    for (size_t i = 0; i < out->n_rank_pattern; i++)
        out->rank_pattern[i].value *= 2;
    for (size_t i = 0; i < out->n_alpha_pattern; i++)
        out->alpha_pattern[i].value *= grown;
    out->init = LORA_INIT_DEFAULT;
    *out->init_name = '\0';
    return GRAFT_OK;
}

/* A' [2 r, in]: the start's rows follow (on an embedding, which has no start, zeros). */
static void join_a(const lora_layer *from, const lora_layer *to, backend *dev) {
    dev->ops->copy(dev, to->a->value, from->a->value, from->a->count);
    device_array *rest = array_at(dev, to->a->value, from->a->count);
    if (from->start_a)
        dev->ops->copy(dev, rest, from->start_a->value, from->a->count);
    else
        dev->ops->fill(dev, rest, 0, from->a->count);
}

/* B' [out, 2 r] */
static graft_status join_b(const lora_layer *from, const lora_layer *to, backend *dev,
                           graft_error *err) {
    const int64_t rank = from->rank, n = from->out * rank;
    double *b = mem_array((size_t)n, sizeof *b), *start = mem_array((size_t)n, sizeof *start);
    double *joined = mem_array((size_t)(2 * n), sizeof *joined);
    graft_status status =
        b && start && joined ? GRAFT_OK : error_memory(err, (size_t)n * sizeof *b, "an adapter");
    if (status == GRAFT_OK) {
        dev->ops->download_f64(dev, b, from->b->value, n);
        if (from->start_b)
            dev->ops->download_f64(dev, start, from->start_b->value, n);
        for (int64_t i = 0; i < n; i++) {
            joined[i / rank * 2 * rank + i % rank] = b[i];
            joined[i / rank * 2 * rank + rank + i % rank] = -start[i];
        }
        dev->ops->upload(dev, to->b->value, joined, DTYPE_F64, 2 * n);
    }
    free(b);
    free(start);
    free(joined);
    return status;
}

/* What is no factor: magnitudes, freed parameters, token rows. */
static void copy_others(const adapter *from, const adapter *to, backend *dev) {
    for (size_t i = 0, j = 0; i < from->n_tensors; i++) {
        const adapter_tensor *t = &from->tensors[i];
        if (t->is_rebuilt)
            continue;
        const adapter_tensor *same = &to->tensors[j++]; /* both are sorted by the same keys */
        if (same->count == t->count)
            dev->ops->copy(dev, same->value, t->value, t->count);
    }
}

static graft_status fill_and_save(const adapter *from, adapter *to, backend *dev,
                                  const weight_source *weights, const char *folder,
                                  const char *base_name, graft_error *err) {
    const lora_state *ours = lora_state_of(from), *theirs = lora_state_of(to);
    graft_status status = GRAFT_OK;
    copy_others(from, to, dev);
    for (size_t i = 0; i < ours->n_layers && status == GRAFT_OK; i++) {
        join_a(&ours->layers[i], &theirs->layers[i], dev);
        status = join_b(&ours->layers[i], &theirs->layers[i], dev, err);
    }
    return status == GRAFT_OK ? peft_save(to, dev, weights, folder, base_name, err) : status;
}

graft_status lora_save_portable(const adapter *from, backend *dev, const weight_source *weights,
                                const char *folder, const char *base_name, graft_error *err) {
    adapter_config config = {0};
    adapter *plain = NULL;
    void *memory = NULL;
    graft_status status = plain_config(&config, &from->config, err);
    if (status == GRAFT_OK)
        status = adapter_create(&plain, &config, from->spec, from->job, NULL, err);
    if (status == GRAFT_OK) {
        layout counted = layout_counting();
        adapter_layout(plain, &counted, dev->element_bytes, false);
        memory = dev->ops->alloc(dev, counted.high_water);
        layout assigned = layout_over(memory, counted.high_water);
        if (memory)
            adapter_layout(plain, &assigned, dev->element_bytes, false);
        else
            status = error_memory(err, counted.high_water, "the adapter as plain LoRA");
    }
    if (status == GRAFT_OK)
        status = fill_and_save(from, plain, dev, weights, folder, base_name, err);
    if (memory)
        dev->ops->release(dev, memory);
    adapter_destroy(&plain);
    adapter_config_free(&config);
    return status;
}
