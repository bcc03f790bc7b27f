#include "adapter/input_map.h"

#include "base/memory.h"

#include <stdlib.h>

/* ---- The form ---- */

static int64_t own_scratch(const input_map *m, int64_t n) {
    return m->method->scratch_elements ? m->method->scratch_elements(m, n) : 0;
}

/* With a scale, outputs are kept as they were before it. */
static int64_t kept_elements(const void *self, int64_t n) {
    const input_map *m = self;
    return m->scale_suffix ? n * m->out : 0;
}

/* The turned input or its gradient; then scaled gradients of outputs; then the map's own. */
static int64_t scratch_elements(const void *self, int64_t n) {
    const input_map *m = self;
    return n * m->in + (m->scale_suffix ? n * m->out : 0) + own_scratch(m, n);
}

static device_array *scaled_part(const input_map *m, const form_pass *p) {
    return array_at(p->dev, p->scratch, p->tokens->n * m->in);
}

static device_array *own_part(const input_map *m, const form_pass *p) {
    int64_t n = p->tokens->n;
    return array_at(p->dev, p->scratch, n * m->in + (m->scale_suffix ? n * m->out : 0));
}

static void forward(const void *self, const form_pass *p, const base_linear *base, device_array *y,
                    const device_array *x, bool add) {
    const input_map *m = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    m->method->fwd(m, p->dev, p->scratch, x, n, own_part(m, p));
    if (!m->scale_suffix) {
        ops->linear_fwd(p->dev, y, base->xa, p->scratch, base->call, add, base->scratch, p->tokens);
        return;
    }
    linear_call call = *base->call;
    call.bias = NULL;
    ops->linear_fwd(p->dev, p->kept, base->xa, p->scratch, &call, false, base->scratch, p->tokens);
    ops->scale_cols(p->dev, y, p->kept, m->scale->value, n, m->out, add);
    if (base->call->bias)
        ops->add_rows(p->dev, y, base->call->bias, n, m->out);
}

/* The gradient in front of the scale; the base's bias, which is not scaled, has its own. */
static const device_array *scale_backward(const input_map *m, const form_pass *p, linear_call *call,
                                          const device_array *dy) {
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    device_array *scaled = scaled_part(m, p);
    if (!m->scale_suffix)
        return dy;
    if (m->scale->gradient)
        ops->sum_cols(p->dev, m->scale->gradient, dy, p->kept, n, m->out, p->tokens);
    if (call->d_bias)
        ops->sum_cols(p->dev, call->d_bias, dy, NULL, n, m->out, p->tokens);
    call->d_bias = NULL;
    ops->scale_cols(p->dev, scaled, dy, m->scale->value, n, m->out, false);
    return scaled;
}

static void backward(const void *self, const form_pass *p, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const input_map *m = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    linear_call call = *base->call;
    dy = scale_backward(m, p, &call, dy);
    if (call.d_weight) { /* the base trains, too: its input was the turned one */
        m->method->fwd(m, p->dev, p->scratch, x, n, own_part(m, p));
        ops->linear_bwd(p->dev, NULL, dy, p->scratch, base->xa, &call, false, base->scratch,
                        p->tokens);
        call.d_weight = call.d_bias = NULL;
    }
    ops->linear_bwd(p->dev, p->scratch, dy, x, base->xa, &call, false, base->scratch, p->tokens);
    if (m->adapter->tensors[0].gradient)
        m->method->gradients(m, p->dev, p->scratch, x, p->tokens, own_part(m, p));
    if (dx)
        m->method->transposed(m, p->dev, dx, p->scratch, add, n, own_part(m, p));
}

