/* Steps of LoRA on all linear layers, over rows of one length: tokens a second, memory, and which
 * share of the processor's multiply-adds went into what a step has to compute.
 *
 * usage: bench_steps MODEL_DIR [ROWS [TOKENS [STEPS [RANK]]]]     one line of CSV; --header: its
 * head TOKENS 0: lengths as instruction data has them, 20 to 512, most of them short Rows are
 * random tokens: what they say changes no time. */
#include "bench/peak.h"

#include "base/memory.h"
#include "base/rng.h"
#include "plan/step_cost.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS_MAX = 512, TOKENS_MIN = 20 };

typedef struct arguments {
    const char *model;
    int32_t rows, tokens, steps, rank;
} arguments;

typedef struct bench {
    arguments args;
    backend *dev;
    model_spec spec;
    weight_source *weights;
    adapter *adapter;
    dataset *data;
    train_config config;
    char output[64];
    double seconds; /* of all steps but the first, which warms caches */
    int64_t tokens;
} bench;

static void on_metrics(void *context, train_event event, const train_metrics *m) {
    bench *b = context;
    if (event != TRAIN_EVENT_STEP || (m->step == 1 && b->args.steps > 1))
        return;
    b->seconds += m->step_time_s;
    b->tokens += m->tokens;
}

/* The square of a uniform number: short rows are many. */
static int32_t row_length(const arguments *args, rng *random) {
    double u = rng_uniform(random);
    return args->tokens > 0 ? args->tokens
                            : TOKENS_MIN + (int32_t)(u * u * (TOKENS_MAX - TOKENS_MIN));
}

static graft_status make_data(bench *b, graft_error *err) {
    rng random = rng_create(7, 0);
    int64_t n = (int64_t)b->args.rows * b->args.steps;
    int32_t most = b->args.tokens > 0 ? b->args.tokens : TOKENS_MAX;
    int32_t *ids = mem_array((size_t)most, sizeof *ids);
    graft_status status = dataset_create(&b->data, err);
    for (int64_t row = 0; ids && status == GRAFT_OK && row < n; row++) {
        int32_t length = row_length(&b->args, &random);
        for (int32_t i = 0; i < length; i++)
            ids[i] = (int32_t)rng_below(&random, (uint64_t)b->spec.vocab);
        status = dataset_add(b->data, ids, NULL, length, (data_source){.line = row + 1}, err);
    }
    free(ids);
    return ids ? status : error_memory(err, (size_t)most * sizeof *ids, "a row");
}

static graft_status make_adapter(bench *b, graft_error *err) {
    adapter_config config = {0};
    graft_status status = adapter_config_default(&config, "lora", err);
    if (status == GRAFT_OK) {
        config.r = b->args.rank;
        config.lora_alpha = 2 * b->args.rank;
        config.target_regex = mem_text("all-linear", strlen("all-linear"));
        status = adapter_create(&b->adapter, &config, &b->spec, 0, NULL, err);
    }
    adapter_config_free(&config);
    return status;
}

static graft_status open_all(bench *b, graft_error *err) {
    cpu_features features = cpu_features_detect();
    graft_status status = backend_create_cpu(&b->dev, 0, &features, err);
    if (status == GRAFT_OK)
        status = model_spec_read(&b->spec, b->args.model, NULL, err);
    if (status == GRAFT_OK)
        status = weight_source_open(&b->weights, b->dev, &b->spec, b->args.model, NULL, err);
    if (status == GRAFT_OK)
        status = make_adapter(b, err);
    if (status == GRAFT_OK)
        status = make_data(b, err);
    b->config = (train_config){.max_steps = b->args.steps,
                               .num_train_epochs = 1,
                               .per_device_train_batch_size = b->args.rows,
                               .gradient_accumulation_steps = 1,
                               .learning_rate = 1e-4,
                               .adam_beta1 = 0.9,
                               .adam_beta2 = 0.999,
                               .adam_epsilon = 1e-8,
                               .max_grad_norm = 1,
                               .packing = true,
                               .logging_steps = 1,
                               .output_dir = b->output};
    return status;
}

