/* Routing is a small part of a mixture's work: plain loops, tokens side by side. */
#include "backend/cpu/cpu_backend.h"

#include <assert.h>
#include <math.h>

/* One token: scores that are compared, and the experts that take part. */
typedef struct contest {
    float scores[ROUTER_EXPERTS_MAX];
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

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static void choose(int32_t *choice, const float *logits, const route_call *call) {
    contest c = {0};
    const float *correction = cpu_array_const(call->correction);
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
static void shares_of(float *shares, const float *logits, const int32_t *choice,
                      const route_call *call) {
    float largest = -INFINITY, total = 0;
    bool is_taken[ROUTER_EXPERTS_MAX] = {0};
    for (int32_t i = 0; i < call->n_chosen; i++)
        is_taken[choice[i]] = true;
    for (int32_t e = 0; e < call->n_experts; e++) {
        is_taken[e] = is_taken[e] || call->kind != ROUTER_SOFTMAX_CHOSEN;
        if (is_taken[e])
            largest = fmaxf(largest, logits[e]);
    }
    for (int32_t e = 0; e < call->n_experts; e++) {
        bool is_sigmoid = call->kind == ROUTER_SIGMOID;
        shares[e] = !is_taken[e]  ? 0
                    : is_sigmoid ? sigmoid(logits[e])
                                 : expf(logits[e] - largest);
        total += shares[e];
    }
    for (int32_t e = 0; call->kind != ROUTER_SIGMOID && e < call->n_experts; e++)
        shares[e] /= total;
}

/* What the chosen shares are divided by. */
static float divisor_of(const float *shares, const int32_t *choice, const route_call *call) {
    float sum = 0;
    for (int32_t i = 0; i < call->n_chosen; i++)
        sum += shares[choice[i]];
    if (!call->normalises)
        return 1;
    return call->kind == ROUTER_SIGMOID ? sum + 1e-20f : sum;
}

static void token_fwd(float *weights, int32_t *choice, const float *logits,
                      const route_call *call) {
    float shares[ROUTER_EXPERTS_MAX];
    choose(choice, logits, call);
    shares_of(shares, logits, choice, call);
    float divisor = divisor_of(shares, choice, call);
    for (int32_t i = 0; i < call->n_chosen; i++)
        weights[i] = shares[choice[i]] / divisor * call->scale;
}

/* weights = scale share / divisor; the softmax's backward is p (d - sum of p d). */
static void token_bwd(float *d_logits, const float *d_weights, const float *logits,
                      const int32_t *choice, const route_call *call) {
    float shares[ROUTER_EXPERTS_MAX], projection = 0;
    shares_of(shares, logits, choice, call);
    float divisor = divisor_of(shares, choice, call), scale = call->scale;
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

typedef struct route_context {
    const route_call *call;
    float *weights, *d_logits;
    int32_t *choice;
    const float *logits, *d_weights;
    const int32_t *chosen;
    pieces tokens;
} route_context;

static void route_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const route_context *c = context;
    int32_t k = c->call->n_chosen, experts = c->call->n_experts;
    for (int64_t t = piece_begin(&c->tokens, i); t < piece_end(&c->tokens, i); t++)
        token_fwd(c->weights + t * k, c->choice + t * k, c->logits + t * experts, c->call);
}

void cpu_route_fwd(backend *dev, device_array *weights, int32_t *choice, const device_array *logits,
                   const route_call *call, int64_t n) {
    assert(call->n_experts <= ROUTER_EXPERTS_MAX);
    route_context c = {.call = call,
                       .weights = cpu_array(weights),
                       .choice = choice,
                       .logits = cpu_array_const(logits),
                       .tokens = pieces_of_rows(n, (int64_t)call->n_experts * call->n_chosen)};
    cpu_run_tasks(cpu_of(dev), c.tokens.count, route_task, &c);
}

static void route_bwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const route_context *c = context;
    int32_t k = c->call->n_chosen, experts = c->call->n_experts;
    for (int64_t t = piece_begin(&c->tokens, i); t < piece_end(&c->tokens, i); t++)
        token_bwd(c->d_logits + t * experts, c->d_weights + t * k, c->logits + t * experts,
                  c->chosen + t * k, c->call);
}

void cpu_route_bwd(backend *dev, device_array *d_logits, const device_array *d_weights,
                   const device_array *logits, const int32_t *choice, const route_call *call,
                   int64_t n) {
    route_context c = {.call = call,
                       .d_logits = cpu_array(d_logits),
                       .d_weights = cpu_array_const(d_weights),
                       .logits = cpu_array_const(logits),
                       .chosen = choice,
                       .tokens = pieces_of_rows(n, call->n_experts)};
    cpu_run_tasks(cpu_of(dev), c.tokens.count, route_bwd_task, &c);
}
