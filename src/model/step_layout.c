#include "model/linear_hooked.h"

#include <assert.h>
#include <string.h>

/* Elements of the logits that exist at a time, when nothing else is asked: 64 MiB of f32. */
enum { LOGITS_ELEMENTS = 1 << 24, HEAD_CHUNK_MIN = 64, HEAD_CHUNK_MAX = 256 };

/* What the parts of a layout share. */
typedef struct sizes {
    const model_spec *spec;
    const model_hooks *hooks;
    size_t n, hidden, intermediate, q, kv, heads, kv_heads; /* n: tokens */
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

/* What the blocks [begin, end) hand from one slot's product to its backward. */
static void slot_layout(block_saved *saved, layout *l, component what, const sizes *s, int slot,
                        int32_t begin, int32_t end) {
    saved->xa[slot] = take(l, what, s, s->n, most_ranks(s, slot, begin, end));
    saved->kept[slot] = take(l, what, s, most_kept(s, slot, begin, end), 1);
}

/* What is always kept: recomputing stops before the down projection. */
static void down_layout(block_saved *saved, layout *l, component what, const sizes *s,
                        int32_t begin, int32_t end) {
    slot_layout(saved, l, what, s, LINEAR_DOWN, begin, end);
    saved->branch[BRANCH_MLP] = take(l, what, s, most_branch_kept(s, BRANCH_MLP, begin, end), 1);
}

/* What KEEP_ATTENTION makes again. */
static void gate_up_layout(block_saved *saved, layout *l, component what, const sizes *s,
                           int32_t begin, int32_t end) {
    saved->gate = take(l, what, s, s->n, s->intermediate);
    saved->up = take(l, what, s, s->n, s->intermediate);
    slot_layout(saved, l, what, s, LINEAR_GATE, begin, end);
    slot_layout(saved, l, what, s, LINEAR_UP, begin, end);
}

/* What KEEP_INPUT makes again beside it. */
static void attention_layout(block_saved *saved, layout *l, component what, const sizes *s,
                             bool backward, int32_t begin, int32_t end) {
    bool keeps_raw = backward && s->spec->has_qk_norm;
    saved->x_mid = take(l, what, s, backward ? s->n : 0, s->hidden);
    saved->q_raw = take(l, what, s, keeps_raw ? s->n : 0, s->q);
    saved->k_raw = take(l, what, s, keeps_raw ? s->n : 0, s->kv);
    saved->q = take(l, what, s, s->n, s->q);
    saved->k = take(l, what, s, s->n, s->kv);
    saved->v = take(l, what, s, s->n, s->kv);
    saved->o = take(l, what, s, s->n, s->q);
    saved->lse = take(l, what, s, s->n, s->heads);
    saved->rstd[NORM_ATTENTION] = take(l, what, s, s->n, 1);
    saved->rstd[NORM_MLP] = take(l, what, s, s->n, 1);
    if (s->spec->has_qk_norm) {
        saved->rstd[NORM_Q] = take(l, what, s, s->n, s->heads);
        saved->rstd[NORM_K] = take(l, what, s, s->n, s->kv_heads);
    }
    for (int slot = 0; slot <= LINEAR_O; slot++)
        slot_layout(saved, l, what, s, slot, begin, end);
    saved->branch[BRANCH_ATTENTION] =
        take(l, what, s, most_branch_kept(s, BRANCH_ATTENTION, begin, end), 1);
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
    } groups[] = {{LINEAR_Q, 3}, {LINEAR_O, 1}, {LINEAR_GATE, 2}, {LINEAR_DOWN, 1}};
    int64_t most = 0;
    for (int32_t layer = 0; layer < s->spec->n_layers; layer++)
        for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
            int64_t elements =
                group_scratch(s, &s->hooks->layers[layer], (int)groups[g].first, groups[g].n);
            most = elements > most ? elements : most;
        }
    return (size_t)most;
}

