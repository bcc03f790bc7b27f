#include "tests/train/spy.h"

#include <math.h>

spy the_spy;
static op_table original, replaced;

static void *spy_alloc(backend *dev, size_t bytes) {
    if (the_spy.n_allocated < (int)(sizeof the_spy.allocated / sizeof *the_spy.allocated))
        the_spy.allocated[the_spy.n_allocated++] = bytes;
    if (the_spy.failing_alloc && --the_spy.failing_alloc == 0)
        return NULL;
    return original.alloc(dev, bytes);
}

static bool is_poisoned(int32_t layer) {
    int64_t bit = the_spy.passes < 63 ? the_spy.passes : 63;
    return layer == the_spy.poisoned_layer && (the_spy.poisoned_passes >> bit & 1);
}

static void spy_attention_fwd(backend *dev, device_array *o, device_array *lse,
                              const device_array *q, const device_array *k, const device_array *v,
                              const attention_call *call, const batch *b, int32_t layer) {
    if (layer == 0 && ++the_spy.passes == the_spy.stop_at_pass)
        *the_spy.stop = 1;
    original.attention_fwd(dev, o, lse, q, k, v, call, b, layer);
    if (is_poisoned(layer) && !the_spy.poisons_backward)
        original.fill(dev, o, (double)NAN, call->head_dim);
}

static void spy_attention_bwd(backend *dev, device_array *dq, device_array *dk, device_array *dv,
                              const device_array *d_o, const device_array *o,
                              const device_array *lse, const device_array *q, const device_array *k,
                              const device_array *v, const attention_call *call,
                              device_array *scratch, const batch *b, int32_t layer) {
    original.attention_bwd(dev, dq, dk, dv, d_o, o, lse, q, k, v, call, scratch, b, layer);
    if (is_poisoned(layer) && the_spy.poisons_backward)
        original.fill(dev, dq, (double)NAN, call->head_dim);
}

void spy_put_in(backend *dev) {
    original = *dev->ops;
    replaced = original;
    replaced.alloc = spy_alloc;
    replaced.attention_fwd = spy_attention_fwd;
    replaced.attention_bwd = spy_attention_bwd;
    dev->ops = &replaced;
    the_spy = (spy){.poisoned_layer = -1};
}
