#include "model/linear_hooked.h"

#include <assert.h>
#include <string.h>

/* Elements of the logits that exist at a time, when nothing else is asked: 64 MiB of f32. */
enum { LOGITS_ELEMENTS = 1 << 24, HEAD_CHUNK_MIN = 64, HEAD_CHUNK_MAX = 256 };

/* What the parts of a layout share. */
typedef struct sizes {
    const model_spec *spec;
    const model_hooks *hooks;
    size_t n, hidden, intermediate, q, k, v, o, heads; /* n: tokens */
    size_t expert_rows;                                /* tokens times experts chosen */
    size_t q_rows, k_rows;                             /* of q's and k's norms */
    size_t element_bytes;
} sizes;

static device_array *take(layout *l, component what, const sizes *s, size_t rows, size_t cols) {
    size_t count;
    if (__builtin_mul_overflow(rows, cols, &count)) {
        l->overflow = true;
        return NULL;
    }
    return count > 0 ? layout_take(l, what, count, s->element_bytes) : NULL;
}

/* Largest number of ranks of a slot's terms in blocks [begin, end). */
static size_t most_ranks(const sizes *s, int slot, int32_t begin, int32_t end) {
    int32_t most = 0;
    for (int32_t layer = begin; layer < end; layer++) {
        int32_t ranks = linear_hook_ranks(&s->hooks->layers[layer].linear[slot]);
        most = ranks > most ? ranks : most;
    }
    return (size_t)most;
}

/* The most that the forms of a slot keep in blocks [begin, end). */
static size_t most_kept(const sizes *s, int slot, int32_t begin, int32_t end) {
    int64_t most = 0;
    for (int32_t layer = begin; layer < end; layer++) {
        const linear_hook *hook = &s->hooks->layers[layer].linear[slot];
        int64_t kept = hook->form
                           ? form_kept_elements(&hook->form->memory, hook->form_self, (int64_t)s->n)
                           : 0;
        most = kept > most ? kept : most;
    }
    return (size_t)most;
}

static size_t most_branch_kept(const sizes *s, int slot, int32_t begin, int32_t end) {
    int64_t most = 0;
    for (int32_t layer = begin; layer < end; layer++) {
        const branch_hook *hook = &s->hooks->layers[layer].branch[slot];
        int64_t kept =
            hook->form ? form_kept_elements(&hook->form->memory, hook->self, (int64_t)s->n) : 0;
        most = kept > most ? kept : most;
    }
    return (size_t)most;
}

static size_t most_expert_ranks(const sizes *s, expert_slot slot, int32_t begin, int32_t end) {
    int32_t most = 0;
    for (int32_t layer = begin; layer < end; layer++) {
        int32_t ranks = layer_expert_ranks(&s->hooks->layers[layer], s->spec, slot);
        most = ranks > most ? ranks : most;
    }
    return (size_t)most;
}

/* What hooks of a slot keep. */
static void hook_layout(block_saved *saved, layout *l, component what, const sizes *s, int slot,
                        int32_t begin, int32_t end) {
    saved->xa[slot] = take(l, what, s, s->n, most_ranks(s, slot, begin, end));
    saved->kept[slot] = take(l, what, s, most_kept(s, slot, begin, end), 1);
}

/* What checkpointing keeps beside x_in: recomputing stops before the down projection. */
static void down_layout(block_saved *saved, layout *l, component what, const sizes *s,
                        bool backward, int32_t begin, int32_t end) {
    const bool *has_norm = s->spec->has_norm;
    saved->mlp_out = take(l, what, s, backward && has_norm[NORM_MLP_OUT] ? s->n : 0, s->hidden);
    saved->x_out = take(l, what, s, backward && has_norm[NORM_MLP_SUM] ? s->n : 0, s->hidden);
    saved->rstd[NORM_MLP_OUT] = take(l, what, s, has_norm[NORM_MLP_OUT] ? s->n : 0, 1);
    saved->rstd[NORM_MLP_SUM] = take(l, what, s, has_norm[NORM_MLP_SUM] ? s->n : 0, 1);
    hook_layout(saved, l, what, s, LINEAR_DOWN, begin, end);
    saved->branch[BRANCH_MLP] = take(l, what, s, most_branch_kept(s, BRANCH_MLP, begin, end), 1);
    hook_layout(saved, l, what, s, LINEAR_SHARED_DOWN, begin, end);
    saved->expert_xa[EXPERT_DOWN] =
        take(l, what, s, s->expert_rows, most_expert_ranks(s, EXPERT_DOWN, begin, end));
}

