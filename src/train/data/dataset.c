#include "train/data/dataset.h"

#include "base/memory.h"
#include "train/data/row_stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct stored_row {
    size_t begin; /* of its tokens */
    int32_t n, supervised;
    data_source source;
} stored_row;

struct dataset {
    int32_t *ids, *targets; /* [tokens] of all rows, one after another */
    size_t tokens, ids_capacity, targets_capacity;
    stored_row *rows;
    size_t n_rows, rows_capacity;
    dataset_counts counts;
    char **paths; /* copies */
    size_t n_paths;
    gate_report gate;
};

graft_status dataset_create(dataset **out, graft_error *err) {
    *out = mem_array(1, sizeof **out);
    return *out ? GRAFT_OK : error_memory(err, sizeof **out, "a data set");
}

void dataset_close(dataset **d) {
    if (!*d)
        return;
    free((*d)->ids);
    free((*d)->targets);
    free((*d)->rows);
    for (size_t i = 0; i < (*d)->n_paths; i++)
        free((*d)->paths[i]);
    free((*d)->paths);
    free(*d);
    *d = NULL;
}

/* ---- Storing ----------------------------------------------------------------------------------
 */

/* Room for one more row of n tokens; its place, or NULL. */
static stored_row *reserve_row(dataset *d, int32_t n, data_source source) {
    size_t tokens = d->tokens + (size_t)n;
    if (!mem_reserve(&d->ids, &d->ids_capacity, tokens, sizeof *d->ids) ||
        !mem_reserve(&d->targets, &d->targets_capacity, tokens, sizeof *d->targets) ||
        !mem_reserve(&d->rows, &d->rows_capacity, d->n_rows + 1, sizeof *d->rows))
        return NULL;
    stored_row *row = &d->rows[d->n_rows];
    *row = (stored_row){.begin = d->tokens, .n = n, .source = source};
    return row;
}

/* Makes the reserved row part of the set, once its ids and targets are in place. */
static void keep_row(dataset *d, stored_row *row) {
    for (int32_t i = 0; i < row->n; i++)
        row->supervised += d->targets[row->begin + (size_t)i] != NO_TARGET;
    dataset_counts *c = &d->counts;
    d->tokens += (size_t)row->n;
    d->n_rows++;
    c->rows++;
    c->tokens += row->n;
    c->supervised += row->supervised;
    if (row->n > c->longest)
        c->longest = row->n;
    if (row->supervised > c->most_supervised)
        c->most_supervised = row->supervised;
}

graft_status dataset_add(dataset *d, const int32_t *ids, const int32_t *labels, int32_t n,
                         data_source source, graft_error *err) {
    assert(n > 0 && n <= ROW_TOKENS_MAX);
    stored_row *row = reserve_row(d, n, source);
    if (!row)
        return error_memory(err, (size_t)n * 8, "the data set");
    const int32_t *taught = labels ? labels : ids;
    for (int32_t i = 0; i < n; i++) {
        size_t at = row->begin + (size_t)i;
        bool has_next = i + 1 < n && taught[i + 1] != NOT_TRAINED;
        d->ids[at] = ids[i];
        d->targets[at] = has_next ? taught[i + 1] : NO_TARGET;
    }
    keep_row(d, row);
    return GRAFT_OK;
}

/* n tokens of a row from `first` on; n > 0. */
static graft_status add_tokens(dataset *d, const encoded_row *from, size_t first, int32_t n,
                               graft_error *err) {
    data_source source = from->source;
    source.first_token = (int64_t)first;
    stored_row *row = reserve_row(d, n, source);
    if (!row)
        return error_memory(err, (size_t)n * 8, "the data set");
    const row_token *tokens = from->tokens + first;
    for (int32_t i = 0; i < n; i++) {
        size_t at = row->begin + (size_t)i;
        bool has_next = i + 1 < n && tokens[i + 1].label != NOT_TRAINED;
        d->ids[at] = tokens[i].id;
        d->targets[at] = has_next ? tokens[i + 1].label : NO_TARGET;
    }
    keep_row(d, row);
    return GRAFT_OK;
}

/* ---- Through the gate -------------------------------------------------------------------------
 */

static bool has_target(const row_token *tokens, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (tokens[i].label != NOT_TRAINED)
            return true;
    return false;
}

/* Tokens [first, first + n) of a row: kept, or counted and left out. */
static graft_status take_part(dataset *d, const dataset_options *options, const encoded_row *row,
                              size_t first, size_t n, graft_error *err) {
    data_source source = row->source;
    source.first_token = (int64_t)first;
    bool is_kept = n > 0 && options->for_evaluation;
    if (n == 0)
        gate_add(&d->gate, GATE_EMPTY, source);
    else if (n == 1)
        gate_add(&d->gate, GATE_ONE_TOKEN, source);
    else if (!has_target(row->tokens + first, n))
        gate_add(&d->gate, GATE_UNSUPERVISED, source);
    else
        is_kept = true;
    return is_kept ? add_tokens(d, row, first, (int32_t)n, err) : GRAFT_OK;
}

