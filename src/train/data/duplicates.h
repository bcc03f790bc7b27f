/* Rows that are the same, or nearly the same, as an earlier row.
 *
 * Exact: the same ids and targets.
 * Near: both the whole rows and what is supervised in them are alike. Alike means that of all runs
 * of five tokens (shingles) that one or the other has, NEAR_SIMILARITY at least are in both
 * (Jaccard). Shingles of more than a tenth of all rows (a template's words, a shared system
 * prompt) do not count. Candidates come from MinHash signatures (Broder, "On the resemblance and
 * containment of documents", 1997) in 25 bands of 5: of pairs at 0.8 similarity one in 20,000 is
 * missed; candidates are then compared exactly, so that no unlike row is left out. */
#ifndef GRAFT_TRAIN_DATA_DUPLICATES_H
#define GRAFT_TRAIN_DATA_DUPLICATES_H

#include "base/status.h"

#include <signal.h>

typedef enum dedup_kind { DEDUP_NONE, DEDUP_EXACT, DEDUP_NEAR } dedup_kind;

#define NEAR_SIMILARITY 0.8

/* Tokens of one row. targets[t] is what ids[t] predicts, negative: nothing. */
typedef struct unit_tokens {
    const int32_t *ids, *targets; /* [n] */
    size_t n;
} unit_tokens;

typedef enum duplicate_kind { NOT_DUPLICATE, DUPLICATE_EXACT, DUPLICATE_NEAR } duplicate_kind;

/* found[i] of rows [n]: what row i is to the rows before it. Near ones are looked for with
 * DEDUP_NEAR. A stop flag that rises is GRAFT_E_INTERRUPTED; it may be NULL. */
graft_status duplicates_find(uint8_t *found, const unit_tokens *rows, size_t n, dedup_kind kind,
                             const volatile sig_atomic_t *stop, graft_error *);

#endif
