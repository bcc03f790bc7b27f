/* Training data: every row of the data files, tokenised once, with what is supervised. Rows are
 * kept as two flat arrays (ids and targets); batches are built from them by packing.h in the order
 * that sampler.h gives.
 *
 * Row kinds, supervision and what is refused: docs/data.md. */
#ifndef GRAFT_TRAIN_DATA_DATASET_H
#define GRAFT_TRAIN_DATA_DATASET_H

#include "train/data/duplicates.h"
#include "train/data/gate.h"
#include "train/data/sampler.h"
#include "train/data/scripts.h"
#include "text/template/template.h"
#include "text/tokenizer/tokenizer.h"

#include <signal.h>

enum {
    ROW_TOKENS_MAX =
        1 << 20, /* bound of max_length: a token's dropout counter is row_id << 20 | index in row */
    NO_TARGET = -1
};

typedef enum train_on {
    TRAIN_ON_COMPLETIONS, /* the completion of a prompt; every assistant turn of a conversation; all
                             of a text */
    TRAIN_ON_ASSISTANT,   /* also the assistant turns of a prompt that is a conversation */
    TRAIN_ON_ALL          /* every token (pre-tokenised rows keep their labels) */
} train_on;

/* What becomes of rows that say which answer is better. */
typedef enum preference_use {
    PREFERENCE_REFUSED,
    PREFERENCE_CHOSEN, /* the better answers are completions; judged-bad ones are left out */
    PREFERENCE_BOTH    /* a pair is two rows, chosen first (source.answer); none is left out */
} preference_use;

typedef struct dataset_options {
    const char *const *paths; /* at least one */
    size_t n_paths;
    const double *shares;       /* [n_paths] of a file's rows that an epoch takes; NULL: all */
    const char *const *columns; /* [n_columns] "prompt=question": see columns.h */
    size_t n_columns;
    const tokenizer *tokenizer; /* NULL: only pre-tokenised rows can be read */
    const chat_template
        *chat; /* NULL: no template (Alpaca and prompt/completion rows become plain text) */
    const chat_template *chat_tools; /* for rows with tools; NULL: `chat` */
    train_on train_on;
    preference_use preferences;
    bool text_ends;         /* `text` rows end in EOS, supervised (as TRL trains them) */
    int32_t max_length;     /* tokens of a row, 2..ROW_TOKENS_MAX: longer rows are cut at the end */
    bool text_windows;      /* long `text` rows are split like a .txt; otherwise cut */
    int32_t stride;         /* tokens that neighbouring windows share, below max_length: trained in
                               the first, context in the second */
    dedup_kind dedup;       /* rows to leave out */
    int32_t embedding_rows; /* ids must be below it; 0: not checked */
    int64_t rows_max;       /* read no more rows than this; 0: all */
    /* Keeps rows that have nothing supervised, and cuts a .txt at max_length; weights are 1.
     * Otherwise such rows are left out, and a .txt is split into windows of max_length. */
    bool for_evaluation;
    int64_t now; /* seconds since 1970: the clock of templates that print the date; 0: now */
    const volatile sig_atomic_t *stop; /* non-zero: GRAFT_E_INTERRUPTED; may be NULL */
    message_sink messages;             /* what the gate found */
} dataset_options;

typedef struct dataset dataset;

/* Reads and tokenises all files. Tells options->messages what the gate found (cut rows, rows left
 * out, ...). GRAFT_E_INPUT with file and line for a row that cannot be read, and when no token at
 * all is supervised (unless for_evaluation). Borrows nothing after it returns. */
graft_status dataset_open(dataset **, const dataset_options *, graft_error *);
void dataset_close(dataset **);

/* Takes `share` (0 to 1, both excluded) of the rows out into a set of its own: those with the least
 * hash of seed and contents, so that equal rows, and the windows of one document, stay on one side,
 * and each side has one at least. GRAFT_E_INPUT when that cannot be. */
graft_status dataset_split(dataset **held_out, dataset *from, double share, uint64_t seed,
                           graft_error *);

/* A data set made in memory: create it empty, add rows, use it. Labels as Hugging Face has them:
 * labels[t] belongs to ids[t], -100 is not trained; NULL: every token is. */
graft_status dataset_create(dataset **, graft_error *);
graft_status dataset_add(dataset *, const int32_t *ids, const int32_t *labels, int32_t n,
                         data_source, graft_error *);

/* A row, borrowed. targets[t] is what ids[t] predicts (already shifted), NO_TARGET: nothing; the
 * last predicts nothing. */
typedef struct data_row_view {
    const int32_t *ids, *targets; /* [n] */
    int32_t n;
    int32_t supervised; /* targets that are none of NO_TARGET */
    float weight;       /* of the row's loss */
    int32_t task;       /* for adapters that know several */
    uint64_t id;        /* its number among the rows of an epoch: dropout counts from it */
    data_source source;
} data_row_view;

int64_t dataset_rows(const dataset *);
data_row_view dataset_row(const dataset *, int64_t row);

typedef struct dataset_counts {
    int64_t rows, tokens, supervised; /* supervised: targets, after the shift */
    int32_t longest;                  /* tokens */
    int32_t most_supervised;          /* of one row */
} dataset_counts;
dataset_counts dataset_count(const dataset *);

/* Targets of the given rows: what a step's loss is divided by. */
int64_t dataset_supervised(const dataset *, const uint64_t *rows, int64_t n);

/* Runs of rows with one share (rows of a file), for sampler_create_groups. *groups [*n] is the
 * caller's to free. */
graft_status dataset_groups(sampler_group **groups, size_t *n, const dataset *, graft_error *);

int64_t dataset_epoch_rows(const dataset *); /* rows of one epoch: all of the groups' */

/* GRAFT_E_INPUT, with the row's place, where a row's task is none of an adapter's n_tasks (0: the
 * adapter knows no tasks, and any will do). */
graft_status dataset_check_tasks(const dataset *, int32_t n_tasks, graft_error *);

/* xxh3 of all ids, targets, row borders, of weights and shares that are not 1, and of tasks that
 * are not 0: a resumed run must find the same. */
uint64_t dataset_hash(const dataset *);

/* The scripts of the rows' own words, as they were read. */
const script_counts *dataset_scripts(const dataset *);

/* The path that source.file counts; NULL past the end. */
const char *dataset_path(const dataset *, int32_t file);
const gate_report *dataset_gate(const dataset *);

#endif