static const linear_form form = {
    .memory = {kept_elements, scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- Its place ---- */

typedef struct input_maps {
    input_map *items; /* [n_modules] */
    void *own;
} input_maps;

graft_status input_map_create(adapter *a, const input_map_method *method, const char *scale_suffix,
                              size_t own_bytes, graft_error *err) {
    input_maps *maps = a->state = mem_array(1, sizeof *maps);
    if (maps) {
        maps->items = mem_array(a->n_modules, sizeof *maps->items);
        maps->own = mem_array(1, own_bytes);
    }
    if (!maps || !maps->items || !maps->own)
        return error_memory(err, a->n_modules * sizeof *maps->items, "the adapter's maps");
    for (size_t i = 0; i < a->n_modules; i++)
        maps->items[i] = (input_map){.method = method,
                                     .adapter = a,
                                     .module = i,
                                     .in = a->modules[i].cols,
                                     .out = a->modules[i].rows,
                                     .scale_suffix = scale_suffix};
    return GRAFT_OK;
}

input_map *input_map_at(const adapter *a, size_t module) {
    return ((input_maps *)a->state)->items + module;
}

void *input_map_own(const adapter *a) {
    return a->state ? ((input_maps *)a->state)->own : NULL;
}

void input_map_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_modules; i++) {
        input_map *m = input_map_at(a, i);
        if (!a->targets[i].is_target)
            continue;
        if (m->scale_suffix)
            m->scale = adapter_tensor_at(a, i, m->scale_suffix);
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->form = &form;
        hook->form_self = m;
    }
    shape_bind_freed(a, hooks);
}

void input_map_destroy(adapter *a) {
    input_maps *maps = a->state;
    if (!maps)
        return;
    free(maps->items);
    free(maps->own);
    free(maps);
    a->state = NULL;
}

int64_t input_map_merge_scratch(const adapter *a, size_t module) {
    const input_map *m = input_map_at(a, module);
    return a->targets[module].is_target ? m->in * m->out + own_scratch(m, m->out) : 0;
}

graft_status input_map_merge(adapter *a, backend *dev, size_t module, device_array *w,
                             device_array *bias, device_array *scratch, graft_error *err) {
    const input_map *m = input_map_at(a, module);
    (void)bias;
    (void)err;
    if (!a->targets[module].is_target)
        return GRAFT_OK;
    dev->ops->copy(dev, scratch, w, m->in * m->out);
    m->method->transposed(m, dev, w, scratch, false, m->out,
                          array_at(dev, scratch, m->in * m->out));
    if (m->scale_suffix)
        dev->ops->scale_rows(dev, w, w, adapter_tensor_at(a, module, m->scale_suffix)->value,
                             m->out, m->in, false);
    return GRAFT_OK;
}

/* ---- Rotations ---- */

static const derived_array *rotations_of(const input_map *m) {
    return &m->adapter->derived[m->first];
}

/* A shared rotation is taken for every block. */
static int64_t rotation_step(const input_map *m) {
    int64_t one = m->size * m->size;
    return rotations_of(m)->count == one ? 0 : one;
}

static void turn(const input_map *m, backend *dev, device_array *z, const device_array *x,
                 int64_t n, bool transposed, bool add) {
    dev->ops->matmul(dev, &(matmul_call){.c = z,
                                         .c_stride = m->in,
                                         .rows = n,
                                         .cols = m->size,
                                         .k = m->size,
                                         .a = {x, m->in, false},
                                         .b = {rotations_of(m)->value, m->size, transposed},
                                         .scale = 1,
                                         .add = add,
                                         .batch = m->blocks,
                                         .c_step = m->size,
                                         .a_step = m->size,
                                         .b_step = rotation_step(m)});
}

static void rotations_fwd(const input_map *m, backend *dev, device_array *z, const device_array *x,
                          int64_t n, device_array *scratch) {
    (void)scratch;
    turn(m, dev, z, x, n, false, false);
}

static void rotations_transposed(const input_map *m, backend *dev, device_array *dx,
                                 const device_array *dz, bool add, int64_t n,
                                 device_array *scratch) {
    (void)scratch;
    turn(m, dev, dx, dz, n, true, add);
}

static void rotations_gradients(const input_map *m, backend *dev, const device_array *dz,
                                const device_array *x, const token_rows *tokens,
                                device_array *scratch) {
    (void)scratch;
    dev->ops->matmul(dev, &(matmul_call){.c = rotations_of(m)->gradient,
                                         .c_stride = m->size,
                                         .rows = m->size,
                                         .cols = m->size,
                                         .k = tokens->n,
                                         .a = {x, m->in, true},
                                         .b = {dz, m->in, false},
                                         .scale = 1,
                                         .batch = m->blocks,
                                         .c_step = rotation_step(m),
                                         .a_step = m->size,
                                         .b_step = m->size,
                                         .tokens = tokens});
}

const input_map_method input_map_rotations = {
    .fwd = rotations_fwd, .transposed = rotations_transposed, .gradients = rotations_gradients};
