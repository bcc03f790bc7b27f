/* A row as tokens: what each is, where it stands in the text, and whether it is trained. */
#ifndef GRAFT_TRAIN_DATA_ENCODED_ROW_H
#define GRAFT_TRAIN_DATA_ENCODED_ROW_H

#include "text/tokenizer/tokenizer.h"
#include "train/data/gate.h"
#include "train/data/rows.h"

typedef struct row_token {
    int32_t id;
    int32_t label;       /* the id to learn here (not shifted), or NOT_TRAINED */
    uint32_t begin, end; /* bytes of the text, half-open */
    bool is_added;       /* by the tokenizer's post-processor: in no place of the text */
} row_token;

typedef struct encoded_row {
    strbuf text; /* rendered; empty for pre-tokenised rows */
    row_token *tokens;
    size_t n, capacity;
    row_kind kind;
    data_source source;
    double weight; /* of the row's loss */
    int32_t task;
    bool is_document;  /* a .txt file */
    uint32_t findings; /* bits 1 << gate_finding */
} encoded_row;

void encoded_row_clear(encoded_row *); /* keeps the memory */
void encoded_row_free(encoded_row *);
static inline void encoded_row_find(encoded_row *row, gate_finding finding) {
    row->findings |= 1u << finding;
}

/* Appends tokens [first, last) of an encoding, `shift` added to their places; untrained. False when
 * out of memory. */
bool encoded_row_append(encoded_row *, const encoding *, size_t first, size_t last, int64_t shift);
bool encoded_row_append_token(encoded_row *, row_token);

#endif
