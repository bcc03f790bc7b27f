/* GLoRA (Chavan et al., 2023; as PEFT's tuners/glora): W' = W + W * A + B, elementwise, and where
 * the layer has a bias b' = b + b * D + E + W C. Each of A to E is a product of two factors
 * ("lora"), a column ("vector"), a number ("constant"), or nothing, which PEFT saves as zeros. */
#include "adapter/dense_weight.h"
#include "adapter/methods.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const config_key glora_keys[] = {
    TARGET_KEYS,
    {.name = "r", .kind = KEY_OURS, .fallback = "8"},
    {.name = "bias",
     .kind = KEY_LACKED,
     .fallback = "\"none\"",
     .lacks = "biases that train beside GLoRA's own"},
    {.name = "config_A_B",
     .kind = KEY_CHOICE,
     .fallback = "\"lora\"",
     .choices = "lora|vector|constant|none"},
    {.name = "config_C", .kind = KEY_CHOICE, .fallback = "\"lora\"", .choices = "lora|vector|none"},
    {.name = "config_D_E",
     .kind = KEY_CHOICE,
     .fallback = "\"constant\"",
     .choices = "vector|constant|none"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

/* A path: two factors, or X: [rows, 1] or [rows], or one number [1]. Neither: nothing. */
typedef struct path {
    const adapter_tensor *down, *up, *x;
} path;

static path path_of(const dense_weight *w, char letter) {
    char name[16];
    path p = {0};
    snprintf(name, sizeof name, "glora_%c.Xd", letter);
    p.down = adapter_tensor_at(w->adapter, w->module, name);
    snprintf(name, sizeof name, "glora_%c.Xu", letter);
    p.up = adapter_tensor_at(w->adapter, w->module, name);
    snprintf(name, sizeof name, "glora_%c.X", letter);
    p.x = adapter_tensor_at(w->adapter, w->module, name);
    return p;
}

static bool is_number(const path *p) {
    return p->x && p->x->count == 1;
}

/* ---- The weight ---- */

/* The matrix of A, or a row of ones; and a column. */
static int64_t scratch_elements(const dense_weight *w) {
    return w->rows * w->cols + w->rows;
}

/* column [rows] = the path's number, or vector. */
static void load_column(const dense_weight *w, backend *dev, device_array *column, const path *p) {
    if (!is_number(p)) {
        dev->ops->copy(dev, column, p->x->value, w->rows);
        return;
    }
    dev->ops->fill(dev, column, 1, w->rows);
    dev->ops->scale_cols(dev, column, column, p->x->value, w->rows, 1, false);
}

/* The gradient of the path's number or vector, from its column's. */
static void add_column(const dense_weight *w, backend *dev, const device_array *column,
                       const path *p) {
    if (is_number(p))
        dev->ops->sum_rows(dev, p->x->gradient, column, NULL, 1, w->rows, true);
    else
        dev->ops->add(dev, p->x->gradient, column, w->rows);
}

static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    const path a = path_of(w, 'A'), b = path_of(w, 'B');
    device_array *column = array_at(dev, scratch, w->rows * w->cols);
    if (a.down) {
        factors_product(dev, scratch, a.down, a.up, 1, false);
        dev->ops->mul(dev, weight, weight, scratch, w->rows * w->cols, true);
    } else if (a.x) {
        load_column(w, dev, column, &a);
        dev->ops->scale_rows(dev, weight, weight, column, w->rows, w->cols, true);
    }
    if (b.down) {
        factors_product(dev, weight, b.down, b.up, 1, true);
    } else if (b.x) {
        load_column(w, dev, column, &b);
        dev->ops->fill(dev, scratch, 1, w->cols);
        dev->ops->matmul(dev, &(matmul_call){.c = weight,
                                             .c_stride = w->cols,
                                             .rows = w->rows,
                                             .cols = w->cols,
                                             .k = 1,
                                             .a = {column, 1, false},
                                             .b = {scratch, w->cols, false},
                                             .scale = 1,
                                             .add = true});
    }
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    const path a = path_of(w, 'A'), b = path_of(w, 'B');
    device_array *column = array_at(dev, scratch, w->rows * w->cols);
    if (b.down) {
        factors_product_bwd(dev, d_w, b.down, b.up, 1);
    } else if (b.x) {
        dev->ops->sum_rows(dev, column, d_w, NULL, w->rows, w->cols, false);
        add_column(w, dev, column, &b);
    }
    if (a.down) {
        dev->ops->mul(dev, d_w, d_w, base, w->rows * w->cols, false);
        factors_product_bwd(dev, d_w, a.down, a.up, 1);
    } else if (a.x) {
        dev->ops->sum_rows(dev, column, d_w, base, w->rows, w->cols, false);
        add_column(w, dev, column, &a);
    }
}

/* ---- The bias ---- */

/* scratch [in]: the column of C. */
static void load_c(const dense_weight *w, backend *dev, device_array *scratch, const path *c) {
    if (c->down)
        factors_product(dev, scratch, c->down, c->up, 1, false);
    else
        dev->ops->copy(dev, scratch, c->x->value, w->cols);
}

static void apply_bias(const dense_weight *w, backend *dev, device_array *bias,
                       const device_array *base, device_array *scratch) {
    const path c = path_of(w, 'C'), d = path_of(w, 'D'), e = path_of(w, 'E');
    device_array *column = array_at(dev, scratch, w->rows * w->cols);
    if (d.x) {
        load_column(w, dev, column, &d);
        dev->ops->mul(dev, bias, bias, column, w->rows, true);
    }
    if (e.x) {
        load_column(w, dev, column, &e);
        dev->ops->add(dev, bias, column, w->rows);
    }
    if (c.down || c.x) {
        load_c(w, dev, scratch, &c);
        dev->ops->matmul(dev, &(matmul_call){.c = bias,
                                             .c_stride = 1,
                                             .rows = w->rows,
                                             .cols = 1,
                                             .k = w->cols,
                                             .a = {base, w->cols, false},
                                             .b = {scratch, 1, false},
                                             .scale = 1,
                                             .add = true});
    }
}