static bool has_sparse(const sizes *s, int32_t begin, int32_t end, bool is_sparse) {
    for (int32_t layer = begin; layer < end; layer++)
        if (model_layer_is_sparse(s->spec, layer) == is_sparse)
            return true;
    return false;
}

/* What layers with experts keep. */
static void experts_layout(block_saved *saved, layout *l, component what, const sizes *s,
                           int32_t begin, int32_t end) {
    const model_spec *spec = s->spec;
    bool is_there = has_sparse(s, begin, end, true);
    size_t n = is_there ? s->n : 0, rows = is_there ? s->expert_rows : 0;
    size_t shared = (size_t)spec->shared_intermediate;
    saved->router_logits = take(l, what, s, n, (size_t)spec->n_experts);
    saved->route_weights = take(l, what, s, rows, 1);
    saved->expert_gate = take(l, what, s, rows, (size_t)spec->expert_intermediate);
    saved->expert_up = take(l, what, s, rows, (size_t)spec->expert_intermediate);
    saved->shared_gate = take(l, what, s, n, shared);
    saved->shared_up = take(l, what, s, n, shared);
    saved->shared_scale = take(l, what, s, spec->has_linear[LINEAR_SHARED_SCALE] ? n : 0, 1);
    for (int slot = 0; slot < EXPERT_DOWN; slot++)
        saved->expert_xa[slot] =
            take(l, what, s, rows, most_expert_ranks(s, (expert_slot)slot, begin, end));
}

/* Each layer's routes; blocks that share memory share them. */
static void choice_layout(block_saved *saved, layout *host, const sizes *s, int32_t begin,
                          int32_t end) {
    if (has_sparse(s, begin, end, true))
        saved->choice =
            layout_take(host, COMPONENT_WORKSPACE, s->expert_rows, sizeof *saved->choice);
}

static bool has_branch_form(const sizes *s, int32_t begin, int32_t end) {
    for (int32_t layer = begin; layer < end; layer++)
        if (s->hooks->layers[layer].branch[BRANCH_MLP].form)
            return true;
    return false;
}

/* The stream between the branches, and what stands around them. */
static void stream_layout(block_saved *saved, layout *l, component what, const sizes *s,
                          bool backward, int32_t begin, int32_t end) {
    const model_spec *spec = s->spec;
    bool keeps_mid = backward && (!spec->is_parallel || has_branch_form(s, begin, end));
    bool keeps_out = backward && spec->has_norm[NORM_ATTENTION_OUT];
    saved->x_mid = take(l, what, s, keeps_mid ? s->n : 0, s->hidden);
    saved->attention_out = take(l, what, s, keeps_out ? s->n : 0, s->hidden);
    for (int slot = NORM_ATTENTION; slot <= NORM_ATTENTION_SUM; slot++) {
        size_t rows = slot == NORM_Q ? s->q_rows : slot == NORM_K ? s->k_rows : s->n;
        if (slot != NORM_MLP_OUT)
            saved->rstd[slot] = take(l, what, s, spec->has_norm[slot] ? rows : 0, 1);
    }
    for (int slot = NORM_Q_A; slot <= NORM_KV_A; slot++)
        saved->rstd[slot] = take(l, what, s, spec->has_norm[slot] ? s->n : 0, 1);
}

