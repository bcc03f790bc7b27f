#include "model/experts.h"

/* ---- Rows by expert ---- */

/* Fills scratch.grouping from the layer's choice. Rows of an expert are in the tokens' order; its
 * grid cuts them where the tokens' grid does. */
static void group_rows(const block_pass *p) {
    const expert_grouping *to = &p->scratch->grouping;
    const int32_t experts = p->spec->n_experts, k = p->spec->router.n_chosen;
    const int32_t *choice = p->saved->choice;
    for (int32_t e = 0; e <= experts; e++)
        to->begin[e] = 0;
    for (int64_t i = 0; i < p->n * k; i++)
        to->begin[choice[i] + 1]++;
    for (int32_t e = 0; e < experts; e++) {
        to->begin[e + 1] += to->begin[e];
        to->next[e] = to->begin[e];
    }
    for (int32_t t = 0; t < p->n; t++)
        for (int32_t j = 0; j < k; j++) {
            int32_t row = to->next[choice[t * k + j]]++;
            to->token[row] = t;
            to->assignment[row] = t * k + j;
            to->dropout_counter[row] =
                p->tokens->dropout_counter ? p->tokens->dropout_counter[t] : 0;
        }
}

/* One expert's rows as tokens. Grid and jobs are written where the next expert's will be: they hold
 * until then. */
static token_rows expert_rows(const block_pass *p, int32_t expert) {
    const expert_grouping *g = &p->scratch->grouping;
    int32_t begin = g->begin[expert], end = g->begin[expert + 1], n_grid = 0, row = begin;
    token_rows rows = *p->tokens;
    g->grid[0] = 0;
    for (int32_t block = 0; block < p->tokens->n_grid; block++) {
        int32_t before = row;
        while (row < end && g->token[row] < p->tokens->grid[block + 1])
            row++;
        if (row > before)
            g->grid[++n_grid] = row - begin;
    }
    row = begin;
    for (int32_t job = 0; job <= p->tokens->n_jobs; job++) {
        while (row < end && g->token[row] < p->tokens->job_begin[job])
            row++;
        g->job_begin[job] = row - begin;
    }
    rows.n = end - begin;
    rows.grid = g->grid;
    rows.n_grid = n_grid;
    rows.job_begin = g->job_begin;
    rows.dropout_counter = g->dropout_counter + begin;
    return rows;
}

/* ---- An expert's linear layers ---- */

static int32_t ranks_of(const block_pass *p, expert_slot slot) {
    return layer_expert_ranks(p->hooks, p->spec, slot);
}

static hooked_linear expert_linear(const block_pass *p, int32_t expert, expert_slot slot,
                                   int32_t ranks) {
    int32_t at = expert * N_EXPERT_SLOTS + (int32_t)slot;
    const linear_hook *hook = &p->hooks->experts[at];
    const freed_parameter *stack = &p->hooks->expert_stack[slot];
    const freed_parameter *bias_stack = &p->hooks->expert_stack_bias[slot];
    weight_ref weight = p->weights->experts[at];
    int64_t elements = weight.rows * weight.cols, first = expert * elements;
    hooked_linear linear = {.dev = p->dev, .hook = hook, .scratch = p->scratch->linear};
    const device_array *bias = p->weights->expert_bias[slot];
    if (bias)
        bias = array_at_const(p->dev, bias, expert * weight.rows);
    linear.call = linear_hooked(p->dev, &weight, bias, hook);
    if (stack->is_freed) {
        linear.call.weight.data = array_at_const(p->dev, stack->value, first);
        linear.call.weight.type = p->dev->element;
        linear.call.weight.row_stride = weight.is_transposed ? weight.rows : weight.cols;
        linear.call.is_exact = true;
        if (stack->gradient)
            linear.call.d_weight = array_at(p->dev, stack->gradient, first);
    }
    if (bias_stack->is_freed) {
        linear.call.bias = array_at_const(p->dev, bias_stack->value, expert * weight.rows);
        if (bias_stack->gradient)
            linear.call.d_bias = array_at(p->dev, bias_stack->gradient, expert * weight.rows);
    }
    if (ranks)
        linear.xa = array_at(p->dev, p->saved->expert_xa[slot],
                             (int64_t)p->scratch->grouping.begin[expert] * ranks);
    return linear;
}

