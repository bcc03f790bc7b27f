/* Fourier sums of a few coefficients. Along the columns' axis a coefficient is added as it is, one
 * wave of its row's length; along the rows' axis there is a fast transform of every column. The
 * result is real, so two columns q and q + cols / 2 go through one complex transform: for that, a
 * coefficient is divided between its row u and the mirrored row -u.
 *
 * The transform is Stockham's (self-sorting, mixed radix) on a block of columns at a time, which
 * are the vectors' lanes; a task has one block in its thread's scratch. */
#include "backend/cpu/cpu_backend.h"

#include <assert.h>
#include <string.h>

static_assert(SPECTRUM_ROWS_MAX * 4 * sizeof(float) <= CPU_SCRATCH_BYTES,
              "two complex columns of a block fit");

typedef struct spectrum_context {
    const cpu_backend *cpu;
    const spectrum_call *call;
    float *w;         /* fwd: added to */
    const float *d_w; /* bwd */
    float *partial;   /* bwd: [blocks, n] */
    int64_t pairs, block, n_blocks;
    const float *row_cos, *row_sin, *col_cos, *col_sin;
} spectrum_context;

static spectrum_context context_of(const spectrum_call *call) {
    const float *waves = cpu_array_const(call->waves);
    int64_t pairs = (call->cols + 1) / 2, block = spectrum_block(call->rows);
    return (spectrum_context){.call = call,
                              .pairs = pairs,
                              .block = block,
                              .n_blocks = (pairs + block - 1) / block,
                              .row_cos = waves,
                              .row_sin = waves + call->rows,
                              .col_cos = waves + 2 * call->rows,
                              .col_sin = waves + 2 * call->rows + call->cols};
}

/* ---- The transform of a block: [rows, width], real and imaginary parts apart ---- */

typedef struct complex_block {
    float *re, *im;
} complex_block;

typedef struct stage { /* y = one step of x; sign of the exponent */
    const spectrum_context *c;
    complex_block x, y;
    int64_t length, radix, stride; /* stride: in elements, columns included */
    float sign;
} stage;

/* e^(sign 2 pi i a / length) */
static void twiddle(float *re, float *im, const stage *s, int64_t a) {
    int64_t rows = s->c->call->rows, at = a % s->length * (rows / s->length);
    *re = s->c->row_cos[at];
    *im = s->sign * s->c->row_sin[at];
}

static void stage_2(const stage *s) {
    int64_t m = s->length / 2, n = s->stride;
    for (int64_t p = 0; p < m; p++) {
        float wr, wi;
        twiddle(&wr, &wi, s, p);
        const float *ar = s->x.re + p * n, *ai = s->x.im + p * n, *br = ar + m * n,
                    *bi = ai + m * n;
        float *yr = s->y.re + 2 * p * n, *yi = s->y.im + 2 * p * n;
        for (int64_t i = 0; i < n; i++) {
            float dr = ar[i] - br[i], di = ai[i] - bi[i];
            yr[i] = ar[i] + br[i];
            yi[i] = ai[i] + bi[i];
            yr[n + i] = dr * wr - di * wi;
            yi[n + i] = dr * wi + di * wr;
        }
    }
}

static void stage_4(const stage *s) {
    int64_t m = s->length / 4, n = s->stride;
    float sign = s->sign;
    for (int64_t p = 0; p < m; p++) {
        float w1r, w1i, w2r, w2i, w3r, w3i;
        twiddle(&w1r, &w1i, s, p);
        twiddle(&w2r, &w2i, s, 2 * p);
        twiddle(&w3r, &w3i, s, 3 * p);
        const float *xr = s->x.re + p * n, *xi = s->x.im + p * n;
        float *yr = s->y.re + 4 * p * n, *yi = s->y.im + 4 * p * n;
        for (int64_t i = 0; i < n; i++) {
            float ar = xr[i] + xr[2 * m * n + i], ai = xi[i] + xi[2 * m * n + i];
            float br = xr[i] - xr[2 * m * n + i], bi = xi[i] - xi[2 * m * n + i];
            float cr = xr[m * n + i] + xr[3 * m * n + i], ci = xi[m * n + i] + xi[3 * m * n + i];
            float er = xr[m * n + i] - xr[3 * m * n + i], ei = xi[m * n + i] - xi[3 * m * n + i];
            /* sign i (e) */
            float fr = -sign * ei, fi = sign * er;
            yr[i] = ar + cr;
            yi[i] = ai + ci;
            yr[n + i] = (br + fr) * w1r - (bi + fi) * w1i;
            yi[n + i] = (br + fr) * w1i + (bi + fi) * w1r;
            yr[2 * n + i] = (ar - cr) * w2r - (ai - ci) * w2i;
            yi[2 * n + i] = (ar - cr) * w2i + (ai - ci) * w2r;
            yr[3 * n + i] = (br - fr) * w3r - (bi - fi) * w3i;
            yi[3 * n + i] = (br - fr) * w3i + (bi - fi) * w3r;
        }
    }
}

