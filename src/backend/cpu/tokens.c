/* Sums over tokens, and who owns which. */
#include "backend/cpu/cpu_backend.h"

#include <assert.h>
#include <string.h>

void cpu_term_rows(int32_t *begin, int32_t *end, const low_rank_term *term,
                   const token_rows *tokens) {
    *begin = term->job < 0 ? 0 : tokens->job_begin[term->job];
    *end = term->job < 0 ? tokens->n : tokens->job_begin[term->job + 1];
}

void cpu_grid_of(int32_t *first, int32_t *last, const token_rows *tokens, int32_t begin,
                 int32_t end) {
    int32_t i = 0;
    while (i < tokens->n_grid && tokens->grid[i] < begin)
        i++;
    *first = i;
    while (i < tokens->n_grid && tokens->grid[i] < end)
        i++;
    *last = i;
    assert(begin == end || (tokens->grid[*first] == begin && tokens->grid[*last] == end));
}

enum { COLUMNS = 256 }; /* of one task */

typedef struct sum_context {
    cpu_backend *cpu;
    float *out;
    const float *x;
    int64_t width;
    float scale;
    const int32_t *grid;
    int32_t n_grid;
    pieces columns;
} sum_context;

static void sum_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const sum_context *s = context;
    int64_t begin = piece_begin(&s->columns, i), n = piece_end(&s->columns, i) - begin;
    for (int32_t g = 0; g < s->n_grid; g++) {
        float sums[COLUMNS] = {0};
        for (int64_t t = s->grid[g]; t < s->grid[g + 1]; t++)
            s->cpu->rows->add(sums, s->x + t * s->width + begin, n);
        s->cpu->rows->add_scaled(s->out + begin, sums, s->scale, n);
    }
}

void cpu_sum_rows(cpu_backend *cpu, float *out, const float *x, int64_t width, float scale,
                  const token_rows *tokens, int32_t begin, int32_t end) {
    int32_t first, last;
    cpu_grid_of(&first, &last, tokens, begin, end);
    sum_context context = {.cpu = cpu,
                           .out = out,
                           .x = x,
                           .width = width,
                           .scale = scale,
                           .grid = tokens->grid + first,
                           .n_grid = last - first,
                           .columns = pieces_of(width, COLUMNS)};
    cpu_run_tasks(cpu, context.columns.count, sum_task, &context);
}
