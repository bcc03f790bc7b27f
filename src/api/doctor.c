/* graft_doctor: this machine, and whether the kernels compute what the reference computes. */
#include "api/open.h"
#include "api/probes.h"
#include "api/report.h"

#include "base/memory.h"
#include "plan/rates.h"
#include "train/free_memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct checkup {
    json_t *json;
    strbuf text;
    bool failed;
} checkup;

/* What --compute bf16 and int8 would run on here. */
static void describe_compute(checkup *c, const cpu_features *used) {
    json_t *types = json_object();
    for (compute_type type = COMPUTE_BF16; type < N_COMPUTE_TYPES; type++) {
        bool gains;
        const char *kernels = backend_cpu_compute_kernels(&gains, type, used);
        json_t *one = json_object();
        report_set(&one, "kernels", json_string(kernels));
        report_set(&one, "gains", json_boolean(gains));
        report_set(&types, compute_type_name(type), one);
        report_line(&c->text, compute_type_name(type), "%s%s", kernels,
                    gains ? "" : ": little or no gain over f32, refused");
    }
    report_set(&c->json, "compute", types);
}

static void describe_machine(checkup *c, const cpu_features *all, const cpu_features *used,
                             const backend *dev) {
    json_t *list = json_array();
    strbuf names = {0};
    for (size_t i = 0; cpu_features_name(i); i++)
        if (cpu_features_has(all, i)) {
            report_add(&list, json_string(cpu_features_name(i)));
            strbuf_printf(&names, "%s%s", names.length ? " " : "", cpu_features_name(i));
        }
    report_set(&c->json, "processor", json_string(all->model));
    report_set(&c->json, "features", list);
    report_set(&c->json, "kernels", json_string(backend_cpu_kernels(used)));
    report_set(&c->json, "threads", json_integer(dev->n_threads));
    report_line(&c->text, "processor", "%s", all->model);
    report_line(&c->text, "features", "%s",
                names.length ? strbuf_text(&names) : "none that Graft uses");
    report_line(&c->text, "kernels", "%s", backend_cpu_kernels(used));
    describe_compute(c, used);
    report_line(&c->text, "threads", "%d (%d cores)", (int)dev->n_threads, all->cores);
    report_line(&c->text, "caches", "L1 %s, L2 %s, L3 %s", size_text((double)all->l1d_bytes),
                size_text((double)all->l2_bytes), size_text((double)all->l3_bytes));
    strbuf_free(&names);
    int64_t free_bytes = free_memory_bytes("");
    report_set(&c->json, "free_memory_bytes", json_integer((json_int_t)free_bytes));
    report_line(&c->text, "free memory", "%s", size_text((double)free_bytes));
}

/* The arithmetics that the machine gains by, on weights stored in bf16, as most are. */
static void measure_compute(checkup *c, backend *dev, const cpu_features *used) {
    json_t *rates = json_object();
    for (compute_type type = COMPUTE_BF16; type < N_COMPUTE_TYPES; type++) {
        if (backend_set_compute(dev, type, used, false, NULL) != GRAFT_OK)
            continue;
        const product_shape shape = {.tokens = 512, .in = 1024, .out = 1024, .type = DTYPE_BF16};
        double rate = rate_product(dev, &shape, false, 0.3) * 1e-9;
        report_set(&rates, compute_type_name(type), report_number(rate));
        char label[32];
        snprintf(label, sizeof label, "computed in %s", compute_type_name(type));
        report_line(&c->text, label, "%.1f GFLOP/s (BF16 weights)", rate);
    }
    backend_set_compute(dev, COMPUTE_F32, used, false, NULL);
    report_set(&c->json, "compute_gflops", rates);
}