/* What KEEP_ATTENTION makes again. */
static void gate_up_layout(block_saved *saved, layout *l, component what, const sizes *s,
                           int32_t begin, int32_t end) {
    bool has_gate = s->spec->has_linear[LINEAR_GATE] || s->spec->has_linear[LINEAR_GATE_UP];
    size_t n_dense = has_sparse(s, begin, end, false) ? s->n : 0;
    saved->gate = take(l, what, s, has_gate ? n_dense : 0, s->intermediate);
    saved->up = take(l, what, s, n_dense, s->intermediate);
    experts_layout(saved, l, what, s, begin, end);
    for (int slot = LINEAR_GATE; slot < N_LINEAR_SLOTS; slot++)
        if (slot != LINEAR_DOWN && slot != LINEAR_SHARED_DOWN)
            hook_layout(saved, l, what, s, slot, begin, end);
}

/* What KEEP_INPUT makes again beside it. */
static void attention_layout(block_saved *saved, layout *l, component what, const sizes *s,
                             bool backward, int32_t begin, int32_t end) {
    bool keeps_raw = backward && (s->spec->has_norm[NORM_Q] || s->spec->qkv_clip > 0);
    stream_layout(saved, l, what, s, backward, begin, end);
    saved->q_raw = take(l, what, s, keeps_raw ? s->n : 0, s->q);
    saved->k_raw = take(l, what, s, keeps_raw ? s->n : 0, s->k);
    saved->q_latent = take(l, what, s, s->n, (size_t)s->spec->q_latent);
    saved->kv_latent = take(l, what, s, s->n, (size_t)s->spec->kv_latent);
    saved->q = take(l, what, s, s->n, s->q);
    saved->k = take(l, what, s, s->n, s->k);
    saved->v = take(l, what, s, s->n, s->v);
    saved->o = take(l, what, s, s->n, s->o);
    saved->lse = take(l, what, s, s->n, s->heads);
    for (int slot = 0; slot <= LINEAR_O; slot++)
        hook_layout(saved, l, what, s, slot, begin, end);
    saved->branch[BRANCH_ATTENTION] =
        take(l, what, s, most_branch_kept(s, BRANCH_ATTENTION, begin, end), 1);
}

static int64_t hook_scratch(const sizes *s, const linear_hook *hook, int64_t rows, int64_t cols) {
    linear_call call = {
        .weight = {.rows = rows, .cols = cols}, .terms = hook->terms, .n_terms = hook->n_terms};
    return linear_scratch_elements(&call, (int64_t)s->n);
}

/* A token goes to an expert once: no expert has more rows than there are tokens. */
static int64_t experts_scratch(const sizes *s, const layer_hooks *layer) {
    int64_t most = 0, rows, cols;
    for (int32_t i = 0; layer->experts && i < s->spec->n_experts * N_EXPERT_SLOTS; i++) {
        model_expert_shape(&rows, &cols, s->spec, (expert_slot)(i % N_EXPERT_SLOTS));
        int64_t elements = hook_scratch(s, &layer->experts[i], rows, cols);
        most = elements > most ? elements : most;
    }
    return most;
}

/* Slots [first, first + n) of a layer, which share their input. */
static int64_t group_scratch(const sizes *s, const layer_hooks *hooks, int first, int n) {
    linear_call calls[LINEAR_BRANCHES_MAX];
    const linear_call *pointers[LINEAR_BRANCHES_MAX];
    for (int i = 0; i < n; i++) {
        const linear_hook *hook = &hooks->linear[first + i];
        calls[i] = (linear_call){.terms = hook->terms, .n_terms = hook->n_terms};
        model_linear_shape(&calls[i].weight.rows, &calls[i].weight.cols, s->spec,
                           (linear_slot)(first + i));
        pointers[i] = &calls[i];
    }
    return linear_group_scratch_elements(pointers, n, (int64_t)s->n);
}

