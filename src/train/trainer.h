/* The trainer: owns the loops over steps, micro-batches and layers, the arenas, checkpoints and
 * metrics. One function runs a whole fine-tune; what a person sees comes out as events. */
#ifndef GRAFT_TRAIN_TRAINER_H
#define GRAFT_TRAIN_TRAINER_H

#include "adapter/adapter.h"
#include "model/transformer.h"
#include "train/data/data_stream.h"
#include "train/data/dataset.h"

#include <signal.h>

typedef enum schedule_kind {
    SCHEDULE_CONSTANT,
    SCHEDULE_CONSTANT_WITH_WARMUP,
    SCHEDULE_LINEAR,
    SCHEDULE_COSINE,
    SCHEDULE_COSINE_WITH_RESTARTS,
    SCHEDULE_POLYNOMIAL,
    SCHEDULE_INVERSE_SQRT
} schedule_kind;

typedef enum checkpointing_mode {
    CHECKPOINTING_AUTO,
    CHECKPOINTING_ON,
    CHECKPOINTING_OFF
} checkpointing_mode;

typedef struct train_config {
    double num_train_epochs;
    int64_t max_steps; /* > 0: wins over the epochs */
    int32_t per_device_train_batch_size, gradient_accumulation_steps; /* rows */
    double learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon;
    const struct optimizer_kind *optimizer; /* NULL: AdamW */
    double max_grad_norm;                   /* 0: no clipping */
    double loraplus_lr_ratio; /* 0: off */
    schedule_kind schedule;
    int64_t warmup_steps; /* > 0 wins over the ratio */
    double warmup_ratio;
    uint64_t seed;
    bool packing, shuffle;
    int64_t shuffle_buffer; /* rows, where they are streamed; 0: they are not */
    checkpointing_mode checkpointing;
    int64_t memory_limit_bytes;                    /* 0: what the machine has free */
    int64_t save_steps, eval_steps, logging_steps; /* 0: never (logging: 1) */
    int32_t save_total_limit;                      /* 0: keep all; at least 2 are kept */
    const char *output_dir;
    const char
        *resume; /* NULL: a fresh run; "": the newest checkpoint that verifies; else this one */
    const char *recipe;       /* all resolved options as YAML: saved, and hashed into checkpoints */
    const char *base_name;    /* base_model_name_or_path */
    const char *model_folder; /* where tokenizer and config are copied from in full fine-tuning */
} train_config;

/* One logged step, or one evaluation. */
typedef struct train_metrics {
    int64_t step, total_steps;
    double epoch, loss, grad_norm, learning_rate;
    int64_t tokens, supervised_tokens; /* of this step */
    double tokens_per_second, step_time_s, eta_s;
    int64_t peak_memory_bytes;
    bool is_evaluation;
    double eval_loss, eval_perplexity;
} train_metrics;

typedef enum train_event {
    TRAIN_EVENT_STEP,
    TRAIN_EVENT_EVALUATION,
    TRAIN_EVENT_SAVED
} train_event;

typedef struct train_observer {
    void (*on_metrics)(void *context, train_event,
                       const train_metrics *); /* NULL: nobody watches */
    void (*on_saved)(void *context, const char *path);
    message_sink messages;
    void *context;
} train_observer;

/* The bytes of a run by lifetime and component: what `graft plan` prints and what a run allocates,
 * from one function. */
typedef struct memory_plan {
    size_t model_mapped,
        model_uploaded; /* weights as they lie in files; elements uploaded beside them */
    size_t trainer[N_COMPONENTS], step[N_COMPONENTS];
    size_t backend_workspace, host;
    size_t total;
    int32_t layers_from_input, layers_without_mlp; /* what `auto` chose: see step_limits */
    int32_t max_tokens, max_rows;                  /* of a micro-batch */
    int32_t backward_layers;                       /* blocks that backward passes */
    int64_t trained, parameters;                   /* elements */
} memory_plan;

enum { KEEP_TEXT = 128 };
/* What blocks keep, for people: "off", "on: every layer is recomputed from its input". */
const char *memory_plan_keep_text(char out[KEEP_TEXT], const memory_plan *);

/* What memory depends on of the data. */
typedef struct data_shape {
    int32_t longest_row;           /* tokens, of training and evaluation data */
    int32_t longest_trained;       /* of training data alone */
    int64_t rows, evaluation_rows; /* of an epoch; rows 0: not known, every step is full */
} data_shape;
/* Of rows that are read as they are trained: none is longer than max_length. */
data_shape data_shape_of_stream(int32_t max_length, const dataset *eval_data);
data_shape data_shape_of(const dataset *data, const dataset *eval_data); /* eval_data may be NULL */

/* Needs no weights and no data: the adapter's shapes and those of the data suffice. A step is split
 * into micro-batches that fit, and checkpointing is chosen (auto). GRAFT_E_MEMORY, naming the
 * largest parts, when nothing fits; the plan is then the smallest that was tried. */
graft_status train_plan(memory_plan *, const model_spec *, adapter *, const train_config *,
                        data_shape, int32_t n_threads, size_t mapped_bytes, graft_error *);

typedef struct train_inputs {
    backend *dev;
    const model_spec *spec;
    weight_source *weights;
    adapter *adapter;         /* created, not laid out */
    const char *init_adapter; /* folder to start from; NULL: adapter_init */
    dataset *data;            /* NULL: stream */
    data_stream *stream;      /* rows as they are read; max_steps is needed */
    dataset *eval_data;       /* may be NULL */
    const train_config *config;
    const train_observer *observer;
    const volatile sig_atomic_t
        *stop; /* non-zero: save and leave with GRAFT_E_INTERRUPTED; may be NULL */
} train_inputs;

typedef struct train_result {
    memory_plan plan;
    int64_t steps, tokens, supervised_tokens;
    double first_loss, last_loss, mean_loss, eval_loss; /* eval_loss NaN without evaluation */
    double wall_s, tokens_per_second;
    int64_t peak_memory_bytes;
    int64_t skipped_steps; /* non-finite gradients */
} train_result;

/* Trains, writes output_dir (adapter or model, model card, recipe.yaml, metrics.jsonl, report.html,
 * checkpoints). The adapter's arrays end with the run. */
graft_status train_run(train_result *, const train_inputs *, graft_error *);

#endif
