/* Progress on stderr. */
#include "cli.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool is_quiet, is_terminal, line_is_open;
static double drawn_at; /* seconds, monotonic */

static void erase_line(void) {
    if (line_is_open)
        fputs("\r\033[K", stderr);
    line_is_open = false;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A log shows the first step, the last and about a hundred between; a terminal is redrawn ten times
 * a second. */
static bool is_shown(const graft_event *e) {
    if (e->step == 1 || e->step == e->total_steps)
        return true;
    if (is_terminal)
        return now_s() - drawn_at >= 0.1;
    int64_t every = e->total_steps / 100 > 1 ? e->total_steps / 100 : 1;
    return e->step % every == 0;
}

static void bar_text(char out[24], const graft_event *e) {
    int filled = e->total_steps ? (int)(20.0 * (double)e->step / (double)e->total_steps + 0.5) : 0;
    out[0] = '[';
    for (int i = 0; i < 20; i++)
        out[i + 1] = i < filled ? '=' : i == filled ? '>' : ' ';
    strcpy(out + 21, "] ");
}

static void show_step(const graft_event *e) {
    if (!is_shown(e))
        return;
    char bar[24] = "", memory[GRAFT_BYTES_TEXT], text[256];
    if (is_terminal)
        bar_text(bar, e);
    int n = snprintf(
        text, sizeof text,
        "%sstep %lld/%lld  epoch %.2f  loss %.4f  lr %.2e  grad %.3f  %.0f tok/s  %s  ETA %s", bar,
        (long long)e->step, (long long)e->total_steps, e->epoch, e->loss, e->learning_rate,
        e->grad_norm, e->tokens_per_second, graft_bytes_text(memory, (double)e->peak_memory_bytes),
        duration_text(e->eta_s));
    /* A line that wraps could not be drawn over. */
    int columns = is_terminal ? terminal_columns(STDERR_FILENO) : 0;
    if (columns > 1 && n >= columns && columns <= (int)sizeof text)
        text[columns - 1] = '\0';
    erase_line();
    fprintf(stderr, "%s%s", text, is_terminal ? "" : "\n");
    line_is_open = is_terminal;
    drawn_at = now_s();
}

static void on_event(void *context, const graft_event *e) {
    (void)context;
    switch (e->kind) {
    case GRAFT_EVENT_STEP:
        if (!is_quiet)
            show_step(e);
        break;
    case GRAFT_EVENT_EVALUATION:
        erase_line();
        if (!is_quiet)
            fprintf(stderr, "step %lld  eval loss %.4f  perplexity %.3f\n", (long long)e->step,
                    e->eval_loss, e->eval_perplexity);
        break;
    case GRAFT_EVENT_WARNING:
        erase_line();
        fprintf(stderr, "warning: %s\n", e->text);
        break;
    case GRAFT_EVENT_SAVED:
        erase_line();
        if (!is_quiet)
            fprintf(stderr, "saved %s\n", e->text);
        break;
    case GRAFT_EVENT_INFO:
        erase_line();
        if (!is_quiet)
            fprintf(stderr, "%s\n", e->text);
        break;
    }
    fflush(stderr);
}

graft_observer progress_observer(const command_line *line) {
    is_quiet = line->quiet;
    is_terminal = is_smart_terminal(STDERR_FILENO);
    return (graft_observer){.on_event = on_event, .stop = signals_stop()};
}

void progress_end(void) {
    erase_line();
}
