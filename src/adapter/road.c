/* RoAd (Liao and Monz, 2024; as PEFT's tuners/road): the outputs turn in pairs, y' = c * y + s * y~
 * with y = W x + b, where y~ are the pairs (of the two halves of each group) turned by 90 degrees,
 * c = alpha cos theta and s = alpha sin theta. road_1 has one angle and length for a pair, road_2
 * one for each output, road_4 one each for c and for s. */
#include "adapter/methods.h"
#include "adapter/rotation.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const config_key road_keys[] = {
    TARGET_KEYS,
    {.name = "variant",
     .kind = KEY_CHOICE,
     .fallback = "\"road_1\"",
     .choices = "road_1|road_2|road_4"},
    {.name = "group_size", .kind = KEY_INTEGER, .fallback = "64", .min = 2, .max = 1 << 20},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

static const char theta_suffix[] = "road_theta", alpha_suffix[] = "road_alpha";

typedef struct road_turn { /* of one module */
    const adapter *adapter;
    int64_t out, group;
    size_t c, s; /* derived: [out] */
} road_turn;

typedef struct road_state {
    road_turn *turns;                                         /* [n_modules] */
    double *theta, *alpha, *d_theta, *d_alpha, *c, *s, *room; /* host, of the largest layer */
} road_state;

/* ---- The form ---- */

static int64_t kept_elements(const void *self, int64_t n) {
    return n * ((const road_turn *)self)->out;
}

static int64_t scratch_elements(const void *self, int64_t n) {
    return 2 * n * ((const road_turn *)self)->out;
}

static const derived_array *c_of(const road_turn *t) {
    return &t->adapter->derived[t->c];
}

static const derived_array *s_of(const road_turn *t) {
    return &t->adapter->derived[t->s];
}

static void forward(const void *self, const form_pass *p, const base_linear *base, device_array *y,
                    const device_array *x, bool add) {
    const road_turn *t = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    ops->linear_fwd(p->dev, p->kept, base->xa, x, base->call, false, base->scratch, p->tokens);
    ops->rotate_halves(p->dev, p->scratch, p->kept, n, t->out, t->group, false);
    ops->scale_cols(p->dev, y, p->kept, c_of(t)->value, n, t->out, add);
    ops->scale_cols(p->dev, y, p->scratch, s_of(t)->value, n, t->out, true);
}

static void backward(const void *self, const form_pass *p, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const road_turn *t = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    device_array *turned = p->scratch, *scaled = array_at(p->dev, p->scratch, n * t->out);
    if (c_of(t)->gradient) {
        ops->rotate_halves(p->dev, turned, p->kept, n, t->out, t->group, false);
        ops->sum_cols(p->dev, c_of(t)->gradient, dy, p->kept, n, t->out, p->tokens);
        ops->sum_cols(p->dev, s_of(t)->gradient, dy, turned, n, t->out, p->tokens);
    }
    if (!dx && !base->call->d_weight && !base->call->d_bias)
        return;
    ops->scale_cols(p->dev, scaled, dy, s_of(t)->value, n, t->out, false);
    ops->rotate_halves(p->dev, turned, scaled, n, t->out, t->group, true);
    ops->scale_cols(p->dev, turned, dy, c_of(t)->value, n, t->out, true);
    ops->linear_bwd(p->dev, dx, turned, x, base->xa, base->call, add, base->scratch, p->tokens);
}

