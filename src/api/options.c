/* The one table of options: recipes, the command line, its help and docs/options.md use it. */
#include "graft.h"

#include "api/options.h"

#include <string.h>

#define TRAIN      GRAFT_VERB_TRAIN
#define EVAL       GRAFT_VERB_EVAL
#define GENERATE   (GRAFT_VERB_GENERATE | GRAFT_VERB_CHAT)
#define PLAN       GRAFT_VERB_PLAN
#define MERGE      GRAFT_VERB_MERGE
#define DATA       GRAFT_VERB_DATA
#define TEXT_TOOLS (GRAFT_VERB_TOKENIZE | GRAFT_VERB_RENDER)
#define COMPUTING  (TRAIN | EVAL | GENERATE | MERGE | GRAFT_VERB_DOCTOR)
#define SHAPED     (TRAIN | PLAN) /* a plan takes what train takes */
#define FED        (TRAIN | EVAL | DATA | PLAN)

#define FLAG    GRAFT_OPTION_FLAG
#define INTEGER GRAFT_OPTION_INTEGER
#define NUMBER  GRAFT_OPTION_NUMBER
#define TEXT    GRAFT_OPTION_TEXT
#define CHOICE  GRAFT_OPTION_CHOICE
#define SIZE    GRAFT_OPTION_SIZE
#define LIST    GRAFT_OPTION_LIST