static size_t linear_scratch(const sizes *s) {
    static const struct {
        linear_slot first;
        int n;
    } groups[] = {{LINEAR_Q, 3}, {LINEAR_GATE, 2}};
    int64_t most = 0;
    for (int32_t layer = 0; layer < s->spec->n_layers; layer++) {
        const layer_hooks *hooks = &s->hooks->layers[layer];
        int64_t elements = experts_scratch(s, hooks);
        most = elements > most ? elements : most;
        for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
            elements = group_scratch(s, hooks, (int)groups[g].first, groups[g].n);
            most = elements > most ? elements : most;
        }
        for (int slot = 0; slot < N_LINEAR_SLOTS; slot++) {
            elements = group_scratch(s, hooks, slot, 1);
            most = elements > most ? elements : most;
        }
    }
    int64_t outer = hook_scratch(s, &s->hooks->outer_linear[OUTER_PROJECT_IN], s->spec->hidden,
                                 s->spec->embedding_dim);
    return (size_t)(outer > most ? outer : most);
}

static size_t form_scratch(const sizes *s) {
    int64_t most = 0, n = (int64_t)s->n;
    const embedding_hook *rows = &s->hooks->embedding_rows;
    const linear_hook *in = &s->hooks->outer_linear[OUTER_PROJECT_IN];
    if (rows->form && rows->form->scratch_elements)
        most = rows->form->scratch_elements(rows->self, n);
    if (in->form) {
        int64_t elements = form_scratch_elements(&in->form->memory, in->form_self, n);
        most = elements > most ? elements : most;
    }
    for (int32_t layer = 0; layer < s->spec->n_layers; layer++) {
        const layer_hooks *hooks = &s->hooks->layers[layer];
        for (int slot = 0; slot < N_LINEAR_SLOTS + N_BRANCH_SLOTS; slot++) {
            const linear_hook *linear = slot < N_LINEAR_SLOTS ? &hooks->linear[slot] : NULL;
            const branch_hook *branch = linear ? NULL : &hooks->branch[slot - N_LINEAR_SLOTS];
            int64_t elements = 0;
            if (linear && linear->form)
                elements = form_scratch_elements(&linear->form->memory, linear->form_self, n);
            else if (branch && branch->form)
                elements = form_scratch_elements(&branch->form->memory, branch->self, n);
            most = elements > most ? elements : most;
        }
    }
    return (size_t)most;
}

/* Of the widest fused linear; 0: none is. */
static size_t fused_width(const sizes *s) {
    const linear_slot slots[] = {LINEAR_QKV, LINEAR_GATE_UP, LINEAR_KV_A, LINEAR_KV_B};
    int64_t most = 0;
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        int64_t rows, cols;
        model_linear_shape(&rows, &cols, s->spec, slots[i]);
        if (s->spec->has_linear[slots[i]] && rows > most)
            most = rows;
    }
    return (size_t)most;
}

static size_t latent_width(const sizes *s) {
    int32_t q = s->spec->q_latent, kv = s->spec->kv_latent;
    return (size_t)(q > kv ? q : kv);
}

static void experts_scratch_layout(block_scratch *scratch, layout *l, const sizes *s,
                                   bool training) {
    const component what = COMPONENT_WORKSPACE;
    const model_spec *spec = s->spec;
    size_t rows = s->expert_rows, n = s->n, width = (size_t)spec->expert_intermediate;
    size_t shared = (size_t)spec->shared_intermediate;
    bool is_fused = spec->family->expert_names[EXPERT_GATE_UP];
    scratch->expert_rows = take(l, what, s, rows, s->hidden);
    scratch->d_expert_rows = take(l, what, s, training ? rows : 0, s->hidden);
    scratch->expert_h = take(l, what, s, rows, width);
    scratch->expert_dh = take(l, what, s, training ? rows : 0, width);
    scratch->expert_fused = take(l, what, s, is_fused ? rows : 0, 2 * width);
    scratch->row_weights = take(l, what, s, rows, 1);
    scratch->d_row_weights = take(l, what, s, training ? rows : 0, 1);
    scratch->d_route_weights = take(l, what, s, training ? rows : 0, 1);
    scratch->d_router_logits = take(l, what, s, training ? n : 0, (size_t)spec->n_experts);
    scratch->shared_h = take(l, what, s, n, shared);
    scratch->shared_dh = take(l, what, s, training ? n : 0, shared);
    if (spec->has_linear[LINEAR_SHARED_SCALE]) {
        scratch->shared_share = take(l, what, s, n, 1);
        scratch->d_shared_scale = take(l, what, s, training ? n : 0, 1);
    }
}

