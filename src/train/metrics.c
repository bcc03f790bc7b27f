#include "train/metrics.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEPS_MAX = 1 << 15, EVALUATIONS_MAX = 1 << 13, LOG_BYTES_MAX = 1 << 30 };

/* ---- One line ---- */

static size_t add_number(char *line, size_t used, const char *key, const char *format,
                         double value) {
    const char *comma = used > 1 ? ", " : "";
    int n = snprintf(line + used, METRICS_LINE_BYTES - used, "%s\"%s\": ", comma, key);
    used += (size_t)n;
    if (isfinite(value))
        n = snprintf(line + used, METRICS_LINE_BYTES - used, format, value);
    else
        n = snprintf(line + used, METRICS_LINE_BYTES - used, "null"); /* JSON has no NaN */
    return used + (size_t)n;
}

static size_t add_integer(char *line, size_t used, const char *key, int64_t value) {
    const char *comma = used > 1 ? ", " : "";
    int n =
        snprintf(line + used, METRICS_LINE_BYTES - used, "%s\"%s\": %" PRId64, comma, key, value);
    return used + (size_t)n;
}

size_t metrics_line(char line[METRICS_LINE_BYTES], const train_metrics *m) {
    size_t n = 1;
    line[0] = '{';
    n = add_integer(line, n, "step", m->step);
    if (m->is_evaluation) {
        n = add_number(line, n, "eval_loss", "%.9g", m->eval_loss);
        n = add_number(line, n, "eval_perplexity", "%.9g", m->eval_perplexity);
    } else {
        n = add_number(line, n, "epoch", "%.6g", m->epoch);
        n = add_number(line, n, "loss", "%.9g", m->loss);
        n = add_number(line, n, "grad_norm", "%.9g", m->grad_norm);
        n = add_number(line, n, "learning_rate", "%.9g", m->learning_rate);
        n = add_integer(line, n, "tokens", m->tokens);
        n = add_integer(line, n, "supervised_tokens", m->supervised_tokens);
        n = add_number(line, n, "tokens_per_second", "%.6g", m->tokens_per_second);
        n = add_number(line, n, "step_time_s", "%.6g", m->step_time_s);
        n = add_integer(line, n, "peak_memory_bytes", m->peak_memory_bytes);
    }
    line[n++] = '}';
    line[n++] = '\n';
    return n;
}

/* ---- History ---- */

static void thin_steps(metrics_history *history) {
    size_t kept = 0;
    for (size_t i = 0; i < history->n_steps; i += 2)
        history->steps[kept++] = history->steps[i];
    history->n_steps = kept;
    history->stride *= 2;
}

static void remember(metrics_history *history, const train_metrics *m) {
    if (m->is_evaluation) {
        if (history->n_evaluations == history->evaluations_capacity) {
            memmove(history->evaluations, history->evaluations + 1,
                    (history->n_evaluations - 1) * sizeof *history->evaluations);
            history->n_evaluations--;
        }
        history->evaluations[history->n_evaluations++] = (evaluation_point){m->step, m->eval_loss};
        return;
    }
    if (history->seen++ % history->stride != 0)
        return;
    if (history->n_steps == history->steps_capacity) {
        thin_steps(history);
        if ((history->seen - 1) % history->stride != 0)
            return;
    }
    history->steps[history->n_steps++] =
        (metrics_point){m->step, (float)m->loss, (float)m->grad_norm, (float)m->learning_rate};
}

static graft_status history_create(metrics_history *history, int64_t n_logged,
                                   int64_t n_evaluations, graft_error *err) {
    *history = (metrics_history){.stride = 1};
    history->steps_capacity = n_logged < 2           ? 2
                              : n_logged > STEPS_MAX ? STEPS_MAX
                                                     : (size_t)n_logged;
    history->evaluations_capacity = n_evaluations < 1                 ? 1
                                    : n_evaluations > EVALUATIONS_MAX ? EVALUATIONS_MAX
                                                                      : (size_t)n_evaluations;
    history->steps = mem_array(history->steps_capacity, sizeof *history->steps);
    history->evaluations = mem_array(history->evaluations_capacity, sizeof *history->evaluations);
    if (!history->steps || !history->evaluations)
        return error_memory(err, history->steps_capacity * sizeof *history->steps, "the metrics");
    return GRAFT_OK;
}