/* Any radix, by its definition; the twiddle is folded in. */
static void stage_any(const stage *s) {
    int64_t m = s->length / s->radix, n = s->stride;
    for (int64_t p = 0; p < m; p++)
        for (int64_t k = 0; k < s->radix; k++) {
            float *yr = s->y.re + (s->radix * p + k) * n, *yi = s->y.im + (s->radix * p + k) * n;
            float tr, ti;
            twiddle(&tr, &ti, s, p * k);
            memset(yr, 0, (size_t)n * sizeof *yr);
            memset(yi, 0, (size_t)n * sizeof *yi);
            for (int64_t j = 0; j < s->radix; j++) {
                const float *xr = s->x.re + (p + j * m) * n, *xi = s->x.im + (p + j * m) * n;
                float jr, ji;
                twiddle(&jr, &ji, s, j * k % s->radix * m);
                float wr = jr * tr - ji * ti, wi = jr * ti + ji * tr;
                for (int64_t i = 0; i < n; i++) {
                    yr[i] += xr[i] * wr - xi[i] * wi;
                    yi[i] += xr[i] * wi + xi[i] * wr;
                }
            }
        }
}

static int64_t next_radix(int64_t length) {
    if (length % 4 == 0)
        return 4;
    for (int64_t radix = 2; radix * radix <= length; radix++)
        if (length % radix == 0)
            return radix;
    return length;
}

/* Transforms x in place of either block; returns the one that holds the result. */
static complex_block transform(const spectrum_context *c, complex_block x, complex_block y,
                               int64_t width, float sign) {
    stage s = {.c = c, .x = x, .y = y, .length = c->call->rows, .stride = width, .sign = sign};
    while (s.length > 1) {
        s.radix = next_radix(s.length);
        if (s.radix == 4)
            stage_4(&s);
        else if (s.radix == 2)
            stage_2(&s);
        else
            stage_any(&s);
        complex_block kept = s.x;
        s.x = s.y;
        s.y = kept;
        s.length /= s.radix;
        s.stride *= s.radix;
    }
    return s.x;
}

/* ---- Coefficients: the parts that one has in its row and in the mirrored row ---- */

typedef struct coefficient {
    int64_t row, mirrored, step; /* step: of the wave, from one column to the next */
} coefficient;

static coefficient coefficient_at(const spectrum_call *call, int64_t k) {
    int64_t u = call->place[k] / call->cols;
    return (coefficient){
        .row = u, .mirrored = u ? call->rows - u : 0, .step = call->place[k] % call->cols};
}

/* Waves of a pair of columns q and q + pairs; the second may not be there. */
typedef struct wave_pair {
    float cos1, sin1, cos2, sin2;
} wave_pair;

static wave_pair waves_at(const spectrum_context *c, int64_t q, int64_t first, int64_t second) {
    bool has_second = q + c->pairs < c->call->cols;
    return (wave_pair){.cos1 = c->col_cos[first],
                       .sin1 = c->col_sin[first],
                       .cos2 = has_second ? c->col_cos[second] : 0,
                       .sin2 = has_second ? c->col_sin[second] : 0};
}

static void add_coefficient(const spectrum_context *c, complex_block z, int64_t k, int64_t begin,
                            int64_t width) {
    const spectrum_call *call = c->call;
    coefficient of = coefficient_at(call, k);
    float half = 0.5f * cpu_array_const(call->c)[k];
    float *re = z.re + of.row * width, *im = z.im + of.row * width;
    float *mirrored_re = z.re + of.mirrored * width, *mirrored_im = z.im + of.mirrored * width;
    int64_t first = begin * of.step % call->cols,
            second = (begin + c->pairs) * of.step % call->cols;
    for (int64_t i = 0; i < width; i++) {
        wave_pair w = waves_at(c, begin + i, first, second);
        re[i] += half * (w.cos1 - w.sin2);
        im[i] += half * (w.sin1 + w.cos2);
        mirrored_re[i] += half * (w.cos1 + w.sin2);
        mirrored_im[i] += half * (w.cos2 - w.sin1);
        first = first + of.step < call->cols ? first + of.step : first + of.step - call->cols;
        second = second + of.step < call->cols ? second + of.step : second + of.step - call->cols;
    }
}

