/* Graft: parameter-efficient fine-tuning of large language models, in C.
 *
 * This header is the whole public interface, from simple to advanced, and its manual. A fine-tune
 * and a question to the result, without the error handling:
 *
 *     graft_recipe_create(&recipe, GRAFT_VERB_TRAIN, &err);
 *     graft_recipe_set(recipe, "model", "models/base", &err);
 *     graft_recipe_set(recipe, "data", "rows.jsonl", &err);
 *     graft_recipe_set(recipe, "output_dir", "out", &err);
 *     graft_train(&result, recipe, NULL, &err);
 *
 *     graft_recipe_create(&asking, GRAFT_VERB_GENERATE, &err);
 *     graft_recipe_set(asking, "model", "models/base", &err);
 *     graft_recipe_set(asking, "adapter", "out", &err);
 *     graft_session_open(&session, asking, NULL, &err);
 *     sampling = graft_session_sampling(session);
 *     graft_session_generate(&answer, session, "Once upon a time", &sampling, NULL, &err);
 *     puts(answer.text);
 *
 * examples/ holds whole programs; docs/options.md lists what a recipe can set.
 *
 * Conventions
 *  - Every function that can fail returns graft_status and takes a caller-owned graft_error last
 *    (may be NULL). Output arguments come first; after a failure they hold nothing to free, except
 *    where a comment says so.
 *  - `create`/`destroy` own memory; `open`/`close` own an external resource. Destructors take the
 *    address of the pointer, set it to NULL, and accept a NULL pointer there. `free` releases what
 *    a struct of the caller's holds.
 *  - Pointers passed in are borrowed for the call, unless a comment says for longer.
 *  - Text is UTF-8, ended by NUL. Numbers in text have a decimal point: leave LC_NUMERIC at "C".
 *  - Different objects may be used by different threads at once; one object by one at a time.
 *  - The library never prints, never exits, and changes no state of the process: no signal
 *    handlers, no locale, no environment.
 */
#ifndef GRAFT_H
#define GRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GRAFT_API __attribute__((visibility("default")))
#else
#define GRAFT_API
#endif

/* ---- 1. Status and errors ------------------------------------------------------------------- */

typedef enum graft_status {
    GRAFT_OK = 0,
    GRAFT_E_USAGE,       /* an option or argument is wrong: nothing was done (exit status 2) */
    GRAFT_E_INPUT,       /* a file is missing, damaged or inconsistent: nothing was written (2) */
    GRAFT_E_UNSUPPORTED, /* understood, but Graft does not have it: named in the message (2) */
    GRAFT_E_IO,          /* the system refused a read or write (1) */
    GRAFT_E_MEMORY,      /* out of memory (1) */
    GRAFT_E_NUMERIC,     /* a loss or gradient stopped being finite (1) */
    GRAFT_E_INTERRUPTED, /* the caller asked to stop; what could be saved is saved (128 + signal) */
    GRAFT_E_INTERNAL     /* a defect in Graft (1) */
} graft_status;

/* What went wrong: what, where, what was expected, what was found, what to do. Caller-owned
 * storage, so that reporting never allocates. Control characters of quoted input are escaped. */
typedef struct graft_error {
    graft_status code;
    char message[1024];
} graft_error;

/* The exit status a program should end with for this code: 0, 1 or 2. */
GRAFT_API int graft_exit_status(graft_status code);

GRAFT_API const char *graft_version(void);

/* ---- 2. Where results go -------------------------------------------------------------------- */

/* Receives text in pieces, on the caller's thread. */
typedef struct graft_sink {
    void (*write)(void *context, const char *text, size_t n);
    void *context;
} graft_sink;

/* Results for people (plain text, sparing colour when `is_terminal`), or one JSON document. A
 * report is written whole or, when the call fails, not at all. */
typedef struct graft_format {
    bool json;
    bool is_terminal; /* colours may be used */
    int columns;      /* width of the terminal; 0: 80 */
} graft_format;

/* ---- 3. Recipes: every setting of every verb ------------------------------------------------- */

typedef enum graft_verb {
    GRAFT_VERB_TRAIN = 1 << 0,
    GRAFT_VERB_EVAL = 1 << 1,
    GRAFT_VERB_GENERATE = 1 << 2,
    GRAFT_VERB_CHAT = 1 << 3,
    GRAFT_VERB_PLAN = 1 << 4,
    GRAFT_VERB_DATA = 1 << 5,
    GRAFT_VERB_INSPECT = 1 << 6,
    GRAFT_VERB_DOCTOR = 1 << 7,
    GRAFT_VERB_TOKENIZE = 1 << 8,
    GRAFT_VERB_RENDER = 1 << 9,
    GRAFT_VERB_METHODS = 1 << 10,
    GRAFT_VERB_MERGE = 1 << 11
} graft_verb;

