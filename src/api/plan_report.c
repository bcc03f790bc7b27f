#include "api/plan_report.h"

#include "api/report.h"

#include <stdio.h>

/* Of one step, on average over the steps counted. */
static double per_step(const plan_facts *f, double sum) {
    return f->cost.steps > 0 ? sum / (double)f->cost.steps : 0;
}

static double per_token(const plan_facts *f, double sum) {
    return f->cost.tokens > 0 ? sum / (double)f->cost.tokens : 0;
}

static double all_flops(const step_cost *c) {
    return flop_total(&c->forward) + flop_total(&c->backward) + flop_total(&c->recompute);
}

/* ---- JSON ---- */

static json_t *components_json(const size_t bytes[N_COMPONENTS]) {
    json_t *object = json_object();
    for (int i = 0; i < N_COMPONENTS; i++)
        report_set(&object, component_name((component)i), json_integer((json_int_t)bytes[i]));
    return object;
}

static json_t *bytes_json(const memory_plan *p) {
    json_t *object = json_object();
    report_set(&object, "weights_mapped", json_integer((json_int_t)p->model_mapped));
    report_set(&object, "weights_uploaded", json_integer((json_int_t)p->model_uploaded));
    report_set(&object, "trainer", components_json(p->trainer));
    report_set(&object, "step", components_json(p->step));
    report_set(&object, "backend_workspace", json_integer((json_int_t)p->backend_workspace));
    report_set(&object, "host", json_integer((json_int_t)p->host));
    report_set(&object, "total", json_integer((json_int_t)p->total));
    return object;
}

static json_t *flops_json(const plan_facts *f, const flop_count *count) {
    json_t *object = json_object();
    report_set(&object, "frozen", report_number(per_step(f, count->frozen)));
    report_set(&object, "trained", report_number(per_step(f, count->trained)));
    report_set(&object, "attention", report_number(per_step(f, count->attention)));
    report_set(&object, "step", report_number(per_step(f, flop_total(count))));
    report_set(&object, "token", report_number(per_token(f, flop_total(count))));
    return object;
}

static json_t *cost_json(const plan_facts *f) {
    const step_cost *c = &f->cost;
    json_t *object = json_object();
    report_set(&object, "forward", flops_json(f, &c->forward));
    report_set(&object, "backward", flops_json(f, &c->backward));
    report_set(&object, "recompute", flops_json(f, &c->recompute));
    report_set(&object, "head", report_number(per_step(f, c->head)));
    report_set(&object, "step", report_number(per_step(f, all_flops(c))));
    report_set(&object, "token", report_number(per_token(f, all_flops(c))));
    report_set(&object, "steps_counted", json_integer((json_int_t)c->steps));
    report_set(&object, "tokens_a_step", report_number(per_step(f, (double)c->tokens)));
    return object;
}

static json_t *time_json(const plan_facts *f) {
    const time_estimate *t = &f->time;
    json_t *object = json_object(), *rates = json_object();
    report_set(&rates, "product_forward_gflops", report_number(t->product_fwd * 1e-9));
    report_set(&rates, "product_backward_gflops", report_number(t->product_bwd * 1e-9));
    report_set(&rates, "low_rank_gflops", report_number(t->thin * 1e-9));
    report_set(&rates, "attention_forward_gflops", report_number(t->attention_fwd * 1e-9));
    report_set(&rates, "attention_backward_gflops", report_number(t->attention_bwd * 1e-9));
    report_set(&rates, "copy_bytes_per_second", report_number(t->copy));
    report_set(&object, "measured_now", rates);
    report_set(&object, "step_seconds", report_number(t->step_s));
    report_set(&object, "tokens_per_second", report_number(t->tokens_per_second));
    report_set(&object, "steps", json_integer((json_int_t)f->steps));
    report_set(&object, "seconds", report_number(t->step_s * (double)f->steps));
    return object;
}

static json_t *advice_json(const plan_facts *f) {
    json_t *list = json_array();
    for (int i = 0; i < f->n_advice; i++) {
        json_t *one = json_object();
        report_set(&one, "change", json_string(f->advice[i].change));
        report_set(&one, "total_bytes", json_integer((json_int_t)f->advice[i].total));
        report_add(&list, one);
    }
    return list;
}

