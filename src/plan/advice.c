#include "plan/advice.h"

#include <stdio.h>
#include <string.h>

enum {
    LONG_ROW = 512,
    LORA_RANK = 8 /* of the LoRA that full fine-tuning is compared with */
};

/* A fine-tune that differs from the one asked for. */
typedef struct variant {
    checkpointing_mode checkpointing;
    int32_t max_length; /* 0: as it is */
    int32_t rank;       /* 0: as it is */
    bool default_targets, lora;
} variant;

static graft_status variant_config(adapter_config *out, const advice_request *r, const variant *v,
                                   graft_error *err) {
    if (v->lora)
        return adapter_config_default(out, "lora", err);
    graft_status status = adapter_config_copy(out, r->adapter, err);
    if (status == GRAFT_OK && v->rank > 0)
        out->r = v->rank;
    if (status == GRAFT_OK && v->default_targets)
        text_list_free(&out->target_modules);
    return status;
}

/* Lays the variant out; *total 0: it does not fit. A variant that no adapter can have does not fit
 * either. */
static graft_status lay_out(size_t *total, const advice_request *r, const variant *v,
                            graft_error *err) {
    adapter_config config = {0};
    adapter *changed = NULL;
    train_config train = *r->config;
    data_shape data = r->data;
    memory_plan plan = {0};
    *total = 0;
    train.checkpointing = v->checkpointing;
    train.memory_limit_bytes = (int64_t)r->limit_bytes;
    if (v->max_length > 0 && data.longest_row > v->max_length)
        data.longest_row = v->max_length;
    if (v->max_length > 0 && data.longest_trained > v->max_length)
        data.longest_trained = v->max_length;
    graft_error reason = {0};
    graft_status status = variant_config(&config, r, v, &reason);
    if (status == GRAFT_OK)
        status = adapter_create(&changed, &config, r->spec, 0, NULL, &reason);
    if (status == GRAFT_OK)
        status = train_plan(&plan, r->spec, changed, &train, data, r->n_threads, r->mapped_bytes,
                            &reason);
    adapter_destroy(&changed);
    adapter_config_free(&config);
    if (status == GRAFT_OK)
        *total = plan.total;
    bool is_answer = status == GRAFT_OK || status == GRAFT_E_INPUT || status == GRAFT_E_USAGE ||
                     (status == GRAFT_E_MEMORY && plan.total > r->limit_bytes);
    if (!is_answer && err)
        *err = reason;
    return is_answer ? GRAFT_OK : status;
}

/* What max_length is lowered to is a multiple of it. */
static int32_t length_step(const advice_request *r) {
    return r->data.longest_row >= LONG_ROW ? 64 : 8;
}

/* The largest value of *field, in steps below `from`, with which it fits; 0: none. */
static graft_status largest(size_t *total, const advice_request *r, variant *v, int32_t *field,
                            int32_t from, int32_t step, graft_error *err) {
    int32_t low = 0, high = (from - 1) / step; /* low fits, or is 0 */
    *total = 0;
    while (low < high) {
        int32_t middle = low + (high - low + 1) / 2;
        size_t bytes;
        *field = middle * step;
        graft_status status = lay_out(&bytes, r, v, err);
        if (status != GRAFT_OK)
            return status;
        if (bytes > 0) {
            low = middle;
            *total = bytes;
        } else {
            high = middle - 1;
        }
    }
    *field = low * step;
    return GRAFT_OK;
}

static void add(advice *out, int *n, const char *text, size_t total) {
    if (total == 0 || *n == ADVICE_MAX)
        return;
    snprintf(out[*n].change, sizeof out[*n].change, "%s", text);
    out[(*n)++].total = total;
}

/* What stands as it is in every variant. */
static variant unchanged(const advice_request *r) {
    return (variant){.checkpointing = r->config->checkpointing};
}

static bool is_full(const advice_request *r) {
    return !strcmp(r->adapter->method, "full");
}

/* Changes of one setting that is either there or not. */
static graft_status add_switches(advice *out, int *n, const advice_request *r, graft_error *err) {
    size_t total = 0;
    graft_status status = GRAFT_OK;
    variant v = unchanged(r);
    if (v.checkpointing == CHECKPOINTING_OFF) {
        v.checkpointing = CHECKPOINTING_AUTO;
        status = lay_out(&total, r, &v, err);
        add(out, n, "--gradient-checkpointing auto", total);
    }
    v = unchanged(r);
    v.lora = is_full(r);
    v.default_targets = !v.lora && r->adapter->target_modules.n > 0;
    if (status == GRAFT_OK && (v.lora || v.default_targets)) {
        status = lay_out(&total, r, &v, err);
        add(out, n, v.lora ? "--method lora" : "--target-modules left at its default", total);
    }
    return status;
}

/* Changes of one number. */
static graft_status add_numbers(advice *out, int *n, const advice_request *r, graft_error *err) {
    size_t total;
    char text[64];
    variant v = unchanged(r);
    graft_status status =
        largest(&total, r, &v, &v.max_length, r->data.longest_row, length_step(r), err);
    snprintf(text, sizeof text, "--max-length %d", v.max_length);
    add(out, n, text, total);
    v = unchanged(r);
    if (status == GRAFT_OK && !is_full(r)) {
        status = largest(&total, r, &v, &v.rank, r->adapter->r, 1, err);
        snprintf(text, sizeof text, "-r %d", v.rank);
        add(out, n, text, total);
    }
    return status;
}

/* All of them, with the longest rows that then fit. */
static graft_status add_together(advice *out, int *n, const advice_request *r, graft_error *err) {
    size_t total;
    char text[128];
    variant v = {.checkpointing = CHECKPOINTING_AUTO, .lora = is_full(r)};
    int32_t rank = r->adapter->r < LORA_RANK ? r->adapter->r : LORA_RANK;
    v.rank = v.lora ? 0 : rank;
    graft_status status =
        largest(&total, r, &v, &v.max_length, r->data.longest_row + 1, length_step(r), err);
    snprintf(text, sizeof text, "%s-r %d --gradient-checkpointing auto --max-length %d",
             v.lora ? "--method lora " : "", v.lora ? LORA_RANK : rank, v.max_length);
    add(out, n, text, total);
    return status;
}

graft_status advice_find(advice out[ADVICE_MAX], int *n, const advice_request *r,
                         graft_error *err) {
    *n = 0;
    graft_status status = add_switches(out, n, r, err);
    if (status == GRAFT_OK)
        status = add_numbers(out, n, r, err);
    if (status == GRAFT_OK && *n == 0)
        status = add_together(out, n, r, err);
    return status;
}