static const graft_option options[] = {
    /* model and adapter */
    {"model", NULL, TEXT, NULL, "DIR|org/name", 0, 0,
     TRAIN | EVAL | GENERATE | PLAN | DATA | TEXT_TOOLS | MERGE | GRAFT_VERB_METHODS,
     "model directory, or a model in the hub's cache on disk"},
    {"model_config", NULL, TEXT, NULL, "FILE", 0, 0, PLAN,
     "a config.json instead of a model: plan before anything is downloaded"},
    {"adapter", NULL, TEXT, NULL, "DIR", 0, 0, EVAL | GENERATE | MERGE,
     "PEFT adapter directory to put on the model"},
    {"method", NULL, TEXT, "lora", "NAME", 0, 0, SHAPED,
     "what trains: lora, ia3, ... (graft methods lists them), or full: every weight"},
    {"adapter_config", NULL, TEXT, NULL, "FILE", 0, 0, SHAPED,
     "a PEFT adapter_config.json, used as it is"},
    {"init_adapter", NULL, TEXT, NULL, "DIR", 0, 0, SHAPED,
     "start from the weights of this adapter"},
    {"lora_r", "r|lora_rank", INTEGER, "8", "N", 1, 1e6, SHAPED,
     "rank (default: the method's own)"},
    {"lora_alpha", NULL, NUMBER, "8", "A", 0, 1e9, SHAPED,
     "scale: alpha / r (alpha / sqrt(r) with use_rslora)"},
    {"lora_dropout", NULL, NUMBER, "0", "P", 0, 0.999, SHAPED, "dropout of the adapter's input"},
    {"target_modules", "lora_target|lora_target_modules", LIST, NULL, "a,b|all-linear|REGEX", 0, 0,
     SHAPED, "modules that get an adapter (default: PEFT's for the model)"},
    {"exclude_modules", NULL, LIST, NULL, "a,b|REGEX", 0, 0, SHAPED, "modules that get none"},
    {"use_rslora", NULL, FLAG, "false", NULL, 0, 0, SHAPED, "rank-stabilised scale"},
    {"use_dora", NULL, FLAG, "false", NULL, 0, 0, SHAPED, "weight-decomposed LoRA"},
    {"init_lora_weights", NULL, TEXT, "true", "true|false|NAME", 0, 0, SHAPED,
     "first values of A and B: gaussian, pissa, pissa_niter_N, olora, mica, orthogonal"},
    {"portable", NULL, FLAG, "true", NULL, 0, 0, TRAIN,
     "save an adapter whose start changed the base (pissa, olora) as plain LoRA, which every "
     "loader reads"},
    {"rank_pattern", NULL, LIST, NULL, "REGEX=N", 0, 0, SHAPED, "ranks of modules that differ"},
    {"alpha_pattern", NULL, LIST, NULL, "REGEX=A", 0, 0, SHAPED, "alphas of modules that differ"},
    {"layers_to_transform", NULL, LIST, NULL, "0,1,...", 0, 0, SHAPED, "only these layers"},
    {"modules_to_save", NULL, LIST, NULL, "a,b", 0, 0, SHAPED,
     "modules trained whole beside the adapter"},
    {"bias", NULL, TEXT, "none", "none|all|METHOD_only", 0, 0, SHAPED, "biases that train"},
    {"lora_bias", NULL, FLAG, "false", NULL, 0, 0, SHAPED, "give B a bias"},
    {"num_virtual_tokens", NULL, INTEGER, "20", "N", 1, 65536, SHAPED,
     "virtual tokens of prompt and prefix methods"},
    {"adapter_set", NULL, LIST, NULL, "KEY=VALUE", 0, 0, SHAPED,
     "any key of the method's adapter_config.json"},

    /* data */
    {"data", NULL, LIST, NULL, "PATH[:SHARE]", 0, 0, FED,
     "rows: .jsonl, .json, .txt, .gz, .zst; a folder or pattern of them; \":0.3\": three tenths of "
     "the rows an epoch (repeatable)"},
    {"eval_data", NULL, LIST, NULL, "PATH", 0, 0, SHAPED,
     "held-out rows for evaluation during training"},
    {"eval_split", "val_set_size|val_size", NUMBER, "0", "X", 0, 0.999, SHAPED,
     "hold out this share of data instead, chosen by seed and contents"},
    {"columns", NULL, LIST, NULL, "NAME=COLUMN", 0, 0, FED,
     "your columns under the names of docs/data.md (prompt=question,completion=answer)"},
    {"dedup", NULL, CHOICE, "none", "none|exact|near", 0, 0, TRAIN | PLAN | DATA,
     "leave out rows that are the same, or nearly the same, as an earlier one"},
    {"max_length", "cutoff_len|max_seq_length|max_seq_len|sequence_len", INTEGER, "1024", "N", 2,
     1 << 20, FED, "longer rows are cut, and counted aloud"},
    {"stride", NULL, INTEGER, NULL, "N", 0, 1 << 20, TRAIN | PLAN | DATA,
     "split long text rows into windows that share N tokens (default: text rows are cut, .txt "
     "files split without)"},
    {"packing", NULL, FLAG, "true", NULL, 0, 0, TRAIN | PLAN | EVAL,
     "let short rows share a buffer"},
    {"shuffle", NULL, FLAG, "true", NULL, 0, 0, SHAPED, "a new order every epoch, from the seed"},
    {"streaming", NULL, FLAG, "false", NULL, 0, 0, TRAIN | PLAN,
     "train rows as they are read, for files larger than memory; needs max_steps"},
    {"shuffle_buffer", "shuffle_buffer_size|buffer_size", INTEGER, "10000", "N", 1, 1e9, TRAIN,
     "rows that streaming shuffles among"},
    {"train_on", NULL, CHOICE, NULL, "completions|assistant|chosen|all", 0, 0, FED,
     "what is supervised (default: completions and assistant turns; all of plain text); chosen: "
     "the "
     "better answers of preference rows"},
    {"chat_template", NULL, TEXT, NULL, "FILE|NAME|none", 0, 0, FED | GENERATE | GRAFT_VERB_RENDER,
     "instead of the model's own: a file, a built-in name (chatml), or none"},
    {"rows", NULL, INTEGER, "3", "N", 0, 1e9, DATA, "rows shown"},
    {"first_row", NULL, INTEGER, "1", "N", 1, 1e15, DATA, "first row shown"},
    {"html", NULL, TEXT, NULL, "FILE", 0, 0, DATA, "write the report as a page too"},

    /* steps */
    {"num_train_epochs", "num_epochs|epochs", NUMBER, "3", "N", 0, 1e6, SHAPED,
     "passes over the data"},
    {"max_steps", "iters", INTEGER, "-1", "N", -1, 1e15, SHAPED,
     "steps; wins over num_train_epochs when positive"},
    {"per_device_train_batch_size", "micro_batch_size|batch_size", INTEGER, "8", "N", 1, 1e6,
     SHAPED, "rows of one batch"},
    {"gradient_accumulation_steps", "grad_accumulation_steps", INTEGER, "1", "N", 1, 1e6, SHAPED,
     "batches of one step"},
    {"output_dir", "adapter_path", TEXT, NULL, "DIR", 0, 0, SHAPED | MERGE,
     "where everything is written"},
    {"dtype", NULL, CHOICE, "auto", "auto|f32|bf16|f16", 0, 0, MERGE,
     "type of the written weights (auto: the base's)"},
    {"resume", "resume_from_checkpoint", TEXT, NULL, "CHECKPOINT", 0, 0, SHAPED,
     "go on from the newest (or this) checkpoint of output_dir"},

    /* optimizer */
    {"optim", NULL, CHOICE, "adamw", "adamw|lora_fa|riemannian", 0, 0, SHAPED,
     "optimizer; the last two are made for LoRA"},
    {"learning_rate", "lr", NUMBER, "1e-4", "X", 0, 1e6, SHAPED, "peak rate"},
    {"weight_decay", NULL, NUMBER, "0", "X", 0, 1e3, SHAPED, "decoupled, on every trained tensor"},
    {"adam_beta1", NULL, NUMBER, "0.9", "X", 0, 0.999999, SHAPED, "decay of the first moment"},
    {"adam_beta2", NULL, NUMBER, "0.999", "X", 0, 0.99999999, SHAPED, "decay of the second moment"},
    {"adam_epsilon", NULL, NUMBER, "1e-8", "X", 0, 1, SHAPED,
     "added to the root of the second moment (lora_fa: 1e-6 unless set)"},
    {"max_grad_norm", NULL, NUMBER, "1", "X", 0, 1e9, SHAPED,
     "clip the global gradient norm; 0: never"},
    {"lr_scheduler_type", NULL, CHOICE, "linear",
     "constant|constant_with_warmup|linear|cosine|cosine_with_restarts|polynomial|inverse_sqrt", 0,
     0, SHAPED, "how the rate changes"},
    {"warmup_steps", NULL, INTEGER, "0", "N", 0, 1e15, SHAPED,
     "steps of rising rate; wins over warmup_ratio"},
    {"warmup_ratio", NULL, NUMBER, "0", "X", 0, 1, SHAPED, "share of steps with a rising rate"},
    {"loraplus_lr_ratio", NULL, NUMBER, "0", "X", 0, 1e6, SHAPED,
     "LoRA+: B learns this many times faster; 0: off"},
    {"seed", NULL, INTEGER, "42", "N", 0, 9007199254740992.0, SHAPED | GENERATE,
     "of everything random"},

    /* saving and looking */
    {"save_steps", NULL, INTEGER, "500", "N", 0, 1e15, SHAPED,
     "steps between checkpoints; 0: only when stopped"},
    {"save_total_limit", NULL, INTEGER, "2", "N", 0, 1e6, SHAPED,
     "checkpoints kept, at least 2; 0: all"},
    {"eval_steps", NULL, INTEGER, "0", "N", 0, 1e15, SHAPED,
     "steps between evaluations; 0: only at the end"},
    {"logging_steps", NULL, INTEGER, "1", "N", 1, 1e15, SHAPED,
     "steps between lines of metrics.jsonl"},

    /* evaluation */
    {"logits", NULL, TEXT, NULL, "FILE", 0, 0, EVAL,
     "write logits.N [tokens, vocab] of every row (safetensors)"},
    {"gradients", NULL, TEXT, NULL, "FILE", 0, 0, EVAL,
     "write the adapter's gradients of the loss (safetensors)"},
    {"max_rows", NULL, INTEGER, "0", "N", 0, 1e15, EVAL | DATA, "only the first N rows; 0: all"},

    /* generation */
    {"prompt", NULL, TEXT, NULL, "TEXT", 0, 0, GRAFT_VERB_GENERATE, "text to continue"},
    {"prompt_file", NULL, TEXT, NULL, "FILE", 0, 0, GRAFT_VERB_GENERATE,
     "the prompt is this file's text"},
    {"chat", NULL, FLAG, "false", NULL, 0, 0, GRAFT_VERB_GENERATE,
     "the prompt is a user's message: use the template"},
    {"system", NULL, TEXT, NULL, "TEXT", 0, 0, GENERATE, "system message of a chat"},
    {"task_id", NULL, INTEGER, "0", "N", 0, 65535, GENERATE,
     "the text's task, for adapters that know several"},
    {"max_new_tokens", NULL, INTEGER, NULL, "N", 1, 1e9, GENERATE, "tokens at most (default 256)"},
    {"temperature", NULL, NUMBER, NULL, "X", 0, 100, GENERATE, "0: greedy"},
    {"top_k", NULL, INTEGER, NULL, "N", 0, 1e9, GENERATE, "sample among the N likeliest; 0: all"},
    {"top_p", NULL, NUMBER, NULL, "X", 0, 1, GENERATE, "sample among the likeliest of this mass"},
    {"min_p", NULL, NUMBER, NULL, "X", 0, 1, GENERATE,
     "drop tokens below this share of the likeliest"},
    {"repetition_penalty", NULL, NUMBER, NULL, "X", 1e-3, 1e3, GENERATE, "1: none"},
    {"stop", NULL, LIST, NULL, "TEXT", 0, 0, GENERATE, "end before this text (repeatable)"},

    /* text tools */
    {"decode", NULL, FLAG, "false", NULL, 0, 0, GRAFT_VERB_TOKENIZE, "ids to text"},
    {"bos_token", NULL, TEXT, NULL, "TEXT", 0, 0, GRAFT_VERB_RENDER, "instead of the model's"},
    {"eos_token", NULL, TEXT, NULL, "TEXT", 0, 0, GRAFT_VERB_RENDER, "instead of the model's"},
    {"now", NULL, TEXT, NULL, "TIME", 0, 0, GRAFT_VERB_RENDER | FED | GENERATE,
     "clock of templates that print the date: 2026-01-31T12:00:00 or seconds"},

    /* machine */
    {"gradient_checkpointing", "grad_checkpoint", CHOICE, "auto", "auto|on|off", 0, 0, SHAPED,
     "recompute activations to save memory"},
    {"memory_limit", NULL, SIZE, NULL, "SIZE", 0, 0, SHAPED,
     "fit into this much (default: what is free)"},
    {"threads", NULL, INTEGER, "0", "N", 0, 4096, COMPUTING | PLAN, "0: one a core"},
    {"profile", NULL, FLAG, "false", NULL, 0, 0, TRAIN | EVAL | GRAFT_VERB_GENERATE,
     "time, calls and rates of every op"},
    {"compute", NULL, CHOICE, "auto", "auto|f32|bf16|int8", 0, 0, TRAIN | EVAL | GENERATE,
     "arithmetic of the frozen products; auto: f32, the exact one"},
    {"force_compute", NULL, FLAG, "false", NULL, 0, 0, TRAIN | EVAL | GENERATE,
     "use --compute even where this machine gains little or nothing by it"},
    {"cpu_features", NULL, TEXT, NULL, "LIST", 0, 0, COMPUTING,
     "use only these instruction sets: none, or some of those doctor lists"},
};