typedef enum graft_option_type {
    GRAFT_OPTION_FLAG,    /* true or false */
    GRAFT_OPTION_INTEGER, /* within [low, high] */
    GRAFT_OPTION_NUMBER,  /* within [low, high], finite */
    GRAFT_OPTION_TEXT,
    GRAFT_OPTION_CHOICE, /* one of `choices`, separated by '|' */
    GRAFT_OPTION_SIZE,   /* bytes; K, M, G, T suffixes count in 1024s */
    GRAFT_OPTION_LIST    /* texts; set repeatedly, or separated by commas */
} graft_option_type;

/* What an option is. The same table drives recipes, the command line, its help and the
 * documentation. */
typedef struct graft_option {
    const char *name;    /* with underscores, as HF writes it: "learning_rate" */
    const char *aliases; /* other names, separated by '|' ("r|lora_rank"), or NULL */
    graft_option_type type;
    const char *fallback; /* the default as text; NULL: none */
    const char *choices;  /* CHOICE; for others what a value is called in help ("DIR") */
    double low, high;     /* INTEGER, NUMBER; low == high: unbounded */
    unsigned verbs;       /* graft_verb bits */
    const char *help;     /* one line */
} graft_option;

/* The i-th option, in the order of the documentation; NULL past the end. */
GRAFT_API const graft_option *graft_option_at(size_t i);
/* By name or alias, '-' and '_' alike; NULL when there is none. */
GRAFT_API const graft_option *graft_option_find(const char *name);

typedef struct graft_recipe graft_recipe;

/* An empty recipe for one verb: every option at its default. */
GRAFT_API graft_status graft_recipe_create(graft_recipe **, graft_verb, graft_error *);
GRAFT_API void graft_recipe_destroy(graft_recipe **);

/* Reads a YAML file of options. Values that were set by graft_recipe_set stay: flag > recipe >
 * default. An unknown key, or a value of the wrong kind, is GRAFT_E_INPUT with the line and the
 * nearest known name. Options of other verbs are allowed, and not used. */
GRAFT_API graft_status graft_recipe_read(graft_recipe *, const char *path, graft_error *);
/* Sets one option from text. Lists: the first set replaces what a recipe file gave, later ones
 * append. GRAFT_E_USAGE names the nearest known option, or what values are accepted. value NULL:
 * back to the default. */
GRAFT_API graft_status graft_recipe_set(graft_recipe *, const char *name, const char *value,
                                        graft_error *);
/* The value in force (default included); NULL when there is none. Lists are joined with commas.
 * Borrowed until the next call with this recipe. */
GRAFT_API const char *graft_recipe_get(const graft_recipe *, const char *name);
/* All options of the recipe's verb, resolved, as YAML: reading it again gives the same recipe. */
GRAFT_API graft_status graft_recipe_write(const graft_recipe *, const graft_sink *, graft_error *);

/* ---- 4. Watching long work ------------------------------------------------------------------- */

typedef enum graft_event_kind {
    GRAFT_EVENT_INFO,       /* text: something worth knowing */
    GRAFT_EVENT_WARNING,    /* text: something the user should look at */
    GRAFT_EVENT_STEP,       /* a training step was logged */
    GRAFT_EVENT_EVALUATION, /* held-out data was evaluated */
    GRAFT_EVENT_SAVED       /* text: path of what was written */
} graft_event_kind;

typedef struct graft_event {
    graft_event_kind kind;
    const char *text; /* until the callback returns; NULL for STEP and EVALUATION */
    /* STEP and EVALUATION; losses in nats a token */
    int64_t step, total_steps;
    double epoch;
    /* STEP */
    double loss, grad_norm, learning_rate; /* grad_norm before clipping */
    int64_t tokens, supervised_tokens;     /* of this step */
    double tokens_per_second, step_time_s, eta_s;
    int64_t peak_memory_bytes; /* resident, of the whole process */
    /* EVALUATION */
    double eval_loss, eval_perplexity;
} graft_event;

typedef struct graft_observer {
    /* On the caller's thread; NULL: nobody watches. */
    void (*on_event)(void *context, const graft_event *);
    void *context;
    /* Polled in every loop: non-zero asks to save what can be saved and to return
     * GRAFT_E_INTERRUPTED. A signal handler may set it. NULL: cannot be stopped. */
    const volatile int *stop;
} graft_observer;

/* Where the time went, with the option `profile`; n_ops 0 without it. Ops that ran, longest
 * first. */
typedef struct graft_profile_op {
    const char *name; /* static */
    int64_t calls;
    double seconds;
    double flops; /* of products and attention; other ops count none */
    double bytes; /* every operand read or written once */
} graft_profile_op;

