/* Results of verbs as the command line shows them. */
#include "api/profile.h"
#include "api/report.h"
#include "base/memory.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *graft_version(void) {
    return GRAFT_VERSION;
}

const char *graft_bytes_text(char out[GRAFT_BYTES_TEXT], double bytes) {
    return bytes_text(out, bytes);
}

void graft_sparkline(const graft_sink *sink, const double *values, size_t n, int columns) {
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    size_t width = columns > 0 && (size_t)columns < n ? (size_t)columns : n;
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            continue;
        low = fmin(low, values[i]);
        high = fmax(high, values[i]);
    }
    for (size_t c = 0; c < width; c++) { /* each column shows the mean of its share */
        double sum = 0;
        size_t begin = c * n / width, end = (c + 1) * n / width, counted = 0;
        for (size_t i = begin; i < end; i++)
            if (isfinite(values[i])) {
                sum += values[i];
                counted++;
            }
        int level =
            high > low && counted ? (int)((sum / (double)counted - low) / (high - low) * 7.999) : 0;
        const char *block = counted ? blocks[level < 0 ? 0 : level > 7 ? 7 : level] : " ";
        sink->write(sink->context, block, strlen(block));
    }
}

static json_t *integer(int64_t value) {
    return json_integer((json_int_t)value);
}

static json_t *train_json(const graft_train_result *r) {
    json_t *object = json_object();
    report_set(&object, "steps", integer(r->steps));
    report_set(&object, "tokens", integer(r->tokens));
    report_set(&object, "supervised_tokens", integer(r->supervised_tokens));
    report_set(&object, "skipped_steps", integer(r->skipped_steps));
    report_set(&object, "first_loss", report_number(r->first_loss));
    report_set(&object, "last_loss", report_number(r->last_loss));
    report_set(&object, "eval_loss", report_number(r->eval_loss));
    report_set(&object, "seconds", report_number(r->seconds));
    report_set(&object, "tokens_per_second", report_number(r->tokens_per_second));
    report_set(&object, "peak_memory_bytes", integer(r->peak_memory_bytes));
    report_set(&object, "planned_memory_bytes", integer(r->planned_memory_bytes));
    report_set(&object, "trained_parameters", integer(r->trained_parameters));
    report_set(&object, "parameters", integer(r->parameters));
    profile_set(&object, &r->profile);
    return object;
}

static void train_text(strbuf *text, graft_format format, const graft_train_result *r) {
    if (r->steps) {
        graft_sink sink = strbuf_sink(text);
        strbuf_add_text(text, "loss  ");
        graft_sparkline(&sink, r->losses, r->n_losses,
                        format.columns > 50 ? format.columns - 30 : 50);
        strbuf_printf(text, "  %.4f to %.4f\n", r->first_loss, r->last_loss);
        report_line(text, "steps", "%s", count_text(r->steps));
        report_line(text, "tokens", "%s, of them supervised %s", count_text(r->tokens),
                    count_text(r->supervised_tokens));
        report_line(text, "time", "%.1f s, %.0f tokens/s", r->seconds, r->tokens_per_second);
    } else {
        strbuf_add_text(text, "Every step was done before: nothing was left to train.\n");
    }
    if (r->skipped_steps)
        report_line(text, "skipped", "%s steps whose loss or gradient was not finite",
                    count_text(r->skipped_steps));
    report_line(text, "trained", "%s of %s parameters (%.3f%%)", count_text(r->trained_parameters),
                count_text(r->parameters),
                100.0 * (double)r->trained_parameters / (double)r->parameters);
    report_line(text, "memory", "%s planned; the whole process held %s at most",
                size_text((double)r->planned_memory_bytes),
                size_text((double)r->peak_memory_bytes));
    if (isfinite(r->eval_loss))
        report_line(text, "held-out loss", "%.4f (perplexity %.3f)", r->eval_loss,
                    exp(r->eval_loss));
}