static bool has_expert_slot(const block_pass *p, expert_slot slot) {
    return p->spec->family->expert_names[slot] != NULL;
}

/* y rows (+)= the slot of x rows, expert by expert. */
static void expert_forward(const block_pass *p, expert_slot slot, device_array *y,
                           const device_array *x) {
    int32_t ranks = ranks_of(p, slot);
    for (int32_t e = 0; e < p->spec->n_experts; e++) {
        token_rows rows = expert_rows(p, e);
        int64_t begin = p->scratch->grouping.begin[e];
        if (rows.n == 0)
            continue;
        hooked_linear linear = expert_linear(p, e, slot, ranks);
        if (slot == EXPERT_DOWN) /* added with the tokens' weights */
            linear.call.bias = NULL;
        hooked_linear_fwd(&linear, array_at(p->dev, y, begin * linear.call.weight.rows),
                          array_at_const(p->dev, x, begin * linear.call.weight.cols), false, &rows,
                          p->batch);
    }
}

static void expert_backward(const block_pass *p, expert_slot slot, device_array *dx,
                            const device_array *dy, const device_array *x, bool add) {
    int32_t ranks = ranks_of(p, slot);
    for (int32_t e = 0; e < p->spec->n_experts; e++) {
        token_rows rows = expert_rows(p, e);
        int64_t begin = p->scratch->grouping.begin[e];
        if (rows.n == 0)
            continue;
        hooked_linear linear = expert_linear(p, e, slot, ranks);
        int64_t out = linear.call.weight.rows, in = linear.call.weight.cols;
        if (slot == EXPERT_DOWN)
            linear.call.d_bias = NULL;
        hooked_linear_bwd(&linear, dx ? array_at(p->dev, dx, begin * in) : NULL,
                          array_at_const(p->dev, dy, begin * out),
                          array_at_const(p->dev, x, begin * in), add, &rows, p->batch);
    }
}

/* ---- The last product's bias: each row's times its token's weight ---- */

static matrix column(const block_pass *p, const device_array *x, int64_t first, bool is_row) {
    return (matrix){.data = array_at_const(p->dev, x, first), .stride = 1, .is_transposed = is_row};
}

/* rows += weights b */
static void bias_forward(const block_pass *p, device_array *rows_out) {
    const int64_t hidden = p->spec->hidden;
    for (int32_t e = 0; e < p->spec->n_experts; e++) {
        const hooked_linear linear = expert_linear(p, e, EXPERT_DOWN, 0);
        int64_t begin = p->scratch->grouping.begin[e];
        matmul_call call = {.c = array_at(p->dev, rows_out, begin * hidden),
                            .c_stride = hidden,
                            .rows = p->scratch->grouping.begin[e + 1] - begin,
                            .cols = hidden,
                            .k = 1,
                            .a = column(p, p->scratch->row_weights, begin, false),
                            .b = {.data = linear.call.bias, .stride = hidden},
                            .scale = 1,
                            .add = true};
        if (linear.call.bias && call.rows > 0)
            p->ops->matmul(p->dev, &call);
    }
}

/* db += sum of weights dy, and d_weights += dy b */
static void bias_backward(const block_pass *p, const device_array *d_rows) {
    const int64_t hidden = p->spec->hidden;
    for (int32_t e = 0; e < p->spec->n_experts; e++) {
        const hooked_linear linear = expert_linear(p, e, EXPERT_DOWN, 0);
        token_rows rows = expert_rows(p, e);
        int64_t begin = p->scratch->grouping.begin[e];
        const device_array *dy = array_at_const(p->dev, d_rows, begin * hidden);
        if (!linear.call.bias || rows.n == 0)
            continue;
        matmul_call to_weights = {.c = array_at(p->dev, p->scratch->d_row_weights, begin),
                                  .c_stride = 1,
                                  .rows = rows.n,
                                  .cols = 1,
                                  .k = hidden,
                                  .a = {.data = dy, .stride = hidden},
                                  .b = {.data = linear.call.bias, .stride = 1},
                                  .scale = 1,
                                  .add = true};
        p->ops->matmul(p->dev, &to_weights);
        matmul_call to_bias = {.c = linear.call.d_bias,
                               .c_stride = hidden,
                               .rows = 1,
                               .cols = hidden,
                               .k = rows.n,
                               .a = column(p, p->scratch->row_weights, begin, true),
                               .b = {.data = dy, .stride = hidden},
                               .scale = 1,
                               .add = true,
                               .tokens = &rows};
        if (linear.call.d_bias)
            p->ops->matmul(p->dev, &to_bias);
    }
}