static void measure_rates(checkup *c, backend *dev, const cpu_features *used) {
    static const dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    json_t *products = json_object();
    strbuf_add_text(&c->text, "\nMeasured\n");
    for (int i = 0; i < 3; i++) {
        const product_shape shape = {.tokens = 512, .in = 1024, .out = 1024, .type = types[i]};
        double rate = rate_product(dev, &shape, false, 0.3) * 1e-9;
        report_set(&products, dtype_name(types[i]), report_number(rate));
        char label[32];
        snprintf(label, sizeof label, "product, %s", dtype_name(types[i]));
        report_line(&c->text, label, "%.1f GFLOP/s (512 tokens, 1024 x 1024)", rate);
    }
    report_set(&c->json, "product_gflops", products);
    measure_compute(c, dev, used);
    double copied = rate_copy(dev, 0.3);
    report_set(&c->json, "copy_bytes_per_second", report_number(copied));
    report_line(&c->text, "copying", "%s/s", size_text(copied));
}

static graft_status check_kernel(checkup *c, json_t **results, const char *name, const probe *p,
                                 backend *dev, backend *reference, graft_error *err) {
    graft_status status = GRAFT_OK;
    float *got = mem_array((size_t)p->n_results, sizeof *got),
          *expected = mem_array((size_t)p->n_results, sizeof *got);
    if (!got || !expected || !p->run(dev, got) || !p->run(reference, expected)) {
        status = error_memory(err, (size_t)p->n_results * sizeof *got, "a probe");
    } else {
        double difference = probe_difference(got, expected, p->n_results);
        bool good = difference <= p->tolerance;
        c->failed = c->failed || !good;
        json_t *result = json_object();
        report_set(&result, "difference", report_number(difference));
        report_set(&result, "ok", json_boolean(good));
        report_set(results, name, result);
        report_line(&c->text, name, "%s  largest difference %.1e (allowed %.0e)",
                    good ? "ok  " : "WRONG", difference, p->tolerance);
    }
    free(got);
    free(expected);
    return status;
}

static const probe *probe_named(const char *name) {
    size_t i = 0;
    while (strcmp(probe_at(i)->name, name) != 0)
        i++;
    return probe_at(i);
}

static graft_status check_kernels(checkup *c, backend *dev, const cpu_features *used,
                                  graft_error *err) {
    backend *reference = NULL;
    graft_status status = backend_create_reference(&reference, err);
    json_t *results = json_object();
    strbuf_add_text(&c->text, "\nKernels against the reference in double precision\n");
    for (size_t i = 0; status == GRAFT_OK && probe_at(i); i++)
        status = check_kernel(c, &results, probe_at(i)->name, probe_at(i), dev, reference, err);
    for (compute_type type = COMPUTE_BF16; status == GRAFT_OK && type < N_COMPUTE_TYPES; type++) {
        char name[32];
        snprintf(name, sizeof name, "linear_%s", compute_type_name(type));
        status = backend_set_compute(dev, type, used, true, err);
        if (status == GRAFT_OK)
            status = backend_set_compute(reference, type, used, true, err);
        if (status == GRAFT_OK)
            status = check_kernel(c, &results, name, probe_named("linear"), dev, reference, err);
    }
    report_set(&c->json, "checks", results);
    backend_destroy(&reference);
    return status;
}

graft_status graft_doctor(const graft_sink *sink, graft_format format, const graft_recipe *recipe,
                          graft_error *err) {
    opened o = opened_begin(recipe, NULL);
    checkup c = {.json = json_object()};
    cpu_features all = cpu_features_detect(), used;
    graft_status status = recipe_features(&used, recipe, err);
    if (status == GRAFT_OK)
        status = open_backend(&o, err);
    if (status == GRAFT_OK) {
        describe_machine(&c, &all, &used, o.dev);
        measure_rates(&c, o.dev, &used);
        status = check_kernels(&c, o.dev, &used, err);
    }
    if (status == GRAFT_OK)
        status = format.json ? report_finish_json(sink, json_incref(c.json), err)
                             : report_finish(sink, &c.text, err);
    if (status == GRAFT_OK && c.failed)
        status = error_set(err, GRAFT_E_INTERNAL,
                           "a kernel disagrees with the reference on this machine (above): use "
                           "--cpu-features none, and report it");
    strbuf_free(&c.text);
    json_decref(c.json);
    opened_close(&o);
    return status;
}