graft_status graft_train_result_write(const graft_sink *sink, graft_format format,
                                      const graft_train_result *r, graft_error *err) {
    if (format.json)
        return report_finish_json(sink, train_json(r), err);
    strbuf text = {0};
    train_text(&text, format, r);
    profile_text(&text, &r->profile);
    return report_finish(sink, &text, err);
}

static json_t *eval_json(const graft_eval_result *r) {
    json_t *object = json_object();
    report_set(&object, "loss", report_number(r->loss));
    report_set(&object, "perplexity", report_number(r->perplexity));
    report_set(&object, "rows", integer(r->rows));
    report_set(&object, "tokens", integer(r->tokens));
    report_set(&object, "supervised_tokens", integer(r->supervised_tokens));
    report_set(&object, "seconds", report_number(r->seconds));
    report_set(&object, "tokens_per_second", report_number(r->tokens_per_second));
    report_set(&object, "peak_memory_bytes", integer(r->peak_memory_bytes));
    profile_set(&object, &r->profile);
    return object;
}

graft_status graft_eval_result_write(const graft_sink *sink, graft_format format,
                                     const graft_eval_result *r, graft_error *err) {
    if (format.json)
        return report_finish_json(sink, eval_json(r), err);
    strbuf text = {0};
    report_line(&text, "loss", "%.6f", r->loss);
    report_line(&text, "perplexity", "%.4f", r->perplexity);
    report_line(&text, "rows", "%s", count_text(r->rows));
    report_line(&text, "tokens", "%s, of them supervised %s", count_text(r->tokens),
                count_text(r->supervised_tokens));
    report_line(&text, "time", "%.1f s, %.0f tokens/s", r->seconds, r->tokens_per_second);
    report_line(&text, "memory", "%s at most", size_text((double)r->peak_memory_bytes));
    profile_text(&text, &r->profile);
    return report_finish(sink, &text, err);
}

static json_t *merge_json(const graft_merge_result *r) {
    json_t *object = json_object();
    report_set(&object, "tensors", integer(r->tensors));
    report_set(&object, "changed", integer(r->changed));
    report_set(&object, "unties", json_boolean(r->unties));
    report_set(&object, "seconds", report_number(r->seconds));
    report_set(&object, "peak_memory_bytes", integer(r->peak_memory_bytes));
    return object;
}

graft_status graft_merge_result_write(const graft_sink *sink, graft_format format,
                                      const graft_merge_result *r, graft_error *err) {
    if (format.json)
        return report_finish_json(sink, merge_json(r), err);
    strbuf text = {0};
    report_line(&text, "tensors", "%s, of them changed %s", count_text(r->tensors),
                count_text(r->changed));
    report_line(&text, "time", "%.1f s", r->seconds);
    report_line(&text, "memory", "%s at most", size_text((double)r->peak_memory_bytes));
    return report_finish(sink, &text, err);
}

graft_status graft_generation_write_json(const graft_sink *sink, const graft_generation *g,
                                         graft_error *err) {
    json_t *object = json_object(), *ids = json_array();
    for (size_t i = 0; i < g->n_tokens; i++)
        report_add(&ids, json_integer(g->token_ids[i]));
    report_set(&object, "text", report_string(g->text, g->text_bytes));
    report_set(&object, "token_ids", ids);
    report_set(&object, "prompt_tokens", integer((int64_t)g->n_prompt_tokens));
    report_set(&object, "generated_tokens", integer((int64_t)g->n_tokens));
    report_set(&object, "tokens_per_second", report_number(g->tokens_per_second));
    report_set(&object, "finish_reason", json_string(g->finish_reason));
    profile_set(&object, &g->profile);
    return report_finish_json_line(sink, object, err);
}

void graft_generation_free(graft_generation *g) {
    free(g->text);
    free(g->token_ids);
    *g = (graft_generation){0};
}
