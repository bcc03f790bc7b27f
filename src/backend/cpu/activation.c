/* Activations and softmax by rows: scalar code, for parts that are small beside the products. */
#include "backend/cpu/cpu_backend.h"

#include <math.h>

typedef struct activation_context {
    cpu_backend *cpu;
    float *y;
    const float *x, *dy;
    activation_kind kind;
    int64_t cols;
    pieces pieces; /* of elements, or of rows */
} activation_context;

static void run(activation_context *c, backend *dev, pieces of, thread_task *task) {
    c->cpu = cpu_of(dev);
    c->pieces = of;
    cpu_run_tasks(c->cpu, of.count, task, c);
}

static const float SQRT_HALF = 0.70710678118654752f, INV_SQRT_2PI = 0.39894228040143268f,
                   SQRT_2_OVER_PI = 0.79788456080286536f, GELU_CUBIC = 0.044715f,
                   LEAKY_SLOPE = 0.01f;

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static float activate(float x, activation_kind kind) {
    switch (kind) {
    case ACTIVATION_RELU:
        return x > 0 ? x : x * 0; /* NaN stays */
    case ACTIVATION_LEAKY_RELU:
        return x > 0 ? x : LEAKY_SLOPE * x;
    case ACTIVATION_GELU:
        return x * 0.5f * (1 + erff(x * SQRT_HALF));
    case ACTIVATION_GELU_TANH:
        return 0.5f * x * (1 + tanhf(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
    case ACTIVATION_SILU:
        return x * sigmoid(x);
    case ACTIVATION_SIGMOID:
        return sigmoid(x);
    case ACTIVATION_TANH:
        return tanhf(x);
    default:
        return x;
    }
}

static float slope(float x, activation_kind kind) {
    float s, t;
    switch (kind) {
    case ACTIVATION_RELU:
        return x > 0 ? 1 : 0;
    case ACTIVATION_LEAKY_RELU:
        return x > 0 ? 1 : LEAKY_SLOPE;
    case ACTIVATION_GELU:
        return 0.5f * (1 + erff(x * SQRT_HALF)) + x * expf(-0.5f * x * x) * INV_SQRT_2PI;
    case ACTIVATION_GELU_TANH:
        t = tanhf(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
        return 0.5f * (1 + t) +
               0.5f * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
    case ACTIVATION_SILU:
        s = sigmoid(x);
        return s * (1 + x * (1 - s));
    case ACTIVATION_SIGMOID:
        s = sigmoid(x);
        return s * (1 - s);
    case ACTIVATION_TANH:
        t = tanhf(x);
        return 1 - t * t;
    default:
        return 1;
    }
}

static void fwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const activation_context *c = context;
    for (int64_t j = piece_begin(&c->pieces, i); j < piece_end(&c->pieces, i); j++)
        c->y[j] = activate(c->x[j], c->kind);
}

void cpu_activation_fwd(backend *dev, device_array *y, const device_array *x, activation_kind kind,
                        int64_t n) {
    activation_context c = {.y = cpu_array(y), .x = cpu_array_const(x), .kind = kind};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), fwd_task);
}

static void bwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const activation_context *c = context;
    for (int64_t j = piece_begin(&c->pieces, i); j < piece_end(&c->pieces, i); j++)
        c->y[j] = c->dy[j] * slope(c->x[j], c->kind);
}

void cpu_activation_bwd(backend *dev, device_array *dx, const device_array *dy,
                        const device_array *x, activation_kind kind, int64_t n) {
    activation_context c = {
        .y = cpu_array(dx), .x = cpu_array_const(x), .dy = cpu_array_const(dy), .kind = kind};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), bwd_task);
}

static void softmax_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const activation_context *c = context;
    const row_kernels *rows = c->cpu->rows;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++) {
        float *y = c->y + r * c->cols;
        const float *x = c->x + r * c->cols;
        float sum = rows->exp_row(y, x, rows->max(x, c->cols), c->cols);
        rows->scale(y, 1 / sum, c->cols);
    }
}

void cpu_softmax_fwd(backend *dev, device_array *y, const device_array *x, int64_t rows,
                     int64_t cols) {
    activation_context c = {.y = cpu_array(y), .x = cpu_array_const(x), .cols = cols};
    run(&c, dev, pieces_of_rows(rows, cols), softmax_task);
}

static void softmax_bwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const activation_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++) {
        const float *dy = c->dy + r * c->cols, *y = c->x + r * c->cols;
        float sum = c->cpu->rows->dot(dy, y, c->cols);
        for (int64_t j = 0; j < c->cols; j++)
            c->y[r * c->cols + j] = y[j] * (dy[j] - sum);
    }
}

void cpu_softmax_bwd(backend *dev, device_array *dx, const device_array *dy, const device_array *y,
                     int64_t rows, int64_t cols) {
    activation_context c = {
        .y = cpu_array(dx), .x = cpu_array_const(y), .dy = cpu_array_const(dy), .cols = cols};
    run(&c, dev, pieces_of_rows(rows, cols), softmax_bwd_task);
}