static void close_all(bench *b) {
    dataset_close(&b->data);
    adapter_destroy(&b->adapter);
    weight_source_close(&b->weights);
    model_spec_free(&b->spec);
    backend_destroy(&b->dev);
}

static graft_status count_work(step_cost *cost, bench *b, const memory_plan *plan,
                               graft_error *err) {
    const step_cost_request request = {.spec = &b->spec,
                                       .adapter = b->adapter,
                                       .config = &b->config,
                                       .data = b->data,
                                       .plan = plan,
                                       .shape = data_shape_of(b->data, NULL)};
    return step_cost_count(cost, &request, err);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void print_line(const bench *b, const train_result *result, const step_cost *cost) {
    cpu_features features = cpu_features_detect();
    const char *kernels = backend_cpu_kernels(&features);
    double flops = flop_total(&cost->forward) + flop_total(&cost->backward);
    double rate = b->seconds > 0 ? (double)b->tokens / b->seconds : 0;
    double gflops = rate * flops / (double)cost->tokens * 1e-9;
    double peak = bench_peak_gflops(kernels, b->dev->n_threads);
    printf("%s,%s,%d,%s,lora,%d,%d,%d,%d,%.1f,%.1f,%.1f,%.1f,%.1f,%.3f\n", bench_machine(), kernels,
           b->dev->n_threads, base_name(b->args.model), b->args.rank, b->args.rows, b->args.tokens,
           b->args.steps, rate, (double)result->peak_memory_bytes / 1048576.0,
           (double)result->plan.total / 1048576.0, gflops, peak, gflops / peak);
}

static graft_status run(bench *b, graft_error *err) {
    train_observer observer = {.on_metrics = on_metrics, .context = b};
    const train_inputs inputs = {.dev = b->dev,
                                 .spec = &b->spec,
                                 .weights = b->weights,
                                 .adapter = b->adapter,
                                 .data = b->data,
                                 .config = &b->config,
                                 .observer = &observer};
    train_result result;
    step_cost cost;
    graft_status status = train_run(&result, &inputs, err);
    if (status == GRAFT_OK)
        status = count_work(&cost, b, &result.plan, err);
    if (status == GRAFT_OK)
        print_line(b, &result, &cost);
    return status;
}

static int32_t argument(int argc, char **argv, int at, int32_t fallback) {
    return argc > at ? (int32_t)strtol(argv[at], NULL, 10) : fallback;
}

static void remove_folder(const char *path) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0)
        fprintf(stderr, "bench_steps: %s stays\n", path);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--header")) {
        puts("machine,kernels,threads,model,method,rank,rows_per_step,row_tokens,steps,"
             "tokens_per_s,peak_rss_mib,planned_mib,gflops,peak_gflops,of_peak");
        return 0;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: bench_steps MODEL_DIR [ROWS [TOKENS [STEPS [RANK]]]] | --header\n");
        return 2;
    }
    graft_error err = {0};
    bench b = {.args = {argv[1], argument(argc, argv, 2, 8), argument(argc, argv, 3, 0),
                        argument(argc, argv, 4, 4), argument(argc, argv, 5, 16)},
               .output = "/tmp/bench_steps.XXXXXX"};
    if (b.args.rows < 1 || b.args.tokens < 0 || b.args.steps < 1 || b.args.rank < 1 ||
        !mkdtemp(b.output)) {
        fprintf(stderr, "bench_steps: numbers must be positive, and /tmp writable\n");
        return 2;
    }
    graft_status status = open_all(&b, &err);
    if (status == GRAFT_OK)
        status = run(&b, &err);
    if (status != GRAFT_OK)
        fprintf(stderr, "bench_steps: %s\n", err.message);
    close_all(&b);
    remove_folder(b.output);
    return graft_exit_status(status);
}
