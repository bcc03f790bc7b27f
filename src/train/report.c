#include "train/report.h"

#include "base/memory.h"
#include "formats/svg.h"
#include "train/memory_plan.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

const char report_style[] =
    ":root{color-scheme:light dark;--accent:#0b6e4f}\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}\n"
    "h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}\n"
    ".tiles{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}\n"
    ".tile{border:1px solid #8884;border-radius:.5rem;padding:.5rem .9rem}\n"
    ".tile b{display:block;font-size:1.15rem}.tile span,.quiet{opacity:.7;font-size:.85rem}\n"
    "table{border-collapse:collapse}td,th{padding:.2rem .9rem .2rem 0;text-align:left}\n"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}tr.total td{font-weight:600}\n"
    "pre{background:#8881;border-radius:.5rem;padding:.8rem;overflow:auto;font-size:.85rem}\n"
    "svg{width:100%;height:auto}.two{display:grid;grid-template-columns:1fr 1fr;gap:1rem}\n";

enum { CHART_WIDTH = 900, CHART_HEIGHT = 320, HALF_WIDTH = 440, HALF_HEIGHT = 220 };

void smooth_curve(double *smoothed, const double *values, size_t n) {
    double weight = 1.8 * (1.0 / (1.0 + exp(-0.05 * (double)n)) - 0.5);
    double last = (double)NAN;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(last))
            last = values[i];
        else if (isfinite(values[i]))
            last = last * weight + (1 - weight) * values[i];
        smoothed[i] = last;
    }
}

/* ---- Curves ---- */

typedef struct curves {
    double *x, *loss, *smoothed, *learning_rate, *grad_norm; /* [n] */
    double *eval_x, *eval_loss;                              /* [n_evaluations] */
    size_t n, n_evaluations;
} curves;

static void curves_free(curves *c) {
    double *const all[] = {c->x,         c->loss,   c->smoothed, c->learning_rate,
                           c->grad_norm, c->eval_x, c->eval_loss};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static graft_status curves_create(curves *c, const metrics_history *history, graft_error *err) {
    *c = (curves){.n = history->n_steps, .n_evaluations = history->n_evaluations};
    double **const of_steps[] = {&c->x, &c->loss, &c->smoothed, &c->learning_rate, &c->grad_norm};
    bool is_whole = true;
    for (size_t i = 0; i < sizeof of_steps / sizeof *of_steps; i++)
        is_whole = (*of_steps[i] = mem_array(c->n, sizeof(double))) && is_whole;
    c->eval_x = mem_array(c->n_evaluations, sizeof(double));
    c->eval_loss = mem_array(c->n_evaluations, sizeof(double));
    if (!is_whole || !c->eval_x || !c->eval_loss) {
        curves_free(c);
        return error_memory(err, c->n * sizeof(double), "the report");
    }
    for (size_t i = 0; i < c->n; i++) {
        const metrics_point *point = &history->steps[i];
        c->x[i] = (double)point->step;
        c->loss[i] = (double)point->loss;
        c->learning_rate[i] = (double)point->learning_rate;
        c->grad_norm[i] = (double)point->grad_norm;
    }
    for (size_t i = 0; i < c->n_evaluations; i++) {
        c->eval_x[i] = (double)history->evaluations[i].step;
        c->eval_loss[i] = history->evaluations[i].loss;
    }
    smooth_curve(c->smoothed, c->loss, c->n);
    return GRAFT_OK;
}

static void write_charts(strbuf *html, const curves *c) {
    const svg_series loss[] = {
        {"loss", "#6aa9d8", c->x, c->loss, c->n, 1, 0.55},
        {"smoothed", "#1f5fa8", c->x, c->smoothed, c->n, 2, 1},
        {"evaluation", "#d9662b", c->eval_x, c->eval_loss, c->n_evaluations, 0, 1},
    };
    const svg_series rate = {"learning rate", "#0b6e4f", c->x, c->learning_rate, c->n, 1.5, 1};
    const svg_series norm = {"gradient norm", "#7a4fa3", c->x, c->grad_norm, c->n, 1, 1};
    const svg_chart whole = {"Loss",       "step", CHART_WIDTH,
                             CHART_HEIGHT, loss,   c->n_evaluations ? 3 : 2};
    const svg_chart left = {"Learning rate", "step", HALF_WIDTH, HALF_HEIGHT, &rate, 1};
    const svg_chart right = {
        "Gradient norm before clipping", "step", HALF_WIDTH, HALF_HEIGHT, &norm, 1};
    svg_line_chart(html, &whole);
    strbuf_add_text(html, "<div class=\"two\">\n");
    svg_line_chart(html, &left);
    svg_line_chart(html, &right);
    strbuf_add_text(html, "</div>\n");
}

/* ---- Numbers ---- */

static void tile(strbuf *html, const char *name, const char *format, double value) {
    if (!isfinite(value))
        return;
    strbuf_add_text(html, "<div class=\"tile\"><b>");
    strbuf_printf(html, format, value); /* formats are this file's own */
    strbuf_printf(html, "</b><span>%s</span></div>\n", name);
}

/* 1,234,567 */
static void tile_count(strbuf *html, const char *name, int64_t value) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%" PRId64, value);
    strbuf_add_text(html, "<div class=\"tile\"><b>");
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            strbuf_add_char(html, ',');
        strbuf_add_char(html, digits[i]);
    }
    strbuf_printf(html, "</b><span>%s</span></div>\n", name);
}