static void grouping_layout(expert_grouping *g, layout *host, const sizes *s, size_t jobs) {
    const component what = COMPONENT_WORKSPACE;
    size_t experts = (size_t)s->spec->n_experts, rows = s->expert_rows;
    if (!experts)
        return;
    g->begin = layout_take(host, what, experts + 1, sizeof(int32_t));
    g->next = layout_take(host, what, experts, sizeof(int32_t));
    g->token = layout_take(host, what, rows, sizeof(int32_t));
    g->assignment = layout_take(host, what, rows, sizeof(int32_t));
    g->grid = layout_take(host, what, rows + 1, sizeof(int32_t));
    g->job_begin = layout_take(host, what, jobs + 1, sizeof(int32_t));
    g->dropout_counter = layout_take(host, what, rows, sizeof(uint64_t));
}

static void scratch_layout(block_scratch *scratch, layout *l, const sizes *s, bool training) {
    const component what = COMPONENT_WORKSPACE;
    size_t n_backward = training ? s->n : 0;
    scratch->normed = take(l, what, s, s->n, s->hidden);
    scratch->d_normed = take(l, what, s, n_backward, s->hidden);
    scratch->d_mlp_normed = take(l, what, s, s->spec->is_parallel ? n_backward : 0, s->hidden);
    scratch->fused = take(l, what, s, s->n, fused_width(s));
    if (s->spec->has_norm[NORM_Q] && s->spec->qk_norm == QK_NORM_SPLIT) {
        scratch->split_norm = take(l, what, s, 1, s->q);
        scratch->d_split_norm = take(l, what, s, training ? 1 : 0, s->q);
    }
    scratch->linear = take(l, what, s, linear_scratch(s), 1);
    scratch->form = take(l, what, s, form_scratch(s), 1);
    scratch->latent = take(l, what, s, s->n, latent_width(s));
    /* The MLP's gradients are done with when the attention's begin. */
    layout_place place = layout_mark(l);
    size_t n_dense = has_sparse(s, 0, s->spec->n_layers, false) ? n_backward : 0;
    scratch->h = take(l, what, s, n_dense, s->intermediate);
    scratch->dh = take(l, what, s, n_dense, s->intermediate);
    layout_release(l, place);
    if (has_sparse(s, 0, s->spec->n_layers, true))
        experts_scratch_layout(scratch, l, s, training);
    layout_release(l, place);
    scratch->d_latent = take(l, what, s, n_backward, latent_width(s));
    scratch->d_o = take(l, what, s, n_backward, s->o);
    scratch->dq = take(l, what, s, n_backward, s->q);
    scratch->dk = take(l, what, s, n_backward, s->k);
    scratch->dv = take(l, what, s, n_backward, s->v);
    scratch->attention = take(l, what, s, n_backward, s->heads);
}

static int32_t head_chunk_rows(const model_spec *spec, const step_limits *limits) {
    int32_t rows = limits->head_chunk;
    if (rows == 0) {
        rows = LOGITS_ELEMENTS / spec->vocab / 32 * 32;
        rows = rows < HEAD_CHUNK_MIN ? HEAD_CHUNK_MIN : rows;
        rows = rows > HEAD_CHUNK_MAX ? HEAD_CHUNK_MAX : rows;
    }
    return rows;
}

