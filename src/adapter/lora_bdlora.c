/* BD-LoRA (block-diagonal LoRA; as PEFT's tuners/lora/variants.py): A or B has blocks on its
 * diagonal, so that shards of a served model need no exchange. The file holds the blocks below each
 * other: A [r, in / nblocks], or B [out, r / nblocks]; the term gets the whole matrix, zero beside
 * the blocks. */
#include "adapter/lora.h"

#include <math.h>
#include <string.h>

enum { WHOLE, IDENTITY }; /* derived arrays of a layer whose A or B has blocks */

static derived_array *derived(const lora_layer *l, int which) {
    return &l->adapter->derived[l->derived + (size_t)which];
}

static bool has_blocks(const lora_layer *l) {
    return l->a_cols < l->in || l->b_cols < l->rank;
}

/* ---- What the config says of a module ---- */

static bool is_named(const json_t *names, const char *module) {
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name && strstr(module, name))
            return true;
    }
    return false;
}

static graft_status read_config(bool *is_a, bool *is_b, int64_t *blocks, const lora_layer *l,
                                graft_error *err) {
    const json_t *config = config_value(&l->adapter->config, "use_bdlora");
    const json_t *given = json_object_get(config, "nblocks");
    const char *module = l->adapter->modules[l->module].name;
    *is_a = is_named(json_object_get(config, "target_modules_bd_a"), module);
    *is_b = is_named(json_object_get(config, "target_modules_bd_b"), module);
    *blocks = given ? json_integer_value(given) : 1;
    if (!json_is_object(config) || *blocks < 1 || *blocks > l->rank)
        return error_set(err, GRAFT_E_INPUT,
                         "use_bdlora: expected an object with nblocks from 1 to the rank (%d), "
                         "target_modules_bd_a and "
                         "target_modules_bd_b",
                         (int)l->rank);
    if (*is_a && *is_b)
        return error_set(err, GRAFT_E_INPUT,
                         "use_bdlora: %s is in target_modules_bd_a and in target_modules_bd_b",
                         module);
    if (!*is_a && !*is_b && !json_is_false(json_object_get(config, "match_strict")))
        return error_set(err, GRAFT_E_INPUT,
                         "use_bdlora: %s is in neither target_modules_bd_a nor "
                         "target_modules_bd_b; match_strict false "
                         "makes plain LoRA of such",
                         module);
    return GRAFT_OK;
}

static graft_status bdlora_shape(lora_layer *l, graft_error *err) {
    bool is_a, is_b;
    int64_t blocks;
    graft_status status = read_config(&is_a, &is_b, &blocks, l, err);
    if (status != GRAFT_OK || blocks == 1 || (!is_a && !is_b))
        return status;
    if (l->rank % blocks || (is_a ? l->in : l->out) % blocks)
        return error_set(err, GRAFT_E_INPUT,
                         "use_bdlora: %d blocks do not divide the rank %d and the %lld %s of %s",
                         (int)blocks, (int)l->rank, (long long)(is_a ? l->in : l->out),
                         is_a ? "inputs" : "outputs", l->adapter->modules[l->module].name);
    l->a_cols = is_a ? l->in / blocks : l->in;
    l->b_cols = is_b ? l->rank / blocks : l->rank;
    const int64_t side = l->rank / blocks;
    l->derived = shape_derived(l->adapter, l->rank * (is_a ? l->in : l->out), true, err);
    return l->derived == SIZE_MAX || shape_derived(l->adapter, side * side, false, err) == SIZE_MAX
               ? GRAFT_E_MEMORY
               : GRAFT_OK;
}

/* Blocks are drawn as PEFT's BlockDiagonalLinear draws them: Kaiming uniform with a = 0. */
static graft_status bdlora_init(lora_layer *l, backend *dev, const weight_source *weights,
                                rng *random, graft_error *err) {
    (void)weights;
    (void)err;
    if (l->a_cols < l->in)
        shape_fill(l->a, dev, DRAW_UNIFORM, sqrt(6 / (double)l->a_cols), random);
    if (l->b_cols < l->rank)
        shape_fill(l->b, dev, DRAW_CONSTANT, 0, random);
    return GRAFT_OK;
}

/* ---- Between blocks and the whole ---- */

/* Copies every block from the stored tensor to its place in the whole, or (gathers) adds it back.
 */
static void move_blocks(const lora_layer *l, backend *dev, device_array *whole,
                        device_array *stored, bool gathers) {
    const bool is_a = l->a_cols < l->in;
    const int64_t blocks = is_a ? l->in / l->a_cols : l->rank / l->b_cols, side = l->rank / blocks;
    const int64_t rows = is_a ? side : l->out / blocks, cols = is_a ? l->a_cols : l->b_cols;
    const int64_t stride = is_a ? l->in : l->rank;
    const matrix identity = {derived(l, IDENTITY)->value, side, false};
    for (int64_t b = 0; b < blocks; b++) {
        device_array *place = array_at(dev, whole, b * (rows * stride + cols));
        device_array *block = array_at(dev, stored, b * rows * cols);
        const matrix from = gathers ? (matrix){place, stride, false} : (matrix){block, cols, false};
        dev->ops->matmul(dev, &(matmul_call){.c = gathers ? block : place,
                                             .c_stride = gathers ? cols : stride,
                                             .rows = rows,
                                             .cols = cols,
                                             .k = side,
                                             .a = is_a ? identity : from,
                                             .b = is_a ? from : identity,
                                             .scale = 1,
                                             .add = gathers});
    }
}

static const adapter_tensor *blocks_of(const lora_layer *l) {
    return l->a_cols < l->in ? l->a : l->b;
}

static graft_status bdlora_prepare(lora_layer *l, backend *dev, weight_source *weights,
                                   graft_error *err) {
    (void)weights;
    (void)err;
    if (!has_blocks(l))
        return GRAFT_OK;
    derived_array *whole = derived(l, WHOLE), *identity = derived(l, IDENTITY);
    const int64_t side = (int64_t)sqrt((double)identity->count);
    const double one = 1;
    dev->ops->fill(dev, whole->value, 0, whole->count);
    dev->ops->fill(dev, identity->value, 0, identity->count);
    for (int64_t i = 0; i < side; i++)
        dev->ops->upload(dev, array_at(dev, identity->value, i * side + i), &one, DTYPE_F64, 1);
    move_blocks(l, dev, whole->value, blocks_of(l)->value, false);
    return GRAFT_OK;
}

static void bdlora_chain(lora_layer *l, backend *dev) {
    if (has_blocks(l))
        move_blocks(l, dev, derived(l, WHOLE)->gradient, blocks_of(l)->gradient, true);
}

static void bdlora_bind(lora_layer *l, model_hooks *hooks) {
    (void)hooks;
    if (l->a_cols < l->in) {
        l->terms[0].a = derived(l, WHOLE)->value;
        l->terms[0].da = derived(l, WHOLE)->gradient;
    } else if (l->b_cols < l->rank) {
        l->terms[0].b = derived(l, WHOLE)->value;
        l->terms[0].db = derived(l, WHOLE)->gradient;
    }
}

const lora_variant lora_bdlora = {
    .key = "use_bdlora",
    .shape = bdlora_shape,
    .init = bdlora_init,
    .bind = bdlora_bind,
    .prepare = bdlora_prepare,
    .chain = bdlora_chain,
};