/* ---- Forward ---- */

static int64_t row_count(const block_pass *p) {
    return p->n * p->spec->router.n_chosen;
}

static void linear_forward(const block_pass *p, linear_slot slot, device_array *y,
                           const device_array *x, bool add) {
    hooked_linear linear = block_linear(p, slot);
    hooked_linear_fwd(&linear, y, x, add, p->tokens, p->batch);
}

static route_call route_of(const block_pass *p) {
    route_call call = p->spec->router;
    call.correction = p->weights->router_correction;
    return call;
}

static gate_call expert_gate(const block_pass *p) {
    return (gate_call){
        .kind = p->spec->activation, .alpha = p->spec->gate_alpha, .limit = p->spec->gate_limit};
}

/* Rows of gate and up in turn, apart, or (is_merge) together. */
static void split_gate_up(const block_pass *p, device_array *gate, device_array *up,
                          bool is_merge) {
    int64_t width = p->spec->expert_intermediate;
    block_places apart = {.row = width, .step = 1}, together = {.row = 2 * width, .step = 2};
    device_array *parts[2] = {gate, up};
    for (int i = 0; i < 2; i++) {
        device_array *there = array_at(p->dev, p->scratch->expert_fused, i);
        p->ops->copy_blocks(p->dev, is_merge ? there : parts[i], is_merge ? together : apart,
                            is_merge ? parts[i] : there, is_merge ? apart : together, row_count(p),
                            width, 1, false);
    }
}

void experts_front(const block_pass *p, const device_array *input) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    const route_call route = route_of(p);
    linear_forward(p, LINEAR_ROUTER, s->router_logits, input, false);
    p->ops->route_fwd(p->dev, s->route_weights, s->choice, s->router_logits, &route, p->n);
    group_rows(p);
    p->ops->gather_rows(p->dev, scratch->expert_rows, input, scratch->grouping.token, row_count(p),
                        p->spec->hidden);
    if (has_expert_slot(p, EXPERT_GATE_UP)) {
        expert_forward(p, EXPERT_GATE_UP, scratch->expert_fused, scratch->expert_rows);
        split_gate_up(p, s->expert_gate, s->expert_up, false);
    } else {
        expert_forward(p, EXPERT_GATE, s->expert_gate, scratch->expert_rows);
        expert_forward(p, EXPERT_UP, s->expert_up, scratch->expert_rows);
    }
    if (!p->spec->has_linear[LINEAR_SHARED_DOWN])
        return;
    linear_forward(p, LINEAR_SHARED_GATE, s->shared_gate, input, false);
    linear_forward(p, LINEAR_SHARED_UP, s->shared_up, input, false);
    if (p->spec->has_linear[LINEAR_SHARED_SCALE])
        linear_forward(p, LINEAR_SHARED_SCALE, s->shared_scale, input, false);
}

/* act(gate) * up of all rows, times their tokens' weights where is_weighted. */
static void rows_gated(const block_pass *p, bool is_weighted) {
    const block_scratch *scratch = p->scratch;
    const gate_call gate = expert_gate(p);
    int64_t rows = row_count(p), width = p->spec->expert_intermediate;
    p->ops->gated_fwd(p->dev, scratch->expert_h, p->saved->expert_gate, p->saved->expert_up, &gate,
                      rows * width);
    if (is_weighted)
        p->ops->scale_rows(p->dev, scratch->expert_h, scratch->expert_h, scratch->row_weights, rows,
                           width, false);
}

static void shared_gated(const block_pass *p, bool is_scaled) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    const gate_call gate = {.kind = p->spec->activation};
    int64_t width = p->spec->shared_intermediate;
    p->ops->gated_fwd(p->dev, scratch->shared_h, s->shared_gate, s->shared_up, &gate, p->n * width);
    if (!is_scaled || !p->spec->has_linear[LINEAR_SHARED_SCALE])
        return;
    p->ops->activation_fwd(p->dev, scratch->shared_share, s->shared_scale, ACTIVATION_SIGMOID,
                           p->n);
    p->ops->scale_rows(p->dev, scratch->shared_h, scratch->shared_h, scratch->shared_share, p->n,
                       width, false);
}

