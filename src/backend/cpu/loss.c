#include "backend/cpu/cpu_backend.h"

typedef struct loss_context {
    cpu_backend *cpu;
    float *loss, *logits;
    const int32_t *targets;
    const float *weights;
    int64_t vocab;
    float cap;
    bool gradient;
    pieces rows;
} loss_context;

static void loss_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const loss_context *c = context;
    for (int64_t r = piece_begin(&c->rows, i); r < piece_end(&c->rows, i); r++)
        c->loss[r] = c->cpu->rows->cross_entropy(c->logits + r * c->vocab, c->targets[r],
                                                 c->gradient ? c->weights[r] : 0, c->cap, c->vocab,
                                                 c->gradient);
}

void cpu_cross_entropy(backend *dev, device_array *loss, device_array *logits,
                       const int32_t *targets, const float *weights, int64_t n, int64_t vocab,
                       double cap, bool gradient) {
    loss_context context = {.cpu = cpu_of(dev),
                            .loss = cpu_array(loss),
                            .logits = cpu_array(logits),
                            .targets = targets,
                            .weights = weights,
                            .vocab = vocab,
                            .cap = (float)cap,
                            .gradient = gradient,
                            .rows = pieces_of_rows(n, vocab)};
    cpu_run_tasks(context.cpu, context.rows.count, loss_task, &context);
}
