/* Files to a data set: through the gate, in windows, without duplicates. */
#include "train/data/dataset_parts.h"

#include "base/memory.h"
#include "train/data/row_stream.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- Through the gate -------------------------------------------------------------------------
 */

/* A part of a row: tokens [first, first + n), of which the first `context` were in the part before.
 */
typedef struct row_part {
    size_t first, n, context;
} row_part;

static bool has_target(const encoded_row *row, row_part part) {
    for (size_t i = part.context > 1 ? part.context : 1; i < part.n; i++)
        if (row->tokens[part.first + i].label != NOT_TRAINED)
            return true;
    return false;
}

/* An answer of a preference row that is not there to be trained. */
static bool is_shown_only(const dataset_options *options, int32_t answer) {
    return answer != ANSWER_PLAIN && options->preferences == PREFERENCE_BOTH;
}

/* Kept, or counted and left out. */
static graft_status take_part(dataset *d, const dataset_options *options, const encoded_row *row,
                              row_part part, graft_error *err) {
    data_source source = row->source;
    source.first_token = (int64_t)part.first;
    bool keeps_all = options->for_evaluation || is_shown_only(options, source.answer);
    bool is_kept = part.n > 0 && keeps_all;
    if (part.n == 0)
        gate_add(&d->gate, GATE_EMPTY, source);
    else if (part.n == 1)
        gate_add(&d->gate, GATE_ONE_TOKEN, source);
    else if (!has_target(row, part))
        gate_add(&d->gate, GATE_UNSUPERVISED, source);
    else if (row->weight <= 0)
        gate_add(&d->gate, GATE_WEIGHT_0, source);
    else
        is_kept = true;
    return is_kept
               ? dataset_add_tokens(d, row, part.first, (int32_t)part.n, (int32_t)part.context, err)
               : GRAFT_OK;
}

static bool has_windows(const dataset_options *options, const encoded_row *row) {
    bool is_long_text = row->kind == ROW_TEXT && options->text_windows;
    return !options->for_evaluation && (row->is_document || is_long_text);
}

graft_status dataset_take_row(dataset *d, const dataset_options *options, const encoded_row *row,
                              graft_error *err) {
    size_t most = (size_t)options->max_length;
    if (row->n <= most)
        return take_part(d, options, row, (row_part){.n = row->n}, err);
    if (!has_windows(options, row)) {
        gate_add(&d->gate, GATE_CUT, row->source);
        return take_part(d, options, row, (row_part){.n = most}, err);
    }
    size_t shared = (size_t)options->stride;
    graft_status status = GRAFT_OK;
    for (size_t first = 0, end = 0; status == GRAFT_OK && end < row->n; first = end - shared) {
        row_part part = {.first = first, .context = first > 0 ? shared : 0};
        part.n = row->n - first < most ? row->n - first : most;
        end = first + part.n;
        status = take_part(d, options, row, part, err);
    }
    return status;
}

/* The places tell which rows to look at. */
static graft_status refuse_unsupervised(const dataset *d, const dataset_options *options,
                                        graft_error *err) {
    static const struct {
        gate_finding finding;
        const char *what;
    } reasons[] = {{GATE_UNSUPERVISED, "with nothing supervised"},
                   {GATE_ONE_TOKEN, "of one token"},
                   {GATE_EMPTY, "without a token"},
                   {GATE_WEIGHT_0, "of weight 0"},
                   {GATE_REJECTED, "judged bad"}};
    const gate_report *gate = &d->gate;
    strbuf places = {0};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        const gate_count *count = &gate->found[reasons[i].finding];
        if (!count->rows)
            continue;
        strbuf_printf(&places, "%s%lld %s: ", places.length ? "; " : "", (long long)count->rows,
                      reasons[i].what);
        gate_add_places(&places, count, options->paths);
    }
    graft_status status = error_set(
        err, GRAFT_E_INPUT,
        "%s%s: not one of %lld rows has a supervised token within max_length %d (%s); expected "
        "completions, assistant turns or text to train on: look at the rows with `graft data`, or "
        "give a larger --max-length",
        d->paths[0], d->n_paths > 1 ? " and others" : "", (long long)gate->rows_read,
        (int)options->max_length, strbuf_text(&places));
    strbuf_free(&places);
    return status;
}

/* ---- Duplicates -------------------------------------------------------------------------------
 */

static graft_status find_duplicates(dataset *d, const dataset_options *options, graft_error *err) {
    row_unit *units = NULL;
    unit_tokens *tokens = NULL;
    uint8_t *found = NULL;
    size_t n = 0;
    graft_status status = dataset_units(&units, &n, d, err);
    if (status != GRAFT_OK)
        goto cleanup;
    tokens = mem_array(n, sizeof *tokens);
    found = mem_array(n, 1);
    if (!tokens || !found) {
        status = error_memory(err, n * sizeof *tokens, "finding duplicate rows");
        goto cleanup;
    }
    for (size_t i = 0; i < n; i++)
        tokens[i] = units[i].tokens;
    status = duplicates_find(found, tokens, n, options->dedup, options->stop, err);
    if (status != GRAFT_OK)
        goto cleanup;
    gate_finding exact = options->dedup == DEDUP_NONE ? GATE_DUPLICATE : GATE_DUPLICATE_OUT;
    for (size_t i = 0; i < n; i++)
        if (found[i])
            gate_add(&d->gate, found[i] == DUPLICATE_EXACT ? exact : GATE_NEAR_DUPLICATE,
                     d->rows[units[i].first].source);
    if (options->dedup != DEDUP_NONE)
        status = dataset_take_units(d, NULL, units, n, found, err);
cleanup:
    free(units);
    free(tokens);
    free(found);
    return status;
}