static size_t form_elements(const linear_hook *hook, size_t rows, bool is_kept) {
    const form_memory *memory = hook->form ? &hook->form->memory : NULL;
    return (size_t)(is_kept ? form_kept_elements(memory, hook->form_self, (int64_t)rows)
                            : form_scratch_elements(memory, hook->form_self, (int64_t)rows));
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static void head_layout(head_buffers *head, layout *l, const sizes *s, const step_limits *limits) {
    const component what = COMPONENT_WORKSPACE;
    const linear_hook *hook = &s->hooks->head;
    const linear_hook *out = &s->hooks->outer_linear[OUTER_PROJECT_OUT];
    size_t width = (size_t)s->spec->embedding_dim;
    size_t rows = (size_t)(head->chunk < limits->max_labelled ? head->chunk : limits->max_labelled);
    rows = rows > 0 ? rows : 1;
    head->rows = (int32_t)rows;
    head->x = take(l, what, s, rows, s->hidden);
    head->normed = take(l, what, s, s->spec->has_final_norm ? rows : 0, s->hidden);
    head->dx = take(l, what, s, limits->training ? rows : 0, s->hidden);
    head->rstd = take(l, what, s, rows, 1);
    if (width != s->hidden) {
        head->projected = take(l, what, s, rows, width);
        head->d_projected = take(l, what, s, limits->training ? rows : 0, width);
        head->projected_xa = take(l, what, s, rows, (size_t)linear_hook_ranks(out));
        head->projected_kept = take(l, what, s, form_elements(out, rows, true), 1);
    }
    head->logits = take(l, what, s, rows, (size_t)s->spec->vocab);
    head->xa = take(l, what, s, rows, (size_t)linear_hook_ranks(hook));
    linear_call call = {.weight = {.rows = s->spec->vocab, .cols = s->spec->embedding_dim},
                        .terms = hook->terms,
                        .n_terms = hook->n_terms};
    linear_call out_call = {.weight = {.rows = s->spec->embedding_dim, .cols = s->spec->hidden},
                            .terms = out->terms,
                            .n_terms = out->n_terms};
    size_t scratch = (size_t)linear_scratch_elements(&call, (int64_t)rows);
    size_t out_scratch = (size_t)linear_scratch_elements(&out_call, (int64_t)rows);
    head->linear = take(l, what, s, larger(scratch, out_scratch), 1);
    head->kept = take(l, what, s, form_elements(hook, rows, true), 1);
    head->form = take(l, what, s,
                      larger(form_elements(hook, rows, false), form_elements(out, rows, false)), 1);
}

/* What the end of the last block works in. */
static void labelled_layout(labelled_rows *labelled, layout *l, const sizes *s,
                            const step_limits *limits) {
    const component what = COMPONENT_WORKSPACE;
    size_t n = limits->labelled_only ? (size_t)limits->max_labelled : 0;
    labelled->x = take(l, what, s, n, s->hidden);
    labelled->dx = take(l, what, s, limits->training ? n : 0, s->hidden);
    labelled->o = take(l, what, s, n, s->o);
}

static void host_layout(step_buffers *b, layout *host, const sizes *s) {
    const component what = COMPONENT_WORKSPACE;
    head_buffers *head = &b->head;
    size_t labelled = (size_t)b->limits.max_labelled, rows = (size_t)head->rows;
    size_t jobs = (size_t)(b->limits.max_jobs > 0 ? b->limits.max_jobs : 1);
    int32_t dim = s->spec->rope.dim > s->spec->rope_sliding.dim ? s->spec->rope.dim
                                                                : s->spec->rope_sliding.dim;
    if (dim)
        b->rope_host = layout_take(host, what, s->n * (size_t)dim, sizeof(float));
    b->loss_host = layout_take(host, what, labelled, sizeof(float));
    b->labelled.index = layout_take(host, what, labelled, sizeof(int32_t));
    b->labelled.grid = layout_take(host, what, labelled + 1, sizeof(int32_t));
    b->labelled.job_begin = layout_take(host, what, jobs + 1, sizeof(int32_t));
    b->labelled.dropout_counter = layout_take(host, what, labelled, sizeof(uint64_t));
    head->targets = layout_take(host, what, rows, sizeof(int32_t));
    head->weights = layout_take(host, what, rows, sizeof(float));
    head->dropout_counter = layout_take(host, what, rows, sizeof(uint64_t));
    head->grid = layout_take(host, what, rows + 1, sizeof(int32_t));
    head->job_begin = layout_take(host, what, jobs + 1, sizeof(int32_t));
    grouping_layout(&b->scratch.grouping, host, s, jobs);
}

/* The lowest block that backward passes. */
static int32_t first_kept(const sizes *s) {
    return s->hooks->embedding_trains ? 0 : s->hooks->lowest_trained_layer;
}

static layer_keep keep_of(const step_limits *limits, int32_t layer, int32_t first) {
    int64_t from_input = limits->layers_from_input, without_mlp = limits->layers_without_mlp;
    if (layer - first < from_input)
        return KEEP_INPUT;
    return layer - first < from_input + without_mlp ? KEEP_ATTENTION : KEEP_ALL;
}

/* What blocks that keep nothing, or not all, use in turn. */
static void shared_layout(block_saved *shared, layout *l, const step_limits *limits,
                          const sizes *s) {
    const component what = COMPONENT_WORKSPACE;
    int32_t n_layers = s->spec->n_layers, first = first_kept(s);
    bool recomputes = limits->training && first < n_layers;
    bool keeps_nothing = !limits->training || first > 0;
    bool from_input = recomputes && limits->layers_from_input > 0;
    bool without_mlp = recomputes && limits->layers_without_mlp > 0;
    if (keeps_nothing || from_input)
        attention_layout(shared, l, what, s, from_input, 0, n_layers);
    if (keeps_nothing || from_input || without_mlp)
        gate_up_layout(shared, l, what, s, 0, n_layers);
    if (keeps_nothing)
        down_layout(shared, l, what, s, false, 0, n_layers);
}

/* Blocks and head take turns in one piece of memory: what blocks share, and their scratch, over the
 * head's buffers. */
static void turns_layout(step_buffers *b, block_saved *shared, layout *device, const sizes *s) {
    layout blocks = layout_counting(), head = layout_counting();
    void *memory = NULL;
    for (int pass = 0; pass < 2; pass++) {
        shared_layout(shared, &blocks, &b->limits, s);
        labelled_layout(&b->labelled, &blocks, s, &b->limits);
        scratch_layout(&b->scratch, &blocks, s, b->limits.training);
        head_layout(&b->head, &head, s, &b->limits);
        device->overflow = device->overflow || blocks.overflow || head.overflow;
        if (pass == 1 || device->overflow)
            return;
        size_t bytes = blocks.high_water > head.high_water ? blocks.high_water : head.high_water;
        memory = layout_take(device, COMPONENT_WORKSPACE, bytes, 1);
        if (!memory)
            return;
        blocks = layout_over(memory, bytes);
        head = layout_over(memory, bytes);
    }
}

static void layers_layout(step_buffers *b, layout *device, layout *host, const sizes *s,
                          const block_saved *shared) {
    const component what = COMPONENT_ACTIVATIONS;
    int32_t first = first_kept(s);
    for (int32_t layer = 0; layer < s->spec->n_layers; layer++) {
        block_saved *saved = &b->saved[layer];
        *saved = *shared;
        if (!b->limits.training || layer < first) {
            saved->x_mid = saved->q_raw = saved->k_raw = NULL;
            saved->attention_out = saved->mlp_out = saved->x_out = NULL;
            continue;
        }
        saved->keep = keep_of(&b->limits, layer, first);
        if (saved->keep != KEEP_INPUT)
            attention_layout(saved, device, what, s, true, layer, layer + 1);
        if (saved->keep == KEEP_ALL) {
            gate_up_layout(saved, device, what, s, layer, layer + 1);
            choice_layout(saved, host, s, layer, layer + 1);
        }
        down_layout(saved, device, what, s, true, layer, layer + 1);
        saved->x_in = take(device, what, s, s->n, s->hidden);
    }
}

static void input_layout(input_buffers *input, layout *device, layout *host, const sizes *s,
                         bool trains) {
    const component what = COMPONENT_ACTIVATIONS;
    const model_spec *spec = s->spec;
    const linear_hook *hook = &s->hooks->outer_linear[OUTER_PROJECT_IN];
    size_t embedding_dim = (size_t)spec->embedding_dim;
    if (embedding_dim != s->hidden) {
        const form_memory *memory = hook->form ? &hook->form->memory : NULL;
        input->embedded = take(device, what, s, s->n, embedding_dim);
        input->d_embedded = take(device, what, s, trains ? s->n : 0, embedding_dim);
        input->xa = take(device, what, s, s->n, (size_t)linear_hook_ranks(hook));
        input->kept = take(device, what, s,
                           (size_t)form_kept_elements(memory, hook->form_self, (int64_t)s->n), 1);
    }
    if (spec->has_embedding_norm) {
        input->unnormed = take(device, what, s, trains ? s->n : 0, s->hidden);
        input->rstd = take(device, what, s, s->n, 1);
    }
    if (spec->n_positions)
        input->positions = layout_take(host, COMPONENT_WORKSPACE, s->n, sizeof(int32_t));
}

graft_status step_layout(step_buffers *b, block_saved *saved, layout *device, layout *host,
                         const model_spec *spec, const model_hooks *hooks,
                         const step_limits *limits, size_t element_bytes, graft_error *err) {
    const size_t n = (size_t)limits->max_tokens;
    const bool is_whole = spec->qk_norm == QK_NORM_WHOLE;
    const sizes s = {.spec = spec,
                     .hooks = hooks,
                     .n = n,
                     .hidden = (size_t)spec->hidden,
                     .intermediate = (size_t)spec->intermediate,
                     .q = (size_t)spec->n_heads * (size_t)spec->head_dim,
                     .k = (size_t)spec->n_kv_heads * (size_t)spec->head_dim,
                     .v = (size_t)spec->n_kv_heads * (size_t)spec->value_dim,
                     .o = (size_t)spec->n_heads * (size_t)spec->value_dim,
                     .expert_rows = n * (size_t)spec->router.n_chosen,
                     .heads = (size_t)spec->n_heads,
                     .q_rows = n * (is_whole ? 1 : (size_t)spec->n_heads),
                     .k_rows = n * (is_whole ? 1 : (size_t)spec->n_kv_heads),
                     .element_bytes = element_bytes};
    assert(limits->max_tokens > 0 && limits->max_labelled <= limits->max_tokens);
    bool trains_below_head = limits->training && (hooks->embedding_trains ||
                                                  hooks->lowest_trained_layer < spec->n_layers);
    block_saved shared = {0};
    *b = (step_buffers){.limits = *limits, .saved = saved};
    b->head.chunk = head_chunk_rows(spec, limits);
    b->x = take(device, COMPONENT_ACTIVATIONS, &s, s.n, s.hidden);
    b->dx = take(device, COMPONENT_ACTIVATIONS, &s, trains_below_head ? s.n : 0, s.hidden);
    input_layout(&b->input, device, host, &s, limits->training && hooks->embedding_trains);
    for (int i = 0; i < 2; i++) {
        size_t half = (size_t)(i == 0 ? spec->rope.dim : spec->rope_sliding.dim) / 2;
        b->rope_cos[i] = take(device, COMPONENT_WORKSPACE, &s, s.n, half);
        b->rope_sin[i] = take(device, COMPONENT_WORKSPACE, &s, s.n, half);
    }
    b->loss = take(device, COMPONENT_WORKSPACE, &s, (size_t)limits->max_labelled, 1);
    turns_layout(b, &shared, device, &s);
    choice_layout(&shared, host, &s, 0, spec->n_layers);
    layers_layout(b, device, host, &s, &shared);
    host_layout(b, host, &s);
    if (device->overflow || host->overflow)
        return error_set(err, GRAFT_E_INPUT,
                         "a step of %d tokens of this model is larger than the address space",
                         limits->max_tokens);
    return GRAFT_OK;
}