/* ---- Lines of an earlier part of the run ---- */

/* A member as a number, NaN when it is not there. */
static double number_of(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* Keeps a line in `kept` and in the history unless its step is past after_step or it is no line of
 * ours (a kill may have cut the last one). */
static void keep_line(metrics_log *log, strbuf *kept, const char *line, size_t n,
                      int64_t after_step) {
    json_t *row = NULL;
    if (json_parse(&row, line, n, "metrics.jsonl", NULL) != GRAFT_OK)
        return;
    const json_t *step = json_object_get(row, "step");
    if (json_is_integer(step) && json_integer_value(step) <= after_step) {
        strbuf_add(kept, line, n);
        strbuf_add_char(kept, '\n');
        train_metrics m = {
            .step = json_integer_value(step),
            .is_evaluation = json_object_get(row, "eval_loss") != NULL,
            .loss = number_of(row, "loss"),
            .grad_norm = number_of(row, "grad_norm"),
            .learning_rate = number_of(row, "learning_rate"),
            .eval_loss = number_of(row, "eval_loss"),
        };
        remember(&log->history, &m);
    }
    json_decref(row);
}

static graft_status keep_lines(metrics_log *log, const char *path, int64_t after_step,
                               graft_error *err) {
    char *text = NULL;
    size_t size = 0;
    strbuf kept = {0};
    graft_status status = GRAFT_OK;
    if (after_step >= 0 && path_exists(path))
        status = file_read_all(&text, &size, path, LOG_BYTES_MAX, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t at = 0; at < size;) {
        const char *line = text + at, *newline = memchr(line, '\n', size - at);
        if (!newline)
            break;
        keep_line(log, &kept, line, (size_t)(newline - line), after_step);
        at += (size_t)(newline - line) + 1;
    }
    if (kept.failed)
        status = error_memory(err, size, path);
    else
        status = file_write_atomic(path, strbuf_text(&kept), kept.length, err);
    strbuf_free(&kept);
    free(text);
    return status;
}

/* ---- The log ---- */

static void give_up(metrics_log *log, const char *reason) {
    message_emit(log->messages, MESSAGE_WARNING,
                 "metrics.jsonl cannot be written (%s): training goes on without it", reason);
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
}

graft_status metrics_open(metrics_log *log, const char *folder, int64_t after_step,
                          int64_t n_logged, int64_t n_evaluations, const message_sink *messages,
                          graft_error *err) {
    *log = (metrics_log){.fd = -1, .messages = messages};
    graft_status status = history_create(&log->history, n_logged, n_evaluations, err);
    char *path = path_join(folder, "metrics.jsonl");
    if (status == GRAFT_OK && !path)
        status = error_memory(err, strlen(folder), "a file name");
    if (status != GRAFT_OK)
        goto cleanup;
    graft_error reason = {0};
    if (keep_lines(log, path, after_step, &reason) != GRAFT_OK) {
        give_up(log, reason.message);
        goto cleanup;
    }
    log->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log->fd < 0)
        give_up(log, strerror(errno));
cleanup:
    free(path);
    return status;
}

void metrics_write(metrics_log *log, const train_metrics *m) {
    remember(&log->history, m);
    if (log->fd < 0)
        return;
    char line[METRICS_LINE_BYTES];
    size_t n = metrics_line(line, m);
    ssize_t written;
    do
        written = write(log->fd, line, n); /* whole lines only: a reader may follow the file */
    while (written < 0 && errno == EINTR);
    if (written != (ssize_t)n)
        give_up(log, written < 0 ? strerror(errno) : "the disk is full");
}

void metrics_close(metrics_log *log) {
    if (log->fd >= 0)
        close(log->fd);
    free(log->history.steps);
    free(log->history.evaluations);
    *log = (metrics_log){.fd = -1};
}
