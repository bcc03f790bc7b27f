#include "train/data/dataset_parts.h"

#include "base/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

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
    free((*d)->shares);
    free(*d);
    *d = NULL;
}

graft_status dataset_copy_paths(dataset *d, const char *const *paths, const double *shares,
                                size_t n, graft_error *err) {
    d->paths = mem_array(n, sizeof *d->paths);
    for (size_t i = 0; d->paths && i < n; i++) {
        d->paths[i] = mem_text(paths[i], strlen(paths[i]));
        if (!d->paths[i])
            break;
        d->n_paths++;
    }
    if (shares)
        d->shares = mem_array(n, sizeof *d->shares);
    if (d->n_paths != n || (shares && !d->shares))
        return error_memory(err, 0, "the data set");
    if (shares)
        memcpy(d->shares, shares, n * sizeof *shares);
    return GRAFT_OK;
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
    *row = (stored_row){.begin = d->tokens, .n = n, .weight = 1, .source = source};
    return row;
}

/* Makes the reserved row part of the set, once its ids and targets are in place. */
static void keep_row(dataset *d, stored_row *row) {
    row->supervised = 0;
    row->id = d->n_rows;
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

graft_status dataset_add_tokens(dataset *d, const encoded_row *from, size_t first, int32_t n,
                                int32_t context, graft_error *err) {
    data_source source = from->source;
    source.first_token = (int64_t)first;
    stored_row *row = reserve_row(d, n, source);
    if (!row)
        return error_memory(err, (size_t)n * 8, "the data set");
    const row_token *tokens = from->tokens + first;
    row->weight = (float)from->weight;
    row->task = from->task;
    for (int32_t i = 0; i < n; i++) {
        size_t at = row->begin + (size_t)i;
        bool has_next = i + 1 < n && i + 1 >= context && tokens[i + 1].label != NOT_TRAINED;
        d->ids[at] = tokens[i].id;
        d->targets[at] = has_next ? tokens[i + 1].label : NO_TARGET;
    }
    keep_row(d, row);
    return GRAFT_OK;
}

graft_status dataset_add_stored(dataset *d, const stored_row *from, const int32_t *ids,
                                const int32_t *targets, uint64_t id, graft_error *err) {
    stored_row *row = reserve_row(d, from->n, from->source);
    if (!row)
        return error_memory(err, (size_t)from->n * 8, "the data set");
    memcpy(d->ids + row->begin, ids, (size_t)from->n * sizeof *ids);
    memcpy(d->targets + row->begin, targets, (size_t)from->n * sizeof *targets);
    row->weight = from->weight;
    row->task = from->task;
    keep_row(d, row);
    row->id = id;
    return GRAFT_OK;
}

void dataset_clear_rows(dataset *d) {
    d->tokens = d->n_rows = 0;
    d->counts = (dataset_counts){0};
}

/* ---- Units ------------------------------------------------------------------------------------
 */

graft_status dataset_units(row_unit **units, size_t *n, const dataset *d, graft_error *err) {
    *units = mem_array(d->n_rows, sizeof **units);
    *n = 0;
    if (!*units)
        return error_memory(err, d->n_rows * sizeof **units, "the data set");
    for (size_t i = 0; i < d->n_rows; i++) {
        const stored_row *row = &d->rows[i];
        bool goes_on = i > 0 && row->source.ordinal == row[-1].source.ordinal;
        row_unit *unit = goes_on ? &(*units)[*n - 1] : &(*units)[(*n)++];
        if (!goes_on)
            *unit = (row_unit){
                .first = i,
                .tokens = {.ids = d->ids + row->begin, .targets = d->targets + row->begin}};
        unit->n++;
        unit->tokens.n += (size_t)row->n;
    }
    return GRAFT_OK;
}

/* Moves a row to the end of what stays, which is not behind it. */
static void close_gap(dataset *d, const stored_row *row) {
    stored_row moved = *row;
    size_t bytes = (size_t)row->n * sizeof *d->ids;
    memmove(d->ids + d->tokens, d->ids + row->begin, bytes);
    memmove(d->targets + d->tokens, d->targets + row->begin, bytes);
    moved.begin = d->tokens;
    d->rows[d->n_rows] = moved;
    keep_row(d, &d->rows[d->n_rows]);
}

graft_status dataset_take_units(dataset *from, dataset *into, const row_unit *units, size_t n,
                                const uint8_t *taken, graft_error *err) {
    for (size_t u = 0; into && u < n; u++)
        for (size_t i = 0; taken[u] && i < units[u].n; i++) {
            const stored_row *row = &from->rows[units[u].first + i];
            graft_status status = dataset_add_stored(into, row, from->ids + row->begin,
                                                     from->targets + row->begin, into->n_rows, err);
            if (status != GRAFT_OK)
                return status;
        }
    dataset_clear_rows(from);
    for (size_t u = 0; u < n; u++)
        for (size_t i = 0; !taken[u] && i < units[u].n; i++)
            close_gap(from, &from->rows[units[u].first + i]);
    return GRAFT_OK;
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
                           .weight = row->weight,
                           .task = row->task,
                           .id = row->id,
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

static bool is_whole(double share) {
    return share >= 1 && share <= 1;
}

/* The run of rows from *first on, which moves past it. */
static sampler_group next_group(const dataset *d, size_t *first) {
    int32_t file = d->rows[*first].source.file;
    sampler_group group = {.share = d->shares ? d->shares[file] : 1};
    for (; *first < d->n_rows; (*first)++, group.rows++) {
        int32_t other = d->rows[*first].source.file;
        /* Files that give every row once are one run: a share is rounded file by file. */
        bool is_plain = is_whole(group.share) && is_whole(d->shares ? d->shares[other] : 1);
        if (other != file && !is_plain)
            break;
    }
    return group;
}

graft_status dataset_groups(sampler_group **groups, size_t *n, const dataset *d, graft_error *err) {
    *groups = mem_array(d->n_rows, sizeof **groups);
    *n = 0;
    if (!*groups)
        return error_memory(err, d->n_rows * sizeof **groups, "the data set");
    for (size_t first = 0; first < d->n_rows;)
        (*groups)[(*n)++] = next_group(d, &first);
    return GRAFT_OK;
}

int64_t dataset_epoch_rows(const dataset *d) {
    int64_t rows = 0;
    for (size_t first = 0; first < d->n_rows;) {
        sampler_group group = next_group(d, &first);
        rows += sampler_group_rows(&group);
    }
    return rows;
}

graft_status dataset_check_tasks(const dataset *d, int32_t n_tasks, graft_error *err) {
    for (size_t i = 0; n_tasks && i < d->n_rows; i++) {
        const stored_row *row = &d->rows[i];
        const char *path = dataset_path(d, row->source.file);
        if (row->task >= n_tasks)
            return error_set(err, GRAFT_E_INPUT,
                             "%s:%lld: task_id is %d; the adapter has %d task%s, numbered from 0: "
                             "change the row, or make the adapter with more tasks",
                             path ? path : "", (long long)row->source.line, (int)row->task,
                             (int)n_tasks, n_tasks == 1 ? "" : "s");
    }
    return GRAFT_OK;
}

uint64_t dataset_hash(const dataset *d) {
    uint64_t hash = XXH3_64bits(d->ids, d->tokens * sizeof *d->ids);
    hash = XXH3_64bits_withSeed(d->targets, d->tokens * sizeof *d->targets, hash);
    for (size_t i = 0; i < d->n_rows; i++) {
        const stored_row *row = &d->rows[i];
        double share = d->shares ? d->shares[row->source.file] : 1;
        double scale[] = {(double)row->weight, share};
        hash = XXH3_64bits_withSeed(&row->n, sizeof row->n, hash);
        if (!is_whole(scale[0]) || !is_whole(share))
            hash = XXH3_64bits_withSeed(scale, sizeof scale, hash);
        if (row->task)
            hash = XXH3_64bits_withSeed(&row->task, sizeof row->task, hash);
    }
    return hash;
}

const char *dataset_path(const dataset *d, int32_t file) {
    return file >= 0 && (size_t)file < d->n_paths ? d->paths[file] : NULL;
}

const gate_report *dataset_gate(const dataset *d) {
    return &d->gate;
}

const script_counts *dataset_scripts(const dataset *d) {
    return &d->scripts;
}