static float coefficient_gradient(const spectrum_context *c, complex_block z, int64_t k,
                                  int64_t begin, int64_t width) {
    const spectrum_call *call = c->call;
    coefficient of = coefficient_at(call, k);
    const float *re = z.re + of.row * width, *im = z.im + of.row * width;
    const float *mirrored_re = z.re + of.mirrored * width,
                *mirrored_im = z.im + of.mirrored * width;
    int64_t first = begin * of.step % call->cols,
            second = (begin + c->pairs) * of.step % call->cols;
    float sum = 0;
    for (int64_t i = 0; i < width; i++) {
        wave_pair w = waves_at(c, begin + i, first, second);
        sum += re[i] * (w.cos1 - w.sin2) + im[i] * (w.sin1 + w.cos2) +
               mirrored_re[i] * (w.cos1 + w.sin2) + mirrored_im[i] * (w.cos2 - w.sin1);
        first = first + of.step < call->cols ? first + of.step : first + of.step - call->cols;
        second = second + of.step < call->cols ? second + of.step : second + of.step - call->cols;
    }
    return 0.5f * sum;
}

/* ---- Tasks: a block of column pairs ---- */

typedef struct block_place {
    int64_t begin, width;
    complex_block x, y;
} block_place;

static block_place place_of(const spectrum_context *c, float *scratch, int64_t i) {
    int64_t begin = i * c->block;
    int64_t width = c->pairs - begin < c->block ? c->pairs - begin : c->block;
    int64_t n = c->call->rows * width;
    return (block_place){.begin = begin,
                         .width = width,
                         .x = {scratch, scratch + n},
                         .y = {scratch + 2 * n, scratch + 3 * n}};
}

static void forward_task(void *context, int64_t i, int32_t thread) {
    const spectrum_context *c = context;
    const spectrum_call *call = c->call;
    block_place b = place_of(c, cpu_scratch(c->cpu, thread), i);
    float scale = (float)call->scale;
    memset(b.x.re, 0, (size_t)(2 * call->rows * b.width) * sizeof(float));
    for (int64_t k = 0; k < call->n; k++)
        add_coefficient(c, b.x, k, b.begin, b.width);
    complex_block z = transform(c, b.x, b.y, b.width, 1);
    for (int64_t p = 0; p < call->rows; p++) {
        float *row = c->w + p * call->cols + b.begin;
        for (int64_t q = 0; q < b.width; q++)
            row[q] += scale * z.re[p * b.width + q];
        for (int64_t q = 0; q < b.width && b.begin + c->pairs + q < call->cols; q++)
            row[c->pairs + q] += scale * z.im[p * b.width + q];
    }
}

static void backward_task(void *context, int64_t i, int32_t thread) {
    const spectrum_context *c = context;
    const spectrum_call *call = c->call;
    block_place b = place_of(c, cpu_scratch(c->cpu, thread), i);
    for (int64_t p = 0; p < call->rows; p++) {
        const float *row = c->d_w + p * call->cols + b.begin;
        for (int64_t q = 0; q < b.width; q++) {
            b.x.re[p * b.width + q] = row[q];
            b.x.im[p * b.width + q] = b.begin + c->pairs + q < call->cols ? row[c->pairs + q] : 0;
        }
    }
    complex_block z = transform(c, b.x, b.y, b.width, -1);
    for (int64_t k = 0; k < call->n; k++)
        c->partial[i * call->n + k] = coefficient_gradient(c, z, k, b.begin, b.width);
}

void cpu_spectrum_fwd(backend *dev, device_array *w, const spectrum_call *call) {
    spectrum_context c = context_of(call);
    c.w = cpu_array(w);
    c.cpu = cpu_of(dev);
    cpu_run_tasks(cpu_of(dev), c.n_blocks, forward_task, &c);
}

void cpu_spectrum_bwd(backend *dev, device_array *d_c, const device_array *d_w,
                      const spectrum_call *call) {
    spectrum_context c = context_of(call);
    c.d_w = cpu_array_const(d_w);
    c.partial = cpu_array(call->scratch);
    c.cpu = cpu_of(dev);
    cpu_run_tasks(cpu_of(dev), c.n_blocks, backward_task, &c);
    for (int64_t k = 0; k < call->n; k++) {
        float sum = 0;
        for (int64_t i = 0; i < c.n_blocks; i++)
            sum += c.partial[i * call->n + k];
        cpu_array(d_c)[k] += (float)call->scale * sum;
    }
}
