#include "plan/estimate.h"

#include "base/memory.h"
#include "plan/rates.h"

enum {
    TOKENS_MAX = 512, /* of a measured product: beyond it the rate hardly changes */
    WIDTH_MAX = 2048  /* likewise, of a weight */
};

static const double SECONDS = 0.06; /* of one measurement */

static int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Share of the trained elements that are weights of the base: their gradients are wide products. */
static double freed_share(const adapter *a) {
    int64_t freed = 0, all = adapter_trained_count(a);
    for (size_t i = 0; i < a->n_tensors; i++)
        freed += a->tensors[i].role == ROLE_FREED ? a->tensors[i].count : 0;
    return all > 0 ? (double)freed / (double)all : 0;
}

/* A rate is 0 where there was no memory to measure it. */
static graft_status measure_rates(time_estimate *t, backend *dev, const model_spec *spec,
                                  const adapter *a, const step_cost *cost, graft_error *err) {
    int64_t batches = cost->micro_batches > 0 ? cost->micro_batches : 1;
    int64_t rows = cost->rows > 0 ? cost->rows : 1;
    int32_t row_tokens = (int32_t)at_most((cost->tokens + rows - 1) / rows, TOKENS_MAX);
    product_shape wide = {.tokens =
                              (int32_t)at_most((cost->tokens + batches - 1) / batches, TOKENS_MAX),
                          .in = at_most(spec->hidden, WIDTH_MAX),
                          .out = at_most(spec->intermediate, WIDTH_MAX),
                          .type = spec->stored};
    product_shape thin = wide;
    thin.type = DTYPE_F32;
    thin.out = a->config.r > 0 ? at_most(a->config.r, WIDTH_MAX) : 8;
    const attention_call heads = {.n_heads = spec->n_heads,
                                  .n_kv_heads = spec->n_kv_heads,
                                  .head_dim = spec->head_dim,
                                  .scale = 0.125f};
    t->product_fwd = rate_product(dev, &wide, false, SECONDS);
    t->product_bwd = rate_product(dev, &wide, true, SECONDS);
    t->thin = rate_product(dev, &thin, false, SECONDS);
    t->attention_fwd = rate_attention(dev, &heads, row_tokens, false, SECONDS);
    t->attention_bwd = rate_attention(dev, &heads, row_tokens, true, SECONDS);
    t->copy = rate_copy(dev, SECONDS);
    bool has_all = t->product_fwd > 0 && t->product_bwd > 0 && t->thin > 0 &&
                   t->attention_fwd > 0 && t->attention_bwd > 0 && t->copy > 0;
    size_t bytes = (size_t)wide.in * (size_t)wide.out * dtype_bytes(wide.type);
    return has_all ? GRAFT_OK : error_memory(err, bytes, "measuring this machine");
}

static double seconds_of(double amount, double rate) {
    return amount > 0 && rate > 0 ? amount / rate : 0;
}

graft_status time_estimate_measure(time_estimate *t, backend *dev, const model_spec *spec,
                                   const adapter *a, const step_cost *cost, graft_error *err) {
    *t = (time_estimate){0};
    graft_status status = measure_rates(t, dev, spec, a, cost, err);
    if (status != GRAFT_OK)
        return status;
    double trained = cost->forward.trained + cost->backward.trained + cost->recompute.trained;
    double wide = freed_share(a);
    double seconds =
        seconds_of(cost->forward.frozen + cost->recompute.frozen, t->product_fwd) +
        seconds_of(cost->backward.frozen, t->product_bwd) +
        seconds_of(trained * wide, t->product_bwd) + seconds_of(trained * (1 - wide), t->thin) +
        seconds_of(cost->forward.attention + cost->recompute.attention, t->attention_fwd) +
        seconds_of(cost->backward.attention, t->attention_bwd) +
        seconds_of(cost->moved_bytes, t->copy);
    t->step_s = cost->steps > 0 ? seconds / (double)cost->steps : 0;
    t->tokens_per_second = seconds > 0 ? (double)cost->tokens / seconds : 0;
    return GRAFT_OK;
}