static bool leaves_rows_out(const dataset *d, const dataset_options *options) {
    bool shows = false;
    for (size_t i = 0; i < d->n_rows && !shows; i++)
        shows = is_shown_only(options, d->rows[i].source.answer);
    return !options->for_evaluation && !shows;
}

/* ---- Opening ----------------------------------------------------------------------------------
 */

graft_status dataset_open(dataset **out, const dataset_options *options, graft_error *err) {
    dataset *d = NULL;
    row_stream *stream = NULL;
    const encoded_row *row = NULL;
    *out = NULL;
    graft_status status = row_stream_open(&stream, options, err);
    if (status == GRAFT_OK)
        status = dataset_create(&d, err);
    if (status == GRAFT_OK)
        status = dataset_copy_paths(d, options->paths, options->shares, options->n_paths, err);
    if (status != GRAFT_OK)
        goto cleanup;
    do {
        status = row_stream_next(stream, &row, err);
        if (status != GRAFT_OK || !row)
            break;
        status = dataset_take_row(d, options, row, err);
    } while (status == GRAFT_OK);
    if (status == GRAFT_OK)
        status = find_duplicates(d, options, err);
    if (status != GRAFT_OK)
        goto cleanup;
    gate_merge(&d->gate, row_stream_gate(stream));
    d->scripts = *row_stream_scripts(stream);
    gate_tell(&d->gate, options->paths, leaves_rows_out(d, options), &options->messages);
    if (!d->counts.supervised && !options->for_evaluation) {
        status = refuse_unsupervised(d, options, err);
        goto cleanup;
    }
    *out = d;
    d = NULL;
cleanup:
    row_stream_close(&stream);
    dataset_close(&d);
    return status;
}

/* ---- Splitting --------------------------------------------------------------------------------
 */

typedef struct hashed_unit {
    uint64_t hash;
    size_t unit;
} hashed_unit;

static int compare_hashed(const void *a, const void *b) {
    const hashed_unit *x = a, *y = b;
    return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash)
                              : (x->unit > y->unit) - (x->unit < y->unit);
}

/* Marks the units with the least hashes; equal ones go together. How many were marked. */
static size_t choose_units(uint8_t *taken, hashed_unit *order, const row_unit *units, size_t n,
                           double share, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        const unit_tokens *t = &units[i].tokens;
        uint64_t hash = XXH3_64bits_withSeed(t->ids, t->n * sizeof *t->ids, seed);
        hash = XXH3_64bits_withSeed(t->targets, t->n * sizeof *t->targets, hash);
        order[i] = (hashed_unit){hash, i};
    }
    qsort(order, n, sizeof *order, compare_hashed);
    size_t wanted = (size_t)(share * (double)n + 0.5), chosen = 0;
    if (wanted == 0)
        wanted = 1;
    while (chosen < n && (chosen < wanted || order[chosen].hash == order[chosen - 1].hash))
        taken[order[chosen++].unit] = 1;
    return chosen;
}

graft_status dataset_split(dataset **held_out, dataset *from, double share, uint64_t seed,
                           graft_error *err) {
    row_unit *units = NULL;
    hashed_unit *order = NULL;
    uint8_t *taken = NULL;
    dataset *out = NULL;
    size_t n = 0;
    *held_out = NULL;
    graft_status status = dataset_units(&units, &n, from, err);
    if (status != GRAFT_OK)
        goto cleanup;
    order = mem_array(n, sizeof *order);
    taken = mem_array(n, 1);
    if (!order || !taken) {
        status = error_memory(err, n * sizeof *order, "splitting the data");
        goto cleanup;
    }
    size_t chosen = choose_units(taken, order, units, n, share, seed);
    if (chosen == n) {
        status = error_set(err, GRAFT_E_INPUT,
                           "eval_split %g of %zu rows leaves none to train on; expected at least "
                           "two different rows, and a smaller share",
                           share, n);
        goto cleanup;
    }
    status = dataset_create(&out, err);
    if (status == GRAFT_OK)
        status = dataset_copy_paths(out, (const char *const *)from->paths, from->shares,
                                    from->n_paths, err);
    if (status == GRAFT_OK)
        status = dataset_take_units(from, out, units, n, taken, err);
    if (status == GRAFT_OK) {
        *held_out = out;
        out = NULL;
    }
cleanup:
    dataset_close(&out);
    free(units);
    free(order);
    free(taken);
    return status;
}