static size_t form_scratch(const sizes *s) {
    int64_t most = 0, n = (int64_t)s->n;
    const embedding_hook *rows = &s->hooks->embedding_rows;
    if (rows->form && rows->form->scratch_elements)
        most = rows->form->scratch_elements(rows->self, n);
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

static void scratch_layout(block_scratch *scratch, layout *l, const sizes *s, bool training) {
    const component what = COMPONENT_WORKSPACE;
    size_t n_backward = training ? s->n : 0;
    scratch->normed = take(l, what, s, s->n, s->hidden);
    scratch->d_normed = take(l, what, s, n_backward, s->hidden);
    scratch->linear = take(l, what, s, linear_scratch(s), 1);
    scratch->form = take(l, what, s, form_scratch(s), 1);
    /* The MLP's gradients are done with when the attention's begin. */
    layout_place place = layout_mark(l);
    scratch->h = take(l, what, s, n_backward, s->intermediate);
    scratch->dh = take(l, what, s, n_backward, s->intermediate);
    layout_release(l, place);
    scratch->d_o = take(l, what, s, n_backward, s->q);
    scratch->dq = take(l, what, s, n_backward, s->q);
    scratch->dk = take(l, what, s, n_backward, s->kv);
    scratch->dv = take(l, what, s, n_backward, s->kv);
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

static void head_layout(head_buffers *head, layout *l, const sizes *s, const step_limits *limits) {
    const component what = COMPONENT_WORKSPACE;
    const linear_hook *hook = &s->hooks->head;
    linear_call call = {.weight = {.rows = s->spec->vocab, .cols = s->spec->hidden},
                        .terms = hook->terms,
                        .n_terms = hook->n_terms};
    size_t rows = (size_t)(head->chunk < limits->max_labelled ? head->chunk : limits->max_labelled);
    rows = rows > 0 ? rows : 1;
    head->rows = (int32_t)rows;
    head->x = take(l, what, s, rows, s->hidden);
    head->normed = take(l, what, s, rows, s->hidden);
    head->dx = take(l, what, s, limits->training ? rows : 0, s->hidden);
    head->rstd = take(l, what, s, rows, 1);
    head->logits = take(l, what, s, rows, (size_t)s->spec->vocab);
    head->xa = take(l, what, s, rows, (size_t)linear_hook_ranks(hook));
    head->linear = take(l, what, s, (size_t)linear_scratch_elements(&call, (int64_t)rows), 1);
    const form_memory *memory = hook->form ? &hook->form->memory : NULL;
    head->kept =
        take(l, what, s, (size_t)form_kept_elements(memory, hook->form_self, (int64_t)rows), 1);
    head->form =
        take(l, what, s, (size_t)form_scratch_elements(memory, hook->form_self, (int64_t)rows), 1);
}

/* What the end of the last block works in. */
static void labelled_layout(labelled_rows *labelled, layout *l, const sizes *s,
                            const step_limits *limits) {
    const component what = COMPONENT_WORKSPACE;
    size_t n = limits->labelled_only ? (size_t)limits->max_labelled : 0;
    labelled->x = take(l, what, s, n, s->hidden);
    labelled->dx = take(l, what, s, limits->training ? n : 0, s->hidden);
    labelled->o = take(l, what, s, n, s->q);
}

static void host_layout(step_buffers *b, layout *host, const sizes *s) {
    const component what = COMPONENT_WORKSPACE;
    head_buffers *head = &b->head;
    size_t labelled = (size_t)b->limits.max_labelled, rows = (size_t)head->rows;
    size_t jobs = (size_t)(b->limits.max_jobs > 0 ? b->limits.max_jobs : 1);
    b->rope_host = layout_take(host, what, s->n * (size_t)s->spec->head_dim, sizeof(float));
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
        down_layout(shared, l, what, s, 0, n_layers);
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

static void layers_layout(step_buffers *b, layout *device, const sizes *s,
                          const block_saved *shared) {
    const component what = COMPONENT_ACTIVATIONS;
    int32_t first = first_kept(s);
    for (int32_t layer = 0; layer < s->spec->n_layers; layer++) {
        block_saved *saved = &b->saved[layer];
        *saved = *shared;
        if (!b->limits.training || layer < first) {
            saved->x_mid = saved->q_raw = saved->k_raw = NULL;
            continue;
        }
        saved->keep = keep_of(&b->limits, layer, first);
        if (saved->keep != KEEP_INPUT)
            attention_layout(saved, device, what, s, true, layer, layer + 1);
        if (saved->keep == KEEP_ALL)
            gate_up_layout(saved, device, what, s, layer, layer + 1);
        down_layout(saved, device, what, s, layer, layer + 1);
        saved->x_in = take(device, what, s, s->n, s->hidden);
    }
}

graft_status step_layout(step_buffers *b, block_saved *saved, layout *device, layout *host,
                         const model_spec *spec, const model_hooks *hooks,
                         const step_limits *limits, size_t element_bytes, graft_error *err) {
    const sizes s = {.spec = spec,
                     .hooks = hooks,
                     .n = (size_t)limits->max_tokens,
                     .hidden = (size_t)spec->hidden,
                     .intermediate = (size_t)spec->intermediate,
                     .q = (size_t)spec->n_heads * (size_t)spec->head_dim,
                     .kv = (size_t)spec->n_kv_heads * (size_t)spec->head_dim,
                     .heads = (size_t)spec->n_heads,
                     .kv_heads = (size_t)spec->n_kv_heads,
                     .element_bytes = element_bytes};
    assert(limits->max_tokens > 0 && limits->max_labelled <= limits->max_tokens);
    bool trains_below_head = limits->training && (hooks->embedding_trains ||
                                                  hooks->lowest_trained_layer < spec->n_layers);
    block_saved shared = {0};
    *b = (step_buffers){.limits = *limits, .saved = saved};
    b->head.chunk = head_chunk_rows(spec, limits);
    b->x = take(device, COMPONENT_ACTIVATIONS, &s, s.n, s.hidden);
    b->dx = take(device, COMPONENT_ACTIVATIONS, &s, trains_below_head ? s.n : 0, s.hidden);
    b->rope_cos = take(device, COMPONENT_WORKSPACE, &s, s.n, (size_t)spec->head_dim / 2);
    b->rope_sin = take(device, COMPONENT_WORKSPACE, &s, s.n, (size_t)spec->head_dim / 2);
    b->loss = take(device, COMPONENT_WORKSPACE, &s, (size_t)limits->max_labelled, 1);
    turns_layout(b, &shared, device, &s);
    layers_layout(b, device, &s, &shared);
    host_layout(b, host, &s);
    if (device->overflow || host->overflow)
        return error_set(err, GRAFT_E_INPUT,
                         "a step of %d tokens of this model is larger than the address space",
                         limits->max_tokens);
    return GRAFT_OK;
}
