/* The gate before the first step: what is odd about the rows, counted and shown with their places,
 * so that nothing is trained, cut or left out in silence. */
#ifndef GRAFT_TRAIN_DATA_GATE_H
#define GRAFT_TRAIN_DATA_GATE_H

#include "base/message.h"
#include "base/status.h"
#include "base/strbuf.h"

/* Where a row came from. */
typedef struct data_source {
    int32_t file;        /* index in the list of paths */
    int64_t line;        /* 1-based; of a .json array: the element */
    int64_t ordinal;     /* 0-based over all files, counting rows that were left out */
    int64_t first_token; /* > 0: a later window of a document that was split */
    int32_t answer;      /* answer_kind of rows.h: a pair's two rows differ in it alone */
} data_source;

typedef enum gate_finding {
    GATE_EMPTY,            /* no token: left out */
    GATE_ONE_TOKEN,        /* nothing to predict: left out */
    GATE_UNSUPERVISED,     /* no supervised token within max_length: left out */
    GATE_CUT,              /* longer than max_length: cut at the end */
    GATE_DOUBLED_BOS,      /* text and post-processor both gave a BOS: one was dropped */
    GATE_DOUBLED_BOS_KEPT, /* the same in pre-tokenised rows, which are taken as they are */
    GATE_CONTROL_TEXT,     /* a message holds the text of a control token: kept as plain text */
    GATE_NO_STOP,          /* the last supervised turn ends in no control token */
    GATE_EOS_ADDED,        /* the same, and EOS was put there */
    GATE_NO_EOS,           /* a completion ends without EOS: the tokenizer names none */
    GATE_EMPTY_ANSWER,     /* the completion is empty: only its end is trained */
    GATE_TOOLS_NOT_SHOWN,  /* the template prints no tools or tool calls: calls are given as their
                              JSON */
    GATE_EXTRA_COLUMNS,    /* keys that no row kind knows: ignored */
    GATE_REJECTED,       /* judged bad (label false): left out where only chosen ones are trained */
    GATE_WEIGHT_0,       /* the row's weight is 0: left out */
    GATE_DUPLICATE,      /* the same tokens and targets as an earlier row: kept */
    GATE_DUPLICATE_OUT,  /* the same, left out (--dedup) */
    GATE_NEAR_DUPLICATE, /* nearly the same as an earlier row: left out (--dedup near) */
    N_GATE_FINDINGS
} gate_finding;

enum { GATE_SHOWN_MAX = 5 };

typedef struct gate_count {
    int64_t rows;
    data_source shown[GATE_SHOWN_MAX]; /* the first ones */
} gate_count;

typedef struct gate_report {
    int64_t rows_read;
    gate_count found[N_GATE_FINDINGS];
    char extra_columns[256]; /* their names, comma-separated, as far as they fit */
} gate_report;

void gate_add(gate_report *, gate_finding, data_source);
void gate_add_column(gate_report *, const char *name);
/* What a row stream saw is reported with what was done to the rows: no finding is in both. */
void gate_merge(gate_report *into, const gate_report *seen);
/* Short name ("cut", "no_supervised_token", ...), for reports as JSON. */
const char *gate_name(gate_finding);
bool gate_is_warning(gate_finding);
/* "rows.jsonl:3, :7, ...": the first places, as they are shown. */
void gate_add_places(strbuf *, const gate_count *, const char *const *paths);
/* One message for each finding: how many rows, what happened to them, where the first ones are.
 * left_out: whether rows without supervision were left out (training) or kept (evaluation). */
void gate_tell(const gate_report *, const char *const *paths, bool left_out, const message_sink *);

#endif
