#include "adapter/lstm.h"

#include "adapter/prompt_encoder.h"
#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GATES = 4, DIRECTIONS = 2, TENSORS = 4 }; /* gates i, f, g, o, in torch's order */

/* One direction of one layer. */
typedef struct cell {
    int64_t in;
    bool is_reverse;
    double *value[TENSORS]; /* weight_ih [4h, in], weight_hh [4h, h], bias_ih, bias_hh [4h] */
    double *gradient[TENSORS];
    double *gates, *cells, *h; /* [rows, 4h] after activation, [rows, h], [rows, h] */
    char suffix[24];           /* "l0", "l0_reverse" */
} cell;

struct lstm {
    int64_t rows, in, hidden;
    int32_t n_layers;
    size_t output;  /* derived */
    cell *cells;    /* [n_layers * DIRECTIONS] */
    double *inputs; /* [n_layers + 1][rows, widest]: of each layer, and the output */
    double *d_inputs;
    double *d_gates, *d_h, *d_c; /* [4h], [h], [h]: of one row */
    double *scratch;             /* as large as the largest tensor, or [rows, in] */
    int64_t widest, scratch_room;
};

static const char *const part_names[TENSORS] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};

static int64_t part_cols(const lstm *l, const cell *c, int part) {
    return part == 0 ? c->in : part == 1 ? l->hidden : 0;
}

static int64_t part_count(const lstm *l, const cell *c, int part) {
    int64_t cols = part_cols(l, c, part);
    return GATES * l->hidden * (cols ? cols : 1);
}

static void part_name(char *out, size_t capacity, const cell *c, int part) {
    snprintf(out, capacity, "lstm_head.%s_%s", part_names[part], c->suffix);
}

static adapter_tensor *part_tensor(const adapter *a, const cell *c, int part) {
    char name[64];
    part_name(name, sizeof name, c, part);
    return encoder_tensor_at(a, name);
}

/* ---- Life ---- */

static graft_status create_cell(lstm *l, adapter *a, int32_t layer, bool is_reverse,
                                graft_error *err) {
    cell *c = &l->cells[layer * DIRECTIONS + is_reverse];
    c->in = layer == 0 ? l->in : DIRECTIONS * l->hidden;
    c->is_reverse = is_reverse;
    snprintf(c->suffix, sizeof c->suffix, "l%d%s", (int)layer, is_reverse ? "_reverse" : "");
    c->gates = mem_array((size_t)(l->rows * GATES * l->hidden), sizeof *c->gates);
    c->cells = mem_array((size_t)(l->rows * l->hidden), sizeof *c->cells);
    c->h = mem_array((size_t)(l->rows * l->hidden), sizeof *c->h);
    if (!c->gates || !c->cells || !c->h)
        return error_memory(err, (size_t)(l->rows * GATES * l->hidden) * sizeof *c->gates,
                            "the prompt's LSTM");
    for (int part = 0; part < TENSORS; part++) {
        char name[64];
        part_name(name, sizeof name, c, part);
        size_t count = (size_t)part_count(l, c, part);
        if (!encoder_tensor(a, name, GATES * l->hidden, part_cols(l, c, part), err))
            return GRAFT_E_MEMORY;
        c->value[part] = mem_array(count, sizeof(double));
        c->gradient[part] = mem_array(count, sizeof(double));
        if (!c->value[part] || !c->gradient[part])
            return error_memory(err, count * sizeof(double), name);
        l->scratch_room = (int64_t)count > l->scratch_room ? (int64_t)count : l->scratch_room;
    }
    return GRAFT_OK;
}

graft_status lstm_create(lstm **out, adapter *a, int64_t rows, int64_t in, int64_t hidden,
                         int32_t n_layers, graft_error *err) {
    lstm *l = *out = mem_array(1, sizeof *l);
    if (!l)
        return error_memory(err, sizeof *l, "the prompt's LSTM");
    *l = (lstm){.rows = rows, .in = in, .hidden = hidden, .n_layers = n_layers};
    l->widest = in > DIRECTIONS * hidden ? in : DIRECTIONS * hidden;
    size_t inputs = (size_t)((n_layers + 1) * rows * l->widest);
    l->cells = mem_array((size_t)n_layers * DIRECTIONS, sizeof *l->cells);
    l->inputs = mem_array(inputs, sizeof *l->inputs);
    l->d_inputs = mem_array(inputs, sizeof *l->d_inputs);
    if (!l->cells || !l->inputs || !l->d_inputs)
        return error_memory(err, inputs * sizeof *l->inputs, "the prompt's LSTM");
    l->output = shape_derived(a, rows * DIRECTIONS * hidden, true, err);
    graft_status status = l->output == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
    for (int32_t i = 0; i < n_layers * DIRECTIONS && status == GRAFT_OK; i++)
        status = create_cell(l, a, i / DIRECTIONS, i % DIRECTIONS, err);
    l->scratch_room = rows * in > l->scratch_room ? rows * in : l->scratch_room;
    l->scratch = mem_array((size_t)l->scratch_room, sizeof(double));
    l->d_gates = mem_array((size_t)(GATES * hidden), sizeof(double));
    l->d_h = mem_array((size_t)hidden, sizeof(double));
    l->d_c = mem_array((size_t)hidden, sizeof(double));
    if (status == GRAFT_OK && (!l->scratch || !l->d_gates || !l->d_h || !l->d_c))
        status = error_memory(err, (size_t)l->scratch_room * sizeof(double), "the prompt's LSTM");
    return status;
}

