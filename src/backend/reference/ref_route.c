#include "backend/reference/reference.h"

#include <assert.h>
#include <math.h>

/* One token: scores that are compared, and the experts that take part. */
typedef struct contest {
    double scores[ROUTER_EXPERTS_MAX];
    bool is_out[ROUTER_EXPERTS_MAX];
} contest;

static int32_t best_of(const contest *c, int32_t begin, int32_t end) {
    int32_t best = -1;
    for (int32_t e = begin; e < end; e++)
        if (!c->is_out[e] && (best < 0 || c->scores[e] > c->scores[best]))
            best = e;
    return best;
}

/* Leaves the experts of the best groups. */
static void choose_groups(contest *c, const route_call *call) {
    int32_t size = call->n_experts / call->n_groups;
    contest groups = {0};
    for (int32_t g = 0; g < call->n_groups; g++) {
        int32_t first = best_of(c, g * size, (g + 1) * size), second;
        c->is_out[first] = true;
        second = best_of(c, g * size, (g + 1) * size);
        c->is_out[first] = false;
        groups.scores[g] = c->scores[first] + (second < 0 ? 0 : c->scores[second]);
    }
    for (int32_t i = 0; i < call->n_chosen_groups; i++)
        groups.is_out[best_of(&groups, 0, call->n_groups)] = true;
    for (int32_t e = 0; e < call->n_experts; e++)
        c->is_out[e] = !groups.is_out[e / size];
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static void choose(int32_t *choice, const double *logits, const route_call *call) {
    contest c = {0};
    const double *correction = ref_array_const(call->correction);
    for (int32_t e = 0; e < call->n_experts; e++) {
        c.scores[e] = call->kind == ROUTER_SIGMOID ? sigmoid(logits[e]) : logits[e];
        if (call->correction)
            c.scores[e] += correction[e];
    }
    if (call->n_groups > 1)
        choose_groups(&c, call);
    bool is_chosen[ROUTER_EXPERTS_MAX] = {0};
    for (int32_t i = 0; i < call->n_chosen; i++) {
        int32_t best = best_of(&c, 0, call->n_experts);
        is_chosen[best] = c.is_out[best] = true;
    }
    for (int32_t e = 0, i = 0; e < call->n_experts; e++)
        if (is_chosen[e])
            choice[i++] = e;
}

/* What weights are made of, by expert: shares of the softmax, or sigmoids. */
static void shares_of(double *shares, const double *logits, const int32_t *choice,
                      const route_call *call) {
    double largest = -INFINITY, total = 0;
    bool is_taken[ROUTER_EXPERTS_MAX] = {0};
    for (int32_t i = 0; i < call->n_chosen; i++)
        is_taken[choice[i]] = true;
    for (int32_t e = 0; e < call->n_experts; e++) {
        is_taken[e] = is_taken[e] || call->kind != ROUTER_SOFTMAX_CHOSEN;
        if (is_taken[e])
            largest = fmax(largest, logits[e]);
    }
    for (int32_t e = 0; e < call->n_experts; e++) {
        bool is_sigmoid = call->kind == ROUTER_SIGMOID;
        shares[e] = !is_taken[e]  ? 0
                    : is_sigmoid ? sigmoid(logits[e])
                                 : exp(logits[e] - largest);
        total += shares[e];
    }
    for (int32_t e = 0; call->kind != ROUTER_SIGMOID && e < call->n_experts; e++)
        shares[e] /= total;
}

/* What the chosen shares are divided by. */
static double divisor_of(const double *shares, const int32_t *choice, const route_call *call) {
    double sum = 0;
    for (int32_t i = 0; i < call->n_chosen; i++)
        sum += shares[choice[i]];
    if (!call->normalises)
        return 1;
    return call->kind == ROUTER_SIGMOID ? sum + 1e-20 : sum;
}

static void token_fwd(double *weights, int32_t *choice, const double *logits,
                      const route_call *call) {
    double shares[ROUTER_EXPERTS_MAX];
    choose(choice, logits, call);
    shares_of(shares, logits, choice, call);
    double divisor = divisor_of(shares, choice, call);
    for (int32_t i = 0; i < call->n_chosen; i++)
        weights[i] = shares[choice[i]] / divisor * (double)call->scale;
}

/* weights = scale share / divisor; the softmax's backward is p (d - sum of p d). */
static void token_bwd(double *d_logits, const double *d_weights, const double *logits,
                      const int32_t *choice, const route_call *call) {
    double shares[ROUTER_EXPERTS_MAX], projection = 0;
    shares_of(shares, logits, choice, call);
    double divisor = divisor_of(shares, choice, call), scale = (double)call->scale;
    for (int32_t i = 0; call->normalises && i < call->n_chosen; i++)
        projection += d_weights[i] * scale * shares[choice[i]] / divisor;
    for (int32_t e = 0; e < call->n_experts; e++)
        d_logits[e] = 0;
    for (int32_t i = 0; i < call->n_chosen; i++)
        d_logits[choice[i]] = (d_weights[i] * scale - projection) / divisor;
    projection = 0;
    for (int32_t e = 0; call->kind != ROUTER_SIGMOID && e < call->n_experts; e++)
        projection += shares[e] * d_logits[e];
    for (int32_t e = 0; e < call->n_experts; e++)
        d_logits[e] = call->kind == ROUTER_SIGMOID ? d_logits[e] * shares[e] * (1 - shares[e])
                                                   : shares[e] * (d_logits[e] - projection);
}

void ref_route_fwd(backend *dev, device_array *weights, int32_t *choice, const device_array *logits,
                   const route_call *call, int64_t n) {
    (void)dev;
    assert(call->n_experts <= ROUTER_EXPERTS_MAX);
    for (int64_t t = 0; t < n; t++)
        token_fwd(ref_array(weights) + t * call->n_chosen, choice + t * call->n_chosen,
                  ref_array_const(logits) + t * call->n_experts, call);
}

void ref_route_bwd(backend *dev, device_array *d_logits, const device_array *d_weights,
                   const device_array *logits, const int32_t *choice, const route_call *call,
                   int64_t n) {
    (void)dev;
    for (int64_t t = 0; t < n; t++)
        token_bwd(ref_array(d_logits) + t * call->n_experts,
                  ref_array_const(d_weights) + t * call->n_chosen,
                  ref_array_const(logits) + t * call->n_experts, choice + t * call->n_chosen, call);
}