const graft_option *graft_option_at(size_t i) {
    return i < sizeof options / sizeof *options ? &options[i] : NULL;
}

/* Compares names with '-' and '_' alike. */
static bool same_name(const char *name, const char *known, size_t known_length) {
    size_t i = 0;
    for (; name[i] && i < known_length; i++)
        if ((name[i] == '-' ? '_' : name[i]) != known[i])
            return false;
    return !name[i] && i == known_length;
}

static bool is_alias(const char *name, const char *aliases) {
    while (aliases && *aliases) {
        size_t n = strcspn(aliases, "|");
        if (same_name(name, aliases, n))
            return true;
        aliases += n + (aliases[n] == '|');
    }
    return false;
}

const graft_option *graft_option_find(const char *name) {
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (same_name(name, options[i].name, strlen(options[i].name)) ||
            is_alias(name, options[i].aliases))
            return &options[i];
    return NULL;
}

size_t option_count(void) {
    return sizeof options / sizeof *options;
}

/* Edit distance, for short names. */
static int distance(const char *a, const char *b) {
    enum { LONGEST = 40 };
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    int row[LONGEST + 1];
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            char x = a[i - 1] == '-' ? '_' : a[i - 1];
            int replaced = diagonal + (x != b[j - 1]);
            diagonal = row[j];
            int best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = replaced < best ? replaced : best;
        }
    }
    return row[m];
}

const char *option_nearest(const char *name) {
    const char *best = NULL;
    int least = (int)strlen(name) / 2 + 1;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        int d = distance(name, options[i].name);
        if (d < least) {
            least = d;
            best = options[i].name;
        }
    }
    return best;
}