static void tile_bytes(strbuf *html, const char *name, double bytes) {
    char text[BYTES_TEXT];
    strbuf_printf(html, "<div class=\"tile\"><b>%s</b><span>%s</span></div>\n",
                  bytes_text(text, bytes), name);
}

static void write_tiles(strbuf *html, const report_source *source) {
    const train_result *r = source->result;
    strbuf_add_text(html, "<div class=\"tiles\">\n");
    tile_count(html, "steps", source->total_steps);
    tile(html, "first loss", "%.4f", r->first_loss);
    tile(html, "last loss", "%.4f", r->last_loss);
    tile(html, "evaluation loss", "%.4f", r->eval_loss);
    tile(html, "evaluation perplexity", "%.3f", exp(r->eval_loss));
    tile(html, "seconds", "%.1f", r->wall_s);
    tile(html, "tokens a second", "%.0f", r->tokens_per_second);
    tile_count(html, "tokens", r->tokens);
    tile_count(html, "supervised tokens", r->supervised_tokens);
    tile_count(html, "trained parameters", r->plan.trained);
    tile(html, "% of the model", "%.3f",
         100.0 * (double)r->plan.trained / (double)r->plan.parameters);
    tile_bytes(html, "peak memory, measured", (double)r->peak_memory_bytes);
    if (r->skipped_steps > 0)
        tile_count(html, "steps skipped: not finite", r->skipped_steps);
    strbuf_add_text(html, "</div>\n");
}

static void memory_row(strbuf *html, const char *name, size_t bytes, const char *lifetime) {
    char text[BYTES_TEXT];
    if (bytes > 0)
        strbuf_printf(html,
                      "<tr><td>%s</td><td class=\"n\">%s</td><td class=\"quiet\">%s</td></tr>\n",
                      name, bytes_text(text, (double)bytes), lifetime);
}

static void write_memory(strbuf *html, const memory_plan *plan) {
    char text[BYTES_TEXT], keep[KEEP_TEXT];
    strbuf_add_text(html, "<h2>Memory, as planned and allocated</h2>\n<table>\n");
    memory_row(html, "base model", plan->model_mapped, "mapped from its files");
    memory_row(html, "norms and biases", plan->model_uploaded, "the whole run");
    for (int i = 0; i < N_COMPONENTS; i++)
        memory_row(html, component_name((component)i), plan->trainer[i], "the whole run");
    for (int i = 0; i < N_COMPONENTS; i++)
        memory_row(html, component_name((component)i), plan->step[i], "a micro-batch");
    memory_row(html, "kernels", plan->backend_workspace, "the whole run");
    memory_row(html, "batches", plan->host, "the whole run");
    strbuf_printf(
        html,
        "<tr class=\"total\"><td>total</td><td class=\"n\">%s</td><td></td></tr>\n</table>\n"
        "<p class=\"quiet\">The measured peak has the program itself, the tokenizer and the data "
        "on "
        "top. Micro-batches of at most %" PRId32 " tokens; gradient checkpointing: %s.</p>\n",
        bytes_text(text, (double)plan->total), plan->max_tokens, memory_plan_keep_text(keep, plan));
}

graft_status report_write(strbuf *html, const report_source *source, graft_error *err) {
    curves c;
    graft_status status = curves_create(&c, source->history, err);
    if (status != GRAFT_OK)
        return status;
    const char *base = source->config->base_name ? source->config->base_name : "a model";
    strbuf_add_text(html,
                    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>"
                    "Graft: ");
    svg_escape(html, base);
    strbuf_printf(html, "</title>\n<style>%s</style></head><body>\n<h1>%s on ", report_style,
                  source->method);
    svg_escape(html, base);
    strbuf_add_text(html, "</h1>\n<p class=\"quiet\">Trained with Graft " GRAFT_VERSION "</p>\n");
    write_tiles(html, source);
    write_charts(html, &c);
    write_memory(html, &source->result->plan);
    if (source->config->recipe) {
        strbuf_add_text(html, "<h2>Settings</h2>\n<pre>");
        svg_escape(html, source->config->recipe);
        strbuf_add_text(html, "</pre>\n");
    }
    strbuf_add_text(html, "</body></html>\n");
    curves_free(&c);
    return html->failed ? error_memory(err, html->length, "the report") : GRAFT_OK;
}