static const linear_form form = {
    .memory = {kept_elements, scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- Shape ---- */

static char variant_of(const adapter *a) {
    return config_text(&a->config, "variant")[strlen("road_")];
}

static int64_t count_of(const adapter *a, int64_t out) {
    return variant_of(a) == '1' ? out / 2 : variant_of(a) == '2' ? out : 2 * out;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    road_turn *t = ((road_state *)a->state)->turns + module;
    int64_t out = a->modules[module].rows, group = config_integer(&a->config, "group_size");
    if (group % 2 || out % group)
        return error_set(err, GRAFT_E_INPUT,
                         "group_size %lld must be even and divide the %lld outputs of %s (PEFT "
                         "refuses it too)",
                         (long long)group, (long long)out, a->modules[module].name);
    *t = (road_turn){.adapter = a,
                     .out = out,
                     .group = group,
                     .c = shape_derived(a, out, true, err),
                     .s = shape_derived(a, out, true, err)};
    bool added = t->c != SIZE_MAX && t->s != SIZE_MAX &&
                 shape_matrix(a, module, theta_suffix, count_of(a, out), 0, err) &&
                 shape_matrix(a, module, alpha_suffix, count_of(a, out), 0, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status make_state(adapter *a, graft_error *err) {
    road_state *s = a->state = mem_array(1, sizeof *s);
    size_t largest = 1;
    if (!s)
        return error_memory(err, sizeof *s, "the adapter's turns");
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->targets[i].is_target && (size_t)a->modules[i].rows > largest)
            largest = (size_t)a->modules[i].rows;
    double **rooms[] = {&s->theta, &s->alpha, &s->d_theta, &s->d_alpha, &s->c, &s->s, &s->room};
    bool is_made = (s->turns = mem_array(a->n_modules, sizeof *s->turns)) != NULL;
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        is_made = (*rooms[i] = mem_array(2 * largest, sizeof(double))) && is_made;
    return is_made ? GRAFT_OK : error_memory(err, 14 * largest * sizeof(double), "turns");
}

static graft_status road_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = make_state(a, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static void road_destroy(adapter *a) {
    road_state *s = a->state;
    if (!s)
        return;
    free(s->turns);
    free(s->theta);
    free(s->alpha);
    free(s->d_theta);
    free(s->d_alpha);
    free(s->c);
    free(s->s);
    free(s->room);
    free(s);
    a->state = NULL;
}

/* theta is zero and alpha one; or N(0, 0.5) and N(1, 0.5). */
static graft_status road_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    double deviation = config_flag(&a->config, "init_weights") ? 0 : 0.5;
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        shape_fill_around(adapter_tensor_at(a, i, theta_suffix), dev, 0, deviation, random);
        shape_fill_around(adapter_tensor_at(a, i, alpha_suffix), dev, 1, deviation, random);
    }
    return shape_init_freed(a, dev, weights, err);
}

static void road_bind(adapter *a, model_hooks *hooks) {
    const road_state *s = a->state;
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->form = &form;
        hook->form_self = s->turns + i;
    }
    shape_bind_freed(a, hooks);
}

/* ---- c and s ---- */

/* Where output j's angle and length lie for c (is_sine false) or for s. */
static int64_t place_of(char variant, const road_turn *t, int64_t j, bool is_sine) {
    int64_t in_group = j % t->group, first = j - in_group;
    if (variant == '1')
        return first / 2 + in_group % (t->group / 2);
    return variant == '2' ? j : 2 * first + (is_sine ? t->group : 0) + in_group;
}

static void download(const adapter *a, backend *dev, size_t module) {
    const road_state *s = a->state;
    const adapter_tensor *theta = adapter_tensor_at(a, module, theta_suffix),
                         *alpha = adapter_tensor_at(a, module, alpha_suffix);
    dev->ops->download_f64(dev, s->theta, theta->value, theta->count);
    dev->ops->download_f64(dev, s->alpha, alpha->value, alpha->count);
}

static graft_status road_prepare(adapter *a, backend *dev, weight_source *weights,
                                 graft_error *err) {
    const road_state *s = a->state;
    char variant = variant_of(a);
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_modules; i++) {
        const road_turn *t = s->turns + i;
        if (!a->targets[i].is_target)
            continue;
        download(a, dev, i);
        for (int64_t j = 0; j < t->out; j++) {
            int64_t at = place_of(variant, t, j, false), at_sine = place_of(variant, t, j, true);
            s->c[j] = s->alpha[at] * cos(s->theta[at]);
            s->s[j] = s->alpha[at_sine] * sin(s->theta[at_sine]);
        }
        dev->ops->upload(dev, c_of(t)->value, s->c, DTYPE_F64, t->out);
        dev->ops->upload(dev, s_of(t)->value, s->s, DTYPE_F64, t->out);
    }
    return GRAFT_OK;
}