enum { GRAFT_PROFILE_OPS_MAX = 64 };
typedef struct graft_profile {
    graft_profile_op ops[GRAFT_PROFILE_OPS_MAX];
    size_t n_ops;
    double seconds; /* all of the call, inside ops and outside */
    /* What this machine reached right afterwards: operations a second of a large product, bytes a
     * second of copying. */
    double peak_flops, peak_bytes;
} graft_profile;

/* ---- 5. The verbs ---------------------------------------------------------------------------- */
/* Each takes a recipe created for it; options are described by graft_option_at and
 * docs/options.md. The observer may be NULL. Whatever is refused (exit status 2) is refused before
 * anything is written. */

typedef struct graft_train_result {
    int64_t steps, tokens, supervised_tokens; /* of this call: 0 when a resumed run was complete */
    int64_t skipped_steps;                    /* of the run: loss or gradient was not finite */
    double first_loss, last_loss;             /* of this call; NaN without steps */
    double eval_loss;                         /* NaN when nothing was evaluated */
    double seconds, tokens_per_second;
    int64_t planned_memory_bytes; /* what graft_plan says, and the run took, to the byte */
    int64_t peak_memory_bytes;    /* resident, of the whole process */
    int64_t trained_parameters, parameters;
    const double *losses; /* [n_losses] of logged steps; freed with graft_train_result_free */
    size_t n_losses;
    graft_profile profile;
} graft_train_result;

/* Trains as the recipe says and writes its output_dir. */
GRAFT_API graft_status graft_train(graft_train_result *, const graft_recipe *,
                                   const graft_observer *, graft_error *);
GRAFT_API void graft_train_result_free(graft_train_result *);
/* As the command line shows it. */
GRAFT_API graft_status graft_train_result_write(const graft_sink *, graft_format,
                                                const graft_train_result *, graft_error *);

typedef struct graft_eval_result {
    double loss;       /* mean cross-entropy over supervised tokens of all rows, nats */
    double perplexity; /* exp(loss) */
    int64_t rows, tokens, supervised_tokens;
    double seconds, tokens_per_second;
    int64_t peak_memory_bytes; /* resident, of the whole process */
    graft_profile profile;
} graft_eval_result;

/* Loss and perplexity of a model, with an adapter or without, on data; logits and gradients into
 * files on request. GRAFT_E_NUMERIC when the loss is not finite. */
GRAFT_API graft_status graft_eval(graft_eval_result *, const graft_recipe *, const graft_observer *,
                                  graft_error *);
GRAFT_API graft_status graft_eval_result_write(const graft_sink *, graft_format,
                                               const graft_eval_result *, graft_error *);

/* A profile as a table; nothing when it has no ops. */
GRAFT_API graft_status graft_profile_write(const graft_sink *, const graft_profile *,
                                           graft_error *);

typedef struct graft_merge_result {
    int64_t tensors, changed; /* of the model; that the adapter changed */
    bool unties;              /* the head got a weight of its own */
    double seconds;
    int64_t peak_memory_bytes;
} graft_merge_result;

/* Makes one model of a base and its adapter, in output_dir, which must not exist or be empty:
 * nothing is there before all of it is. GRAFT_E_UNSUPPORTED where the method cannot be merged. */
GRAFT_API graft_status graft_merge(graft_merge_result *, const graft_recipe *,
                                   const graft_observer *, graft_error *);
GRAFT_API graft_status graft_merge_result_write(const graft_sink *, graft_format,
                                                const graft_merge_result *, graft_error *);

/* What a fine-tune costs: memory by component, operations, time from rates measured now, and
 * whether it fits; where not, what would make it fit. From config.json, the headers of the weight
 * files and the recipe. That it does not fit is an answer, and GRAFT_OK. */
GRAFT_API graft_status graft_plan(const graft_sink *, graft_format, const graft_recipe *,
                                  const graft_observer *, graft_error *);
/* What will be trained, row by row: rendered text, tokens, which are supervised; and a summary. */
GRAFT_API graft_status graft_data(const graft_sink *, graft_format, const graft_recipe *,
                                  const graft_observer *, graft_error *);
/* What the file or folder at path is: model, adapter, checkpoint, tensors, tokenizer, data. */
GRAFT_API graft_status graft_inspect(const graft_sink *, graft_format, const char *path,
                                     graft_error *);
/* This machine: processor, memory, kernels, measured peaks; checks the kernels against the
 * reference. GRAFT_E_INTERNAL, after the report, when one disagrees. */
GRAFT_API graft_status graft_doctor(const graft_sink *, graft_format, const graft_recipe *,
                                    graft_error *);