static void gather_weights(const block_pass *p) {
    p->ops->gather_rows(p->dev, p->scratch->row_weights, p->saved->route_weights,
                        p->scratch->grouping.assignment, row_count(p), 1);
}

void experts_down(const block_pass *p, device_array *y, bool add) {
    const block_scratch *scratch = p->scratch;
    gather_weights(p);
    rows_gated(p, true);
    expert_forward(p, EXPERT_DOWN, scratch->expert_rows, scratch->expert_h);
    bias_forward(p, scratch->expert_rows);
    if (!add)
        p->ops->fill(p->dev, y, 0, p->n * p->spec->hidden);
    p->ops->scatter_add_rows(p->dev, y, scratch->expert_rows, scratch->grouping.token, row_count(p),
                             p->spec->hidden);
    if (!p->spec->has_linear[LINEAR_SHARED_DOWN])
        return;
    shared_gated(p, true);
    linear_forward(p, LINEAR_SHARED_DOWN, y, scratch->shared_h, true);
}

/* ---- Backward ---- */

static bool slot_trains(const block_pass *p, linear_slot slot) {
    hooked_linear linear = block_linear(p, slot);
    return p->spec->has_linear[slot] && hooked_linear_trains(&linear);
}

static bool slot_needs_input(const block_pass *p, linear_slot slot) {
    hooked_linear linear = block_linear(p, slot);
    return p->spec->has_linear[slot] && hooked_linear_needs_input(&linear, p->tokens);
}

/* Whether some expert's slot trains, or (is_input) reads its input in backward. */
static bool any_expert(const block_pass *p, expert_slot slot, bool is_input) {
    if (!has_expert_slot(p, slot))
        return false;
    for (int32_t e = 0; e < p->spec->n_experts; e++) {
        const hooked_linear linear = expert_linear(p, e, slot, 0);
        if (is_input ? hooked_linear_needs_input(&linear, p->tokens)
                     : hooked_linear_trains(&linear))
            return true;
    }
    return false;
}

bool experts_train(const block_pass *p) {
    for (int slot = LINEAR_ROUTER; slot < N_LINEAR_SLOTS; slot++)
        if (slot_trains(p, (linear_slot)slot))
            return true;
    for (int slot = 0; slot < N_EXPERT_SLOTS; slot++)
        if (any_expert(p, (expert_slot)slot, false))
            return true;
    return false;
}

static bool front_needs_rows(const block_pass *p) {
    return any_expert(p, EXPERT_GATE, true) || any_expert(p, EXPERT_UP, true) ||
           any_expert(p, EXPERT_GATE_UP, true);
}

bool experts_need_input(const block_pass *p) {
    return slot_needs_input(p, LINEAR_ROUTER) || slot_needs_input(p, LINEAR_SHARED_GATE) ||
           slot_needs_input(p, LINEAR_SHARED_UP) || slot_needs_input(p, LINEAR_SHARED_SCALE) ||
           front_needs_rows(p);
}

static void linear_backward(const block_pass *p, linear_slot slot, device_array *dx,
                            const device_array *dy, const device_array *x, bool add) {
    hooked_linear linear = block_linear(p, slot);
    hooked_linear_bwd(&linear, dx, dy, x, add, p->tokens, p->batch);
}

/* dy at the last products -> gradients of gate, up and of the tokens' weights. */
static void down_backward(const block_pass *p) {
    const block_scratch *scratch = p->scratch;
    const gate_call gate = expert_gate(p);
    int64_t rows = row_count(p), width = p->spec->expert_intermediate;
    rows_gated(p, true);
    expert_backward(p, EXPERT_DOWN, scratch->expert_dh, scratch->d_expert_rows, scratch->expert_h,
                    false);
    rows_gated(p, false);
    p->ops->sum_rows(p->dev, scratch->d_row_weights, scratch->expert_dh, scratch->expert_h, rows,
                     width, false);
    bias_backward(p, scratch->d_expert_rows);
    p->ops->scatter_rows(p->dev, scratch->d_route_weights, scratch->d_row_weights,
                         scratch->grouping.assignment, rows, 1);
    p->ops->scale_rows(p->dev, scratch->expert_dh, scratch->expert_dh, scratch->row_weights, rows,
                       width, false);
    p->ops->gated_bwd(p->dev, scratch->expert_h, scratch->expert_dh, scratch->expert_dh,
                      p->saved->expert_gate, p->saved->expert_up, &gate, rows * width);
}

