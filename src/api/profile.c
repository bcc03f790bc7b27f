#include "api/profile.h"

#include "api/report.h"
#include "backend/meter/meter.h"
#include "plan/rates.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static_assert(N_METER_OPS <= (int)GRAFT_PROFILE_OPS_MAX, "graft_profile has no room for every op");

/* A peak is the best of several short measurements: neighbours come and go. */
enum { PEAK_TRIES = 3 };
static const double PEAK_SECONDS = 0.03;

graft_status profile_begin(opened *o, graft_error *err) {
    const graft_option *option = graft_option_find("profile");
    if (!(option->verbs & recipe_verb(o->recipe)) || !recipe_flag(o->recipe, "profile"))
        return GRAFT_OK;
    backend *inner = o->dev;
    return backend_create_meter(&o->dev, inner, err);
}

static int by_seconds_descending(const void *a, const void *b) {
    double x = ((const graft_profile_op *)a)->seconds, y = ((const graft_profile_op *)b)->seconds;
    return (x < y) - (x > y);
}

static void measure_peaks(graft_profile *out, backend *dev) {
    const product_shape large = {.tokens = 512, .in = 1024, .out = 1024, .type = DTYPE_F32};
    for (int i = 0; i < PEAK_TRIES; i++) {
        double flops = rate_product(dev, &large, false, PEAK_SECONDS),
               bytes = rate_copy(dev, PEAK_SECONDS);
        out->peak_flops = flops > out->peak_flops ? flops : out->peak_flops;
        out->peak_bytes = bytes > out->peak_bytes ? bytes : out->peak_bytes;
    }
}

void profile_take(graft_profile *out, const opened *o, double seconds) {
    const meter_tally *tallies = meter_tallies(o->dev);
    *out = (graft_profile){.seconds = seconds};
    if (!tallies)
        return;
    for (int i = 0; i < N_METER_OPS; i++)
        if (tallies[i].calls > 0)
            out->ops[out->n_ops++] = (graft_profile_op){.name = meter_op_name((meter_op)i),
                                                        .calls = tallies[i].calls,
                                                        .seconds = tallies[i].seconds,
                                                        .flops = tallies[i].cost.flops,
                                                        .bytes = tallies[i].cost.bytes};
    qsort(out->ops, out->n_ops, sizeof *out->ops, by_seconds_descending);
    measure_peaks(out, o->dev);
    meter_reset(o->dev);
}

static double rate(double amount, double seconds) {
    return seconds > 0 ? amount / seconds : 0;
}

/* Of the peak that bounds the op: operations where it has any, else bytes. */
static double share_of_peak(const graft_profile *p, const graft_profile_op *op) {
    double peak = op->flops > 0 ? p->peak_flops : p->peak_bytes;
    double reached = rate(op->flops > 0 ? op->flops : op->bytes, op->seconds);
    return peak > 0 ? reached / peak : 0;
}

static double seconds_in_ops(const graft_profile *p) {
    double seconds = 0;
    for (size_t i = 0; i < p->n_ops; i++)
        seconds += p->ops[i].seconds;
    return seconds;
}

void profile_set(json_t **object, const graft_profile *p) {
    if (p->n_ops == 0)
        return;
    json_t *profile = json_object(), *ops = json_array();
    for (size_t i = 0; i < p->n_ops; i++) {
        const graft_profile_op *op = &p->ops[i];
        json_t *one = json_object();
        report_set(&one, "op", json_string(op->name));
        report_set(&one, "calls", json_integer((json_int_t)op->calls));
        report_set(&one, "seconds", report_number(op->seconds));
        report_set(&one, "gflops", report_number(1e-9 * rate(op->flops, op->seconds)));
        report_set(&one, "gb_per_second", report_number(1e-9 * rate(op->bytes, op->seconds)));
        report_set(&one, "of_peak", report_number(share_of_peak(p, op)));
        report_set(&one, "flops", report_number(op->flops));
        report_add(&ops, one);
    }
    report_set(&profile, "seconds", report_number(p->seconds));
    report_set(&profile, "seconds_in_ops", report_number(seconds_in_ops(p)));
    report_set(&profile, "peak_gflops", report_number(1e-9 * p->peak_flops));
    report_set(&profile, "peak_gb_per_second", report_number(1e-9 * p->peak_bytes));
    report_set(&profile, "ops", ops);
    report_set(object, "profile", profile);
}

void profile_text(strbuf *text, const graft_profile *p) {
    if (p->n_ops == 0)
        return;
    double inside = seconds_in_ops(p);
    strbuf_printf(text,
                  "\n%.2f s, of them %.2f outside ops; peaks measured now: products %.1f GFLOP/s, "
                  "copying %.1f GB/s\n",
                  p->seconds, p->seconds > inside ? p->seconds - inside : 0, 1e-9 * p->peak_flops,
                  1e-9 * p->peak_bytes);
    strbuf_printf(text, "  %-16s %9s %9s %7s %9s %7s %8s\n", "op", "calls", "seconds", "share",
                  "GFLOP/s", "GB/s", "of peak");
    for (size_t i = 0; i < p->n_ops; i++) {
        const graft_profile_op *op = &p->ops[i];
        char flops[16] = "";
        if (op->flops > 0)
            snprintf(flops, sizeof flops, "%.1f", 1e-9 * rate(op->flops, op->seconds));
        strbuf_printf(text, "  %-16s %9lld %9.3f %6.1f%% %9s %7.1f %7.0f%%\n", op->name,
                      (long long)op->calls, op->seconds,
                      p->seconds > 0 ? 100 * op->seconds / p->seconds : 0, flops,
                      1e-9 * rate(op->bytes, op->seconds), 100 * share_of_peak(p, op));
    }
}

graft_status graft_profile_write(const graft_sink *sink, const graft_profile *p, graft_error *err) {
    strbuf text = {0};
    profile_text(&text, p);
    return report_finish(sink, &text, err);
}