/* The methods there are; with a model in the recipe (which may be NULL), also what each trains of
 * it with its default settings. */
GRAFT_API graft_status graft_methods(const graft_sink *, graft_format, const graft_recipe *,
                                     const graft_observer *, graft_error *);

/* ---- 6. Sessions: a model in memory, generating ---------------------------------------------- */

/* A base model with its tokenizer, and at most one adapter, ready to generate. Calls do not see
 * each other: whoever chats keeps the conversation. */
typedef struct graft_session graft_session;

/* Opens what the recipe's model, adapter, threads, ... name (GRAFT_VERB_GENERATE, or
 * GRAFT_VERB_CHAT, which wants a chat template). The recipe and the observer may go when it
 * returns; observer->stop is polled by every call until the session is closed. */
GRAFT_API graft_status graft_session_open(graft_session **, const graft_recipe *,
                                          const graft_observer *, graft_error *);
GRAFT_API void graft_session_close(graft_session **);

typedef struct graft_sampling {
    int64_t max_new_tokens;
    double temperature;        /* 0: greedy */
    int64_t top_k;             /* 0: off */
    double top_p, min_p;       /* 1 and 0: off */
    double repetition_penalty; /* 1: off */
    uint64_t seed;             /* the same seed and prompt give the same answer */
    const char *const *stops;  /* [n_stops] generation ends before any of these texts */
    size_t n_stops;
} graft_sampling;

/* The recipe's values where it names them, else those of the model's generation_config.json, else
 * greedy, 256 tokens. `stops` is the session's. */
GRAFT_API graft_sampling graft_session_sampling(const graft_session *);

/* Free with graft_generation_free, after a failure too: it then holds what was generated so far. */
typedef struct graft_generation {
    char *text;         /* after a failure it may be NULL */
    size_t text_bytes;  /* of text, which may hold NUL bytes; one more follows */
    int32_t *token_ids; /* [n_tokens] */
    size_t n_tokens, n_prompt_tokens;
    double prompt_seconds, seconds; /* reading the prompt; all of it */
    double tokens_per_second;       /* of the generated tokens */
    const char *finish_reason;      /* "stop": end of sequence or a stop text; "length"; static */
    graft_profile profile;
} graft_generation;

/* Continues a prompt (taken as it is, special tokens as the tokenizer's post-processor adds them).
 * New text is handed to `stream` (may be NULL) as soon as it is whole characters that no stop text
 * can still take back. GRAFT_E_INPUT when the prompt does not fit the model's context. */
GRAFT_API graft_status graft_session_generate(graft_generation *, graft_session *,
                                              const char *prompt, const graft_sampling *,
                                              const graft_sink *stream, graft_error *);
/* The next assistant turn of a conversation, given as a JSON array of messages ({"role",
 * "content"}), through the model's chat template. Text in a message that looks like a control
 * token stays text. */
GRAFT_API graft_status graft_session_chat(graft_generation *, graft_session *,
                                          const char *messages_json, const graft_sampling *,
                                          const graft_sink *stream, graft_error *);
GRAFT_API void graft_generation_free(graft_generation *);
/* {"text", "token_ids", "prompt_tokens", "generated_tokens", "tokens_per_second",
 * "finish_reason"} on one line; with a profile also "profile". */
GRAFT_API graft_status graft_generation_write_json(const graft_sink *, const graft_generation *,
                                                   graft_error *);

/* ---- 7. Text --------------------------------------------------------------------------------- */

typedef struct graft_text_tool graft_text_tool;

/* The tokenizer (GRAFT_VERB_TOKENIZE) or chat template (GRAFT_VERB_RENDER) that a recipe names.
 * The recipe may go when it returns. */
GRAFT_API graft_status graft_text_tool_open(graft_text_tool **, const graft_recipe *,
                                            graft_error *);
/* One line of JSON in, one line of JSON (with its newline) out, as docs/cli.md says for `tokenize`
 * and `render`; a blank line gives nothing. Messages count the lines of this tool from 1. */
GRAFT_API graft_status graft_text_tool_line(graft_text_tool *, const graft_sink *, const char *line,
                                            size_t n, graft_error *);
GRAFT_API void graft_text_tool_close(graft_text_tool **);

/* "1.50 GiB", "12.3 MiB"; returns out. */
enum { GRAFT_BYTES_TEXT = 32 };
GRAFT_API const char *graft_bytes_text(char out[GRAFT_BYTES_TEXT], double bytes);
/* A line of block characters drawing n values, at most `columns` wide; what is not finite is left
 * blank. */
GRAFT_API void graft_sparkline(const graft_sink *, const double *values, size_t n, int columns);

#ifdef __cplusplus
}
#endif

#endif /* GRAFT_H */