/* d_expert_rows is free again: it becomes the gradient of the gathered input. */
static void front_backward(const block_pass *p, device_array *d_input, bool add,
                           const device_array *input) {
    const block_scratch *scratch = p->scratch;
    device_array *d_rows = d_input ? scratch->d_expert_rows : NULL;
    int64_t rows = row_count(p), hidden = p->spec->hidden;
    if (front_needs_rows(p))
        p->ops->gather_rows(p->dev, scratch->expert_rows, input, scratch->grouping.token, rows,
                            hidden);
    if (has_expert_slot(p, EXPERT_GATE_UP)) {
        split_gate_up(p, scratch->expert_h, scratch->expert_dh, true);
        expert_backward(p, EXPERT_GATE_UP, d_rows, scratch->expert_fused, scratch->expert_rows,
                        false);
    } else {
        expert_backward(p, EXPERT_GATE, d_rows, scratch->expert_h, scratch->expert_rows, false);
        expert_backward(p, EXPERT_UP, d_rows, scratch->expert_dh, scratch->expert_rows, true);
    }
    if (!d_input)
        return;
    if (!add)
        p->ops->fill(p->dev, d_input, 0, p->n * hidden);
    p->ops->scatter_add_rows(p->dev, d_input, d_rows, scratch->grouping.token, rows, hidden);
}

static void router_backward(const block_pass *p, device_array *d_input, const device_array *input) {
    const block_scratch *scratch = p->scratch;
    const route_call route = route_of(p);
    p->ops->route_bwd(p->dev, scratch->d_router_logits, scratch->d_route_weights,
                      p->saved->router_logits, p->saved->choice, &route, p->n);
    linear_backward(p, LINEAR_ROUTER, d_input, scratch->d_router_logits, input, true);
}

static void shared_down_backward(const block_pass *p, const device_array *dy) {
    shared_gated(p, true);
    linear_backward(p, LINEAR_SHARED_DOWN, p->scratch->shared_dh, dy, p->scratch->shared_h, false);
}

static void shared_front_backward(const block_pass *p, device_array *d_input,
                                  const device_array *input) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    const gate_call gate = {.kind = p->spec->activation};
    int64_t width = p->spec->shared_intermediate;
    if (p->spec->has_linear[LINEAR_SHARED_SCALE]) {
        shared_gated(p, false);
        p->ops->sum_rows(p->dev, scratch->d_shared_scale, scratch->shared_dh, scratch->shared_h,
                         p->n, width, false);
        p->ops->activation_bwd(p->dev, scratch->d_shared_scale, scratch->d_shared_scale,
                               s->shared_scale, ACTIVATION_SIGMOID, p->n);
        linear_backward(p, LINEAR_SHARED_SCALE, d_input, scratch->d_shared_scale, input, true);
        p->ops->scale_rows(p->dev, scratch->shared_dh, scratch->shared_dh, scratch->shared_share,
                           p->n, width, false);
    }
    p->ops->gated_bwd(p->dev, scratch->shared_h, scratch->shared_dh, scratch->shared_dh,
                      s->shared_gate, s->shared_up, &gate, p->n * width);
    linear_backward(p, LINEAR_SHARED_GATE, d_input, scratch->shared_h, input, true);
    linear_backward(p, LINEAR_SHARED_UP, d_input, scratch->shared_dh, input, true);
}

void experts_backward(const block_pass *p, device_array *d_input, bool add, const device_array *dy,
                      const device_array *input) {
    bool is_shared = p->spec->has_linear[LINEAR_SHARED_DOWN];
    group_rows(p);
    gather_weights(p);
    p->ops->gather_rows(p->dev, p->scratch->d_expert_rows, dy, p->scratch->grouping.token,
                        row_count(p), p->spec->hidden);
    if (is_shared)
        shared_down_backward(p, dy);
    down_backward(p);
    front_backward(p, d_input, add, input);
    router_backward(p, d_input, input);
    if (is_shared)
        shared_front_backward(p, d_input, input);
}