static void apply_bias_bwd(const dense_weight *w, backend *dev, const device_array *d_bias,
                           const device_array *base_bias, const device_array *base,
                           device_array *scratch) {
    const path c = path_of(w, 'C'), d = path_of(w, 'D'), e = path_of(w, 'E');
    device_array *column = array_at(dev, scratch, w->rows * w->cols);
    if (e.x)
        add_column(w, dev, d_bias, &e);
    if (d.x) {
        dev->ops->mul(dev, column, d_bias, base_bias, w->rows, false);
        add_column(w, dev, column, &d);
    }
    if (!c.down && !c.x)
        return;
    dev->ops->matmul(dev, &(matmul_call){.c = scratch,
                                         .c_stride = 1,
                                         .rows = w->cols,
                                         .cols = 1,
                                         .k = w->rows,
                                         .a = {base, w->cols, true},
                                         .b = {d_bias, 1, false},
                                         .scale = 1});
    if (c.down)
        factors_product_bwd(dev, scratch, c.down, c.up, 1);
    else
        dev->ops->add(dev, c.x->gradient, scratch, w->cols);
}

static const dense_method glora_weight = {
    .suffixes = {NULL},
    .needs_base = true,
    .scratch_elements = scratch_elements,
    .apply = apply,
    .apply_bwd = apply_bwd,
    .apply_bias = apply_bias,
    .apply_bias_bwd = apply_bias_bwd,
};

/* ---- Shape ---- */

/* What of a path's kind there is: [rows, cols] as two factors, a column, a number, or zeros. */
static graft_status add_path(adapter *a, size_t module, char letter, const char *kind, int64_t rows,
                             int64_t cols, graft_error *err) {
    char name[24];
    const adapter_tensor *added;
    bool is_vector = letter == 'D' || letter == 'E';
    if (!strcmp(kind, "lora")) {
        snprintf(name, sizeof name, "glora_%c.Xd", letter);
        added = shape_matrix(a, module, name, rows, a->config.r, err);
        snprintf(name, sizeof name, "glora_%c.Xu", letter);
        added = added ? shape_matrix(a, module, name, a->config.r, cols, err) : NULL;
    } else if (!strcmp(kind, "none")) {
        snprintf(name, sizeof name, "glora_%c.zeros", letter);
        adapter_tensor *zeros = shape_matrix(a, module, name, rows, is_vector ? 0 : cols, err);
        if (zeros)
            zeros->is_fixed = true;
        added = zeros;
    } else {
        bool is_constant = !strcmp(kind, "constant");
        snprintf(name, sizeof name, "glora_%c.X", letter);
        added =
            shape_matrix(a, module, name, is_constant ? 1 : rows, !is_constant && !is_vector, err);
    }
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    const char *weight = config_text(&a->config, "config_A_B"),
               *c = m->has_bias ? config_text(&a->config, "config_C") : "none",
               *bias = m->has_bias ? config_text(&a->config, "config_D_E") : "none";
    graft_status status = add_path(a, module, 'A', weight, m->rows, m->cols, err);
    if (status == GRAFT_OK)
        status = add_path(a, module, 'B', weight, m->rows, m->cols, err);
    if (status == GRAFT_OK)
        status = add_path(a, module, 'C', c, m->cols, 1, err);
    if (status == GRAFT_OK)
        status = add_path(a, module, 'D', bias, m->rows, 1, err);
    return status == GRAFT_OK ? add_path(a, module, 'E', bias, m->rows, 1, err) : status;
}

static graft_status glora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_each_target(a, add_module, sink, err);
    return status == GRAFT_OK ? dense_create(a, &glora_weight, err) : status;
}

static bool ends_with(const adapter_tensor *t, const char *end) {
    size_t n = strlen(t->key), m = strlen(end);
    return n >= m && !strcmp(t->key + n - m, end);
}

/* As PEFT: Xu Kaiming uniform with a = sqrt 5, all else zero; without an initialisation columns and
 * Xd are drawn likewise, and numbers from N(0, 0.02). */
static graft_status glora_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                               graft_error *err) {
    bool starts_at_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role != ROLE_OTHER)
            continue;
        double fan_in = (double)(t->rank == 2 ? t->shape[1] : t->shape[0]);
        if (t->is_fixed || (starts_at_zero && !ends_with(t, ".Xu")))
            shape_fill(t, dev, DRAW_CONSTANT, 0, random);
        else if (t->count == 1 && t->rank == 1)
            shape_fill(t, dev, DRAW_NORMAL, 0.02, random);
        else
            shape_fill(t, dev, DRAW_UNIFORM, 1 / sqrt(fan_in), random);
    }
    return shape_init_freed(a, dev, weights, err);
}

const adapter_method glora_method = {
    .peft_type = "GLORA",
    .name = "glora",
    .summary = "scales and shifts of weights and biases by low-rank matrices, vectors or numbers",
    .family = "low rank",
    .paper = "Chavan et al. 2023, arXiv:2306.07967",
    .target_kinds = TARGET_LINEAR,
    .keys = glora_keys,
    .shape = glora_shape,
    .destroy = dense_destroy,
    .init = glora_init,
    .bind = dense_bind,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