void lstm_destroy(lstm **out) {
    lstm *l = *out;
    if (!l)
        return;
    for (int32_t i = 0; l->cells && i < l->n_layers * DIRECTIONS; i++) {
        cell *c = &l->cells[i];
        for (int part = 0; part < TENSORS; part++) {
            free(c->value[part]);
            free(c->gradient[part]);
        }
        free(c->gates);
        free(c->cells);
        free(c->h);
    }
    free(l->cells);
    free(l->inputs);
    free(l->d_inputs);
    free(l->d_gates);
    free(l->d_h);
    free(l->d_c);
    free(l->scratch);
    free(l);
    *out = NULL;
}

void lstm_init(const lstm *l, const adapter *a, backend *dev, rng *random) {
    for (int32_t i = 0; i < l->n_layers * DIRECTIONS; i++)
        for (int part = 0; part < TENSORS; part++)
            shape_fill(part_tensor(a, &l->cells[i], part), dev, DRAW_UNIFORM,
                       1 / sqrt((double)l->hidden), random);
}

const derived_array *lstm_output(const lstm *l, const adapter *a) {
    return &a->derived[l->output];
}

/* ---- Forward ---- */

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* The row that is read at step s, and the one before it (-1: none). */
static int64_t row_at(const lstm *l, const cell *c, int64_t step) {
    return c->is_reverse ? l->rows - 1 - step : step;
}

static void cell_step(const lstm *l, cell *c, const double *x, int64_t row, int64_t before) {
    const int64_t h = l->hidden;
    double *gates = c->gates + row * GATES * h;
    for (int64_t g = 0; g < GATES * h; g++) {
        double sum = c->value[2][g] + c->value[3][g] + dot(c->value[0] + g * c->in, x, c->in);
        if (before >= 0)
            sum += dot(c->value[1] + g * h, c->h + before * h, h);
        gates[g] = g / h == 2 ? tanh(sum) : sigmoid(sum);
    }
    for (int64_t j = 0; j < h; j++) {
        double kept = before >= 0 ? gates[h + j] * c->cells[before * h + j] : 0;
        c->cells[row * h + j] = kept + gates[j] * gates[2 * h + j];
        c->h[row * h + j] = gates[3 * h + j] * tanh(c->cells[row * h + j]);
    }
}

static void cell_forward(const lstm *l, cell *c, const double *inputs, double *outputs) {
    int64_t before = -1;
    for (int64_t step = 0; step < l->rows; step++) {
        int64_t row = row_at(l, c, step);
        cell_step(l, c, inputs + row * c->in, row, before);
        memcpy(outputs + row * DIRECTIONS * l->hidden + (c->is_reverse ? l->hidden : 0),
               c->h + row * l->hidden, (size_t)l->hidden * sizeof *outputs);
        before = row;
    }
}

static double *layer_inputs(const lstm *l, int32_t layer) {
    return l->inputs + layer * l->rows * l->widest;
}

graft_status lstm_fwd(lstm *l, const adapter *a, backend *dev, const device_array *x,
                      graft_error *err) {
    (void)err;
    for (int32_t i = 0; i < l->n_layers * DIRECTIONS; i++)
        for (int part = 0; part < TENSORS; part++)
            dev->ops->download_f64(dev, l->cells[i].value[part],
                                   part_tensor(a, &l->cells[i], part)->value,
                                   part_count(l, &l->cells[i], part));
    dev->ops->download_f64(dev, l->inputs, x, l->rows * l->in);
    for (int32_t i = 0; i < l->n_layers * DIRECTIONS; i++)
        cell_forward(l, &l->cells[i], layer_inputs(l, i / DIRECTIONS),
                     layer_inputs(l, i / DIRECTIONS + 1));
    dev->ops->upload(dev, lstm_output(l, a)->value, layer_inputs(l, l->n_layers), DTYPE_F64,
                     l->rows * DIRECTIONS * l->hidden);
    return GRAFT_OK;
}

