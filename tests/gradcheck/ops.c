/* Every backward of the reference backend against central differences of its forward, in double
 * precision. */
#include "tests/kernelcheck/op_run.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>

/* With values near 1, the error of a central difference is about step^2 f'''/6 + 2^-53 |f| / step:
 * 1e-10 |f| here. */
static const double STEP = 1e-5;
static const double TOLERANCE = 1e-6; /* relative to the gradient's largest element */
enum { CHECKED_MAX = 24 };            /* elements of each array */

/* sum over outputs of cotangent . output */
static double loss_of(op_run *run, const op_case *c) {
    c->forward(run);
    double loss = 0;
    for (int i = 0; i < run->n_arrays; i++) {
        if (run->arrays[i].role != ROLE_COTANGENT)
            continue;
        double *cotangent = op_values(run, i), *output = op_values(run, run->arrays[i].partner);
        for (int64_t j = 0; j < run->arrays[i].n; j++)
            loss += cotangent[j] * output[j];
        free(cotangent);
        free(output);
    }
    return loss;
}

static double slope_at(op_run *run, const op_case *c, int input, double *values, int64_t i) {
    double kept = values[i];
    values[i] = kept + STEP;
    op_set(run, input, values);
    double above = loss_of(run, c);
    values[i] = kept - STEP;
    op_set(run, input, values);
    double below = loss_of(run, c);
    values[i] = kept;
    op_set(run, input, values);
    return (above - below) / (2 * STEP);
}

static void check_gradient(op_run *run, const op_case *c, int index) {
    const op_array *array = &run->arrays[index];
    double *gradient = op_values(run, index), *values = op_values(run, array->partner);
    double largest = 0;
    for (int64_t i = 0; i < array->n; i++)
        largest = fmax(largest, fabs(gradient[i]));
    assert_true(largest > 0);
    int64_t stride = array->n > CHECKED_MAX ? array->n / CHECKED_MAX | 1 : 1;
    for (int64_t i = 0; i < array->n; i += stride) {
        double slope = slope_at(run, c, array->partner, values, i);
        if (!(fabs(slope - gradient[i]) <= TOLERANCE * largest))
            fail_msg("%s: %s[%lld] is %.12g, the slope is %.12g (largest %.3g)", c->name,
                     array->name, (long long)i, gradient[i], slope, largest);
    }
    free(gradient);
    free(values);
}

static void backward_is_the_slope_of_forward(void **state) {
    const op_case *c = *state;
    backend *dev;
    assert_ok(backend_create_reference(&dev, &test_error));
    op_run run = {0};
    c->build(&run, dev, 42, c->params);
    c->forward(&run);
    c->backward(&run);
    for (int i = 0; i < run.n_arrays; i++)
        if (run.arrays[i].role == ROLE_GRADIENT && run.arrays[i].partner >= 0)
            check_gradient(&run, c, i);
    op_run_end(&run);
    backend_destroy(&dev);
}

int main(void) {
    int n_cases = 0;
    while (op_case_at(n_cases))
        n_cases++;
    struct CMUnitTest *tests = calloc((size_t)n_cases, sizeof *tests);
    if (!tests)
        return 1;
    size_t n = 0;
    for (int i = 0; i < n_cases; i++) {
        const op_case *c = op_case_at(i);
        if (c->backward && !c->is_large)
            tests[n++] = (struct CMUnitTest){.name = c->name,
                                             .test_func = backward_is_the_slope_of_forward,
                                             .initial_state = (void *)(uintptr_t)c};
    }
    int failed = _cmocka_run_group_tests("gradcheck_ops", tests, n, NULL, NULL);
    free(tests);
    return failed;
}