static double road_chain(adapter *a, backend *dev) {
    const road_state *s = a->state;
    char variant = variant_of(a);
    for (size_t i = 0; i < a->n_modules; i++) {
        const road_turn *t = s->turns + i;
        if (!a->targets[i].is_target)
            continue;
        size_t bytes = (size_t)count_of(a, t->out) * sizeof(double);
        download(a, dev, i);
        dev->ops->download_f64(dev, s->c, c_of(t)->gradient, t->out);
        dev->ops->download_f64(dev, s->s, s_of(t)->gradient, t->out);
        memset(s->d_theta, 0, bytes);
        memset(s->d_alpha, 0, bytes);
        for (int64_t j = 0; j < t->out; j++) {
            int64_t at = place_of(variant, t, j, false), at_sine = place_of(variant, t, j, true);
            s->d_alpha[at] += s->c[j] * cos(s->theta[at]);
            s->d_theta[at] -= s->c[j] * s->alpha[at] * sin(s->theta[at]);
            s->d_alpha[at_sine] += s->s[j] * sin(s->theta[at_sine]);
            s->d_theta[at_sine] += s->s[j] * s->alpha[at_sine] * cos(s->theta[at_sine]);
        }
        rotation_add_gradient(adapter_tensor_at(a, i, theta_suffix), dev, s->d_theta, s->room);
        rotation_add_gradient(adapter_tensor_at(a, i, alpha_suffix), dev, s->d_alpha, s->room);
    }
    return 0;
}

/* ---- Merging: the rows turn as the outputs do ---- */

static void turn_rows(const road_turn *t, backend *dev, device_array *w, device_array *kept,
                      int64_t cols) {
    const op_table *ops = dev->ops;
    int64_t half = t->group / 2;
    ops->copy(dev, kept, w, t->out * cols);
    ops->scale_rows(dev, w, kept, c_of(t)->value, t->out, cols, false);
    for (int is_first = 0; is_first < 2; is_first++) {
        for (int64_t group = 0; group < t->out; group += t->group) {
            int64_t to = group + (is_first ? 0 : half), from = group + (is_first ? half : 0);
            ops->scale_rows(dev, array_at(dev, w, to * cols), array_at(dev, kept, from * cols),
                            array_at(dev, s_of(t)->value, to), half, cols, true);
        }
        ops->scale(dev, kept, -1, t->out * cols); /* for the first halves */
    }
}

static graft_status road_merge(adapter *a, backend *dev, size_t module, device_array *w,
                               device_array *bias, device_array *scratch, graft_error *err) {
    const road_turn *t = ((const road_state *)a->state)->turns + module;
    (void)err;
    if (!a->targets[module].is_target)
        return GRAFT_OK;
    turn_rows(t, dev, w, scratch, a->modules[module].cols);
    if (bias)
        turn_rows(t, dev, bias, scratch, 1);
    return GRAFT_OK;
}

static int64_t road_merge_scratch(const adapter *a, size_t module) {
    const model_module *m = &a->modules[module];
    return a->targets[module].is_target ? m->rows * m->cols : 0;
}

const adapter_method road_method = {
    .peft_type = "ROAD",
    .name = "road",
    .summary = "outputs turned and scaled in pairs (RoAd)",
    .family = "rotations",
    .paper = "Liao and Monz 2024, arXiv:2409.00119",
    .target_kinds = TARGET_LINEAR,
    .keys = road_keys,
    .shape = road_shape,
    .destroy = road_destroy,
    .init = road_init,
    .bind = road_bind,
    .prepare = road_prepare,
    .chain = road_chain,
    .merge = road_merge,
    .merge_scratch = road_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