/* ---- Backward ---- */

/* From d_h and d_c of a row: d_gates before activation, and d_c of the row before. */
static void gates_backward(const lstm *l, const cell *c, int64_t row, int64_t before) {
    const int64_t h = l->hidden;
    const double *gates = c->gates + row * GATES * h;
    for (int64_t j = 0; j < h; j++) {
        double in = gates[j], forget = gates[h + j], new = gates[2 * h + j], out = gates[3 * h + j];
        double t = tanh(c->cells[row * h + j]);
        double d_c = l->d_c[j] + l->d_h[j] * out * (1 - t * t);
        double kept = before >= 0 ? c->cells[before * h + j] : 0;
        l->d_gates[j] = d_c * new *in *(1 - in);
        l->d_gates[h + j] = d_c * kept * forget * (1 - forget);
        l->d_gates[2 * h + j] = d_c * in * (1 - new *new);
        l->d_gates[3 * h + j] = l->d_h[j] * t * out * (1 - out);
        l->d_c[j] = d_c * forget;
    }
}

static void add_scaled(double *y, const double *x, double factor, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] += factor * x[i];
}

static void row_backward(const lstm *l, const cell *c, const double *x, double *dx, int64_t row,
                         int64_t before) {
    const int64_t h = l->hidden;
    gates_backward(l, c, row, before);
    memset(l->d_h, 0, (size_t)h * sizeof *l->d_h);
    for (int64_t g = 0; g < GATES * h; g++) {
        double dg = l->d_gates[g];
        add_scaled(c->gradient[0] + g * c->in, x, dg, c->in);
        add_scaled(dx, c->value[0] + g * c->in, dg, c->in);
        c->gradient[2][g] += dg;
        c->gradient[3][g] += dg;
        if (before < 0)
            continue;
        add_scaled(c->gradient[1] + g * h, c->h + before * h, dg, h);
        add_scaled(l->d_h, c->value[1] + g * h, dg, h);
    }
}

static void cell_backward(const lstm *l, const cell *c, const double *inputs, double *d_inputs,
                          const double *d_outputs) {
    const int64_t h = l->hidden;
    memset(l->d_h, 0, (size_t)h * sizeof *l->d_h);
    memset(l->d_c, 0, (size_t)h * sizeof *l->d_c);
    for (int64_t step = l->rows - 1; step >= 0; step--) {
        int64_t row = row_at(l, c, step), before = step > 0 ? row_at(l, c, step - 1) : -1;
        add_scaled(l->d_h, d_outputs + row * DIRECTIONS * h + (c->is_reverse ? h : 0), 1, h);
        row_backward(l, c, inputs + row * c->in, d_inputs + row * c->in, row, before);
    }
}

/* Adds host values to a gradient. */
static void add_gradient(backend *dev, device_array *gradient, double *values, double *scratch,
                         int64_t n) {
    dev->ops->download_f64(dev, scratch, gradient, n);
    add_scaled(values, scratch, 1, n);
    dev->ops->upload(dev, gradient, values, DTYPE_F64, n);
}

void lstm_bwd(lstm *l, const adapter *a, backend *dev, const device_array *x, device_array *dx) {
    (void)x;
    size_t all = (size_t)((l->n_layers + 1) * l->rows * l->widest);
    memset(l->d_inputs, 0, all * sizeof *l->d_inputs);
    dev->ops->download_f64(dev, l->d_inputs + l->n_layers * l->rows * l->widest,
                           lstm_output(l, a)->gradient, l->rows * DIRECTIONS * l->hidden);
    for (int32_t i = l->n_layers * DIRECTIONS - 1; i >= 0; i--) {
        cell *c = &l->cells[i];
        int64_t at = (i / DIRECTIONS) * l->rows * l->widest;
        for (int part = 0; part < TENSORS; part++)
            memset(c->gradient[part], 0, (size_t)part_count(l, c, part) * sizeof(double));
        cell_backward(l, c, l->inputs + at, l->d_inputs + at,
                      l->d_inputs + at + l->rows * l->widest);
        for (int part = 0; part < TENSORS; part++)
            add_gradient(dev, part_tensor(a, c, part)->gradient, c->gradient[part], l->scratch,
                         part_count(l, c, part));
    }
    add_gradient(dev, dx, l->d_inputs, l->scratch, l->rows * l->in);
}