static json_t *generation_json(const plan_facts *f) {
    json_t *object = json_object();
    report_set(&object, "kv_cache_bytes_per_token", json_integer((json_int_t)f->kv_token_bytes));
    report_set(&object, "kv_cache_bytes_of_longest_row",
               json_integer((json_int_t)f->kv_token_bytes * f->shape.longest_row));
    return object;
}

json_t *plan_json(const plan_facts *f) {
    const memory_plan *p = &f->memory;
    json_t *object = json_object();
    report_set(&object, "parameters", json_integer((json_int_t)p->parameters));
    report_set(&object, "trained_parameters", json_integer((json_int_t)p->trained));
    report_set(&object, "trained_share", report_number((double)p->trained / (double)p->parameters));
    report_set(&object, "rows", json_integer((json_int_t)f->shape.rows));
    report_set(&object, "row_tokens", json_integer(f->shape.longest_row));
    report_set(&object, "per_device_train_batch_size",
               json_integer(f->config->per_device_train_batch_size));
    report_set(&object, "gradient_accumulation_steps",
               json_integer(f->config->gradient_accumulation_steps));
    report_set(&object, "gradient_checkpointing",
               json_boolean(p->layers_from_input > 0 || p->layers_without_mlp > 0));
    report_set(&object, "layers", json_integer(p->backward_layers));
    report_set(&object, "layers_from_input", json_integer(p->layers_from_input));
    report_set(&object, "layers_without_mlp", json_integer(p->layers_without_mlp));
    report_set(&object, "micro_batch_tokens", json_integer(p->max_tokens));
    report_set(&object, "fits", json_boolean(f->fits));
    report_set(&object, "memory_limit_bytes", json_integer((json_int_t)f->limit_bytes));
    report_set(&object, "machine_memory_bytes", json_integer((json_int_t)f->machine_bytes));
    report_set(&object, "bytes", bytes_json(p));
    report_set(&object, "generation", generation_json(f));
    report_set(&object, "flops", cost_json(f));
    report_set(&object, "time", time_json(f));
    report_set(&object, "advice", advice_json(f));
    return object;
}

/* ---- Text ---- */

static void add_bar(strbuf *text, const char *label, size_t bytes, size_t total, const char *note) {
    enum { WIDTH = 30 };
    int filled = total ? (int)((double)bytes / (double)total * WIDTH + 0.5) : 0;
    strbuf_printf(text, "  %-15s %10s", label, size_text((double)bytes));
    strbuf_add_text(text, filled || *note ? "  " : "");
    for (int i = 0; i < filled; i++)
        strbuf_add_text(text, "█");
    strbuf_printf(text, "%s%s\n", filled && *note ? " " : "", note);
}

static void add_memory(strbuf *text, const plan_facts *f) {
    const memory_plan *p = &f->memory;
    char note[96];
    strbuf_add_text(text, "\nMemory\n");
    add_bar(text, "base weights",
            p->model_mapped + p->model_uploaded + p->trainer[COMPONENT_WEIGHTS], p->total,
            p->trainer[COMPONENT_WEIGHTS] ? "mapped from disk, and f32 copies that train"
                                          : "mapped from disk, shared");
    add_bar(text, "adapter", p->trainer[COMPONENT_ADAPTER], p->total, "");
    add_bar(text, "gradients", p->trainer[COMPONENT_GRADIENTS], p->total, "");
    add_bar(text, "optimizer", p->trainer[COMPONENT_OPTIMIZER], p->total, "two moments");
    add_bar(text, "activations", p->step[COMPONENT_ACTIVATIONS], p->total, "");
    add_bar(text, "workspace", p->step[COMPONENT_WORKSPACE] + p->trainer[COMPONENT_WORKSPACE],
            p->total, "");
    snprintf(note, sizeof note, "%s a token when it generates",
             size_text((double)f->kv_token_bytes));
    add_bar(text, "KV cache", 0, p->total, note);
    add_bar(text, "everything else", p->backend_workspace + p->host, p->total,
            "kernels' scratch, batches");
    strbuf_printf(text, "  %-15s %10s\n", "total", size_text((double)p->total));
    strbuf_printf(text, "  %-15s %10s of %s\n\n", "may be used", size_text((double)f->limit_bytes),
                  size_text((double)f->machine_bytes));
    if (f->fits)
        strbuf_add_text(text, "It fits.\n");
    else
        strbuf_printf(text, "It does not fit: %s.\n", f->reason.message);
    for (int i = 0; i < f->n_advice; i++)
        strbuf_printf(text, "%s  %-56s %s\n", i == 0 ? "Any of these makes it fit:\n" : "",
                      f->advice[i].change, size_text((double)f->advice[i].total));
    if (!f->fits && f->n_advice == 0)
        strbuf_add_text(text,
                        "No change of batch, length, rank or checkpointing makes it fit: take "
                        "a smaller base model, or more memory.\n");
}