static graft_status take_row(dataset *d, const dataset_options *options, const encoded_row *row,
                             graft_error *err) {
    size_t most = (size_t)options->max_length;
    if (row->n <= most)
        return take_part(d, options, row, 0, row->n, err);
    if (!row->is_document || options->for_evaluation) {
        gate_add(&d->gate, GATE_CUT, row->source);
        return take_part(d, options, row, 0, most, err);
    }
    graft_status status = GRAFT_OK;
    for (size_t first = 0; status == GRAFT_OK && first < row->n; first += most) {
        size_t left = row->n - first;
        status = take_part(d, options, row, first, left < most ? left : most, err);
    }
    return status;
}

static graft_status copy_paths(dataset *d, const dataset_options *options, graft_error *err) {
    d->paths = mem_array(options->n_paths, sizeof *d->paths);
    for (size_t i = 0; d->paths && i < options->n_paths; i++) {
        d->paths[i] = mem_text(options->paths[i], strlen(options->paths[i]));
        if (!d->paths[i])
            break;
        d->n_paths++;
    }
    return d->n_paths == options->n_paths ? GRAFT_OK : error_memory(err, 0, "the data set");
}

/* What the stream saw in the rows is reported with what the gate did to them. */
static void merge_gate(gate_report *into, const gate_report *seen) {
    into->rows_read = seen->rows_read;
    memcpy(into->extra_columns, seen->extra_columns, sizeof into->extra_columns);
    for (int i = 0; i < N_GATE_FINDINGS; i++)
        if (seen->found[i].rows)
            into->found[i] = seen->found[i];
}

static graft_status refuse_unsupervised(const dataset *d, const dataset_options *options,
                                        graft_error *err) {
    const gate_report *gate = &d->gate;
    return error_set(
        err, GRAFT_E_INPUT,
        "%s%s: not one of %lld rows has a supervised token within max_length %d (%lld have "
        "nothing supervised, %lld one token, %lld none at all); expected completions, "
        "assistant turns or text to train on: look at the rows with `graft data`, or give a "
        "larger --max-length",
        d->paths[0], d->n_paths > 1 ? " and others" : "", (long long)gate->rows_read,
        (int)options->max_length, (long long)gate->found[GATE_UNSUPERVISED].rows,
        (long long)gate->found[GATE_ONE_TOKEN].rows, (long long)gate->found[GATE_EMPTY].rows);
}

graft_status dataset_open(dataset **out, const dataset_options *options, graft_error *err) {
    dataset *d = NULL;
    row_stream *stream = NULL;
    const encoded_row *row = NULL;
    *out = NULL;
    graft_status status = row_stream_open(&stream, options, err);
    if (status == GRAFT_OK)
        status = dataset_create(&d, err);
    if (status == GRAFT_OK)
        status = copy_paths(d, options, err);
    if (status != GRAFT_OK)
        goto cleanup;
    do {
        status = row_stream_next(stream, &row, err);
        if (status == GRAFT_OK && row)
            status = take_row(d, options, row, err);
    } while (status == GRAFT_OK && row);
    if (status != GRAFT_OK)
        goto cleanup;
    merge_gate(&d->gate, row_stream_gate(stream));
    gate_tell(&d->gate, options->paths, !options->for_evaluation, &options->messages);
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

/* ---- Asking -----------------------------------------------------------------------------------
 */

int64_t dataset_rows(const dataset *d) {
    return (int64_t)d->n_rows;
}

data_row_view dataset_row(const dataset *d, int64_t i) {
    assert(i >= 0 && (size_t)i < d->n_rows);
    const stored_row *row = &d->rows[i];
    return (data_row_view){.ids = d->ids + row->begin,
                           .targets = d->targets + row->begin,
                           .n = row->n,
                           .supervised = row->supervised,
                           .source = row->source};
}

dataset_counts dataset_count(const dataset *d) {
    return d->counts;
}

int64_t dataset_supervised(const dataset *d, const uint64_t *rows, int64_t n) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += dataset_row(d, (int64_t)rows[i]).supervised;
    return sum;
}

uint64_t dataset_hash(const dataset *d) {
    uint64_t hash = XXH3_64bits(d->ids, d->tokens * sizeof *d->ids);
    hash = XXH3_64bits_withSeed(d->targets, d->tokens * sizeof *d->targets, hash);
    for (size_t i = 0; i < d->n_rows; i++)
        hash = XXH3_64bits_withSeed(&d->rows[i].n, sizeof d->rows[i].n, hash);
    return hash;
}

const char *dataset_path(const dataset *d, int32_t file) {
    return file >= 0 && (size_t)file < d->n_paths ? d->paths[file] : NULL;
}

const gate_report *dataset_gate(const dataset *d) {
    return &d->gate;
}
