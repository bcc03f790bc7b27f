/* Every method's gradients in double precision, against differences of the loss of a tiny model: a
 * line a method, or several where its config changes the way it computes. */
#include "tests/parity/adapter_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECKED = 6 }; /* elements of a tensor */

/* Whether one of the space-separated words is part of the key. */
static bool is_detached(const char *words, const char *key) {
    char word[64];
    for (int used; words && sscanf(words, "%63s%n", word, &used) == 1; words += used)
        if (strstr(key, word))
            return true;
    return false;
}

static double loss_at(adapter_case *c, device_array *element, double value, bool prepares) {
    c->model.dev->ops->upload(c->model.dev, element, &value, DTYPE_F64, 1);
    if (prepares)
        adapter_case_prepare(c);
    return model_case_step(&c->model, false) + adapter_chain(c->adapter, c->model.dev);
}

/* Five-point difference: the error is of order step^4. */
static double difference(adapter_case *c, device_array *element, double value, bool prepares) {
    const double step = 3e-4;
    double far = loss_at(c, element, value + 2 * step, prepares) -
                 loss_at(c, element, value - 2 * step, prepares);
    double near =
        loss_at(c, element, value + step, prepares) - loss_at(c, element, value - step, prepares);
    loss_at(c, element, value, prepares);
    return (8 * near - far) / (12 * step);
}

static void check_tensor(adapter_case *c, const adapter_kind *kind, const adapter_tensor *t,
                         const double *gradient) {
    char what[300];
    double *value = model_case_download(&c->model, t->value, t->count), largest = 0;
    bool prepares = !is_detached(kind->detached, t->key);
    for (int64_t j = 0; j < t->count; j++)
        largest = fmax(largest, fabs(gradient[j]));
    snprintf(what, sizeof what, "%s: %s", kind->name, t->key);
    if (!(largest > 0))
        fail_msg("%s: no gradient", what);
    int64_t stride = t->count > CHECKED ? t->count / CHECKED : 1;
    for (int64_t j = 0; j < t->count; j += stride)
        test_assert_near(gradient[j],
                         difference(c, array_at(c->model.dev, t->value, j), value[j], prepares),
                         1e-7 * largest, 2e-6, what);
    free(value);
}

static void check_kind(void **state) {
    const adapter_kind *kind = *state;
    static adapter_case c;
    adapter_case_open(&c, test_backend(0), kind, true);
    adapter *a = c.adapter;
    double **gradients = calloc(a->n_tensors, sizeof *gradients);
    assert_non_null(gradients);
    adapter_zero_gradients(a, c.model.dev);
    model_case_step(&c.model, true);
    adapter_chain(a, c.model.dev);
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!a->tensors[i].is_fixed)
            gradients[i] =
                model_case_download(&c.model, a->tensors[i].gradient, a->tensors[i].count);
    for (size_t i = 0; i < a->n_tensors; i++) {
        if (gradients[i])
            check_tensor(&c, kind, &a->tensors[i], gradients[i]);
        free(gradients[i]);
    }
    free(gradients);
    adapter_case_close(&c);
}

int main(void) {
    return adapter_kinds_run("gradcheck_adapters", CHECK_GRADIENTS, check_kind);
}