/* "1.23 TFLOP" in static storage, four in turn. */
static const char *flops_text(double flops) {
    static char texts[4][32];
    static unsigned turn;
    static const char *const units[] = {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"};
    char *text = texts[turn++ % 4];
    int unit = 0;
    for (; flops >= 1000 && unit < 5; unit++)
        flops /= 1000;
    snprintf(text, sizeof texts[0], "%.3g %s", flops, units[unit]);
    return text;
}

static void add_pass(strbuf *text, const plan_facts *f, const char *label,
                     const flop_count *count) {
    double total = flop_total(count);
    if (total > 0)
        report_line(text, label,
                    "%s a step, %s a token (%.0f%% frozen, %.0f%% trained, %.0f%% "
                    "attention)",
                    flops_text(per_step(f, total)), flops_text(per_token(f, total)),
                    100 * count->frozen / total, 100 * count->trained / total,
                    100 * count->attention / total);
}

/* "1 h 12 min" in static storage. */
static const char *duration(double seconds) {
    static char text[32];
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, sizeof text, "%ld h %ld min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(text, sizeof text, "%ld min %ld s", s / 60, s % 60);
    else
        snprintf(text, sizeof text, "%.2g s", seconds);
    return text;
}

static void add_cost(strbuf *text, const plan_facts *f) {
    const time_estimate *t = &f->time;
    strbuf_add_text(text, "\nWork\n");
    add_pass(text, f, "forward", &f->cost.forward);
    add_pass(text, f, "backward", &f->cost.backward);
    add_pass(text, f, "again", &f->cost.recompute);
    report_line(text, "head's share", "%.1f%%, for labelled tokens alone",
                100 * f->cost.head / all_flops(&f->cost));
    strbuf_add_text(text, "\nTime (estimated from rates measured now at these shapes)\n");
    report_line(text, "rates",
                "products %.0f forward, %.0f backward, low rank %.0f, attention %.0f / %.0f "
                "GFLOP/s, copying %s/s",
                t->product_fwd * 1e-9, t->product_bwd * 1e-9, t->thin * 1e-9,
                t->attention_fwd * 1e-9, t->attention_bwd * 1e-9, size_text(t->copy));
    report_line(text, "a step", "%s (%.0f tokens), %.0f tokens/s", duration(t->step_s),
                per_step(f, (double)f->cost.tokens), t->tokens_per_second);
    if (f->steps > 0)
        report_line(text, "the run", "%s steps, %s", count_text(f->steps),
                    duration(t->step_s * (double)f->steps));
}

void plan_text(strbuf *text, const plan_facts *f) {
    const memory_plan *p = &f->memory;
    char keep[KEEP_TEXT];
    strbuf_printf(text, "%s (%s), %s\n", f->title, f->opened->spec.model_type,
                  f->opened->adapter->method->name);
    report_line(text, "parameters", "%s", count_text(p->parameters));
    report_line(text, "trained", "%s (%.3f%%), %s in f32 on disk", count_text(p->trained),
                100.0 * (double)p->trained / (double)p->parameters,
                size_text(4.0 * (double)p->trained));
    if (f->has_data)
        report_line(text, "data", "%s rows, %s tokens, of them supervised %s",
                    count_text(f->shape.rows), count_text(f->tokens), count_text(f->supervised));
    report_line(text, "longest row", "%s tokens%s", count_text(f->shape.longest_row),
                f->has_data ? ""
                            : " (--max-length and the model's context; --data tells the real one)");
    report_line(text, "step", "%s rows, in micro-batches of at most %s tokens",
                count_text((int64_t)f->config->per_device_train_batch_size *
                           f->config->gradient_accumulation_steps),
                count_text(p->max_tokens));
    report_line(text, "checkpointing", "%s", memory_plan_keep_text(keep, p));
    add_memory(text, f);
    add_cost(text, f);
}
