#include "train/data/data_stream.h"

#include "base/memory.h"
#include "base/rng.h"
#include "train/data/dataset_parts.h"
#include "train/data/row_stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* A row that waits in the buffer. */
typedef struct waiting_row {
    int32_t *ids, *targets; /* [n] */
    size_t ids_capacity, targets_capacity;
    stored_row row;
} waiting_row;

struct data_stream {
    dataset_options options; /* paths and columns are copies */
    size_t n_copies;         /* texts that were copied, paths first */
    char **copies;
    uint64_t seed;
    row_stream *reader; /* of this epoch; NULL: not begun */
    dataset *staged;    /* what the last row that was read became: none, one, or windows */
    size_t next_staged;
    bool reader_ended;
    waiting_row *buffer; /* [buffer_rows], the first n_waiting are there */
    size_t buffer_rows, buffer_capacity, n_waiting;
    rng random; /* of this epoch's order */
    data_cursor cursor;
    int64_t epoch_rows; /* of the last whole epoch; 0: none yet */
    uint64_t hash;      /* of the rows taken in this epoch */
    bool has_told;      /* what the gate found */
    dataset *window;
    uint64_t *order; /* [order_capacity] 0, 1, ... */
    size_t order_capacity;
};

/* ---- Opening ----------------------------------------------------------------------------------
 */

static graft_status check_options(const dataset_options *options, int64_t buffer_rows,
                                  graft_error *err) {
    if (buffer_rows < 1)
        return error_set(err, GRAFT_E_USAGE, "shuffle_buffer is %lld; expected at least 1 row",
                         (long long)buffer_rows);
    if (options->dedup != DEDUP_NONE)
        return error_set(err, GRAFT_E_USAGE,
                         "--dedup needs all rows at once and cannot be had with --streaming");
    for (size_t i = 0; options->shares && i < options->n_paths; i++)
        if (options->shares[i] < 1 || options->shares[i] > 1)
            return error_set(err, GRAFT_E_USAGE,
                             "%s:%g: shares need all rows at once and cannot be had with "
                             "--streaming",
                             options->paths[i], options->shares[i]);
    return GRAFT_OK;
}

static graft_status copy_texts(data_stream *s, const dataset_options *options, graft_error *err) {
    size_t n = options->n_paths + options->n_columns;
    s->copies = mem_array(n, sizeof *s->copies);
    for (size_t i = 0; s->copies && i < n; i++) {
        const char *text =
            i < options->n_paths ? options->paths[i] : options->columns[i - options->n_paths];
        s->copies[i] = mem_text(text, strlen(text));
        if (!s->copies[i])
            break;
        s->n_copies++;
    }
    if (s->n_copies != n)
        return error_memory(err, n * sizeof *s->copies, "the data reader");
    s->options.paths = (const char *const *)s->copies;
    s->options.columns = (const char *const *)s->copies + options->n_paths;
    s->options.shares = NULL;
    return GRAFT_OK;
}

graft_status data_stream_open(data_stream **out, const dataset_options *options,
                              int64_t buffer_rows, uint64_t seed, graft_error *err) {
    *out = NULL;
    graft_status status = check_options(options, buffer_rows, err);
    if (status != GRAFT_OK)
        return status;
    data_stream *s = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the data reader");
    s->options = *options;
    s->buffer_rows = (size_t)buffer_rows;
    s->seed = seed;
    status = copy_texts(s, options, err);
    if (status == GRAFT_OK)
        status = dataset_create(&s->staged, err);
    if (status == GRAFT_OK)
        status = dataset_create(&s->window, err);
    if (status == GRAFT_OK) /* messages about its rows name their files */
        status = dataset_copy_paths(s->window, s->options.paths, NULL, s->options.n_paths, err);
    if (status != GRAFT_OK)
        data_stream_close(&s);
    *out = s;
    return status;
}

/* Once, after the first epoch or with what was read of it. */
static void tell_gate(data_stream *s) {
    if (s->has_told || !s->reader)
        return;
    gate_merge(&s->staged->gate, row_stream_gate(s->reader));
    gate_tell(&s->staged->gate, s->options.paths, true, &s->options.messages);
    s->has_told = true;
}

void data_stream_close(data_stream **owner) {
    data_stream *s = *owner;
    if (!s)
        return;
    if (s->cursor.index)
        tell_gate(s);
    row_stream_close(&s->reader);
    dataset_close(&s->staged);
    dataset_close(&s->window);
    for (size_t i = 0; i < s->buffer_capacity; i++) {
        free(s->buffer[i].ids);
        free(s->buffer[i].targets);
    }
    free(s->buffer);
    free(s->order);
    for (size_t i = 0; i < s->n_copies; i++)
        free(s->copies[i]);
    free(s->copies);
    free(s);
    *owner = NULL;
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

static graft_status begin_epoch(data_stream *s, graft_error *err) {
    row_stream_close(&s->reader);
    s->reader_ended = false;
    s->n_waiting = s->next_staged = 0;
    dataset_clear_rows(s->staged);
    s->hash = 0;
    /* The tag keeps these streams apart from those of other users of the run's seed. */
    s->random = rng_create(s->seed, (uint64_t)0x6275666665 << 24 | (uint64_t)s->cursor.epoch);
    return row_stream_open(&s->reader, &s->options, err);
}

/* Until a row stands in `staged`, or the files end. */
static graft_status stage_rows(data_stream *s, graft_error *err) {
    while (s->next_staged == s->staged->n_rows && !s->reader_ended) {
        const encoded_row *row;
        graft_status status = row_stream_next(s->reader, &row, err);
        if (status != GRAFT_OK)
            return status;
        dataset_clear_rows(s->staged);
        s->next_staged = 0;
        s->reader_ended = !row;
        if (row)
            status = dataset_take_row(s->staged, &s->options, row, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static waiting_row *reserve_slot(data_stream *s) {
    size_t before = s->buffer_capacity;
    if (!mem_reserve(&s->buffer, &s->buffer_capacity, s->n_waiting + 1, sizeof *s->buffer))
        return NULL;
    for (size_t i = before; i < s->buffer_capacity; i++)
        s->buffer[i] = (waiting_row){0};
    return &s->buffer[s->n_waiting];
}

static graft_status fill_buffer(data_stream *s, graft_error *err) {
    while (s->n_waiting < s->buffer_rows) {
        graft_status status = stage_rows(s, err);
        if (status != GRAFT_OK || s->next_staged == s->staged->n_rows)
            return status;
        const stored_row *row = &s->staged->rows[s->next_staged++];
        size_t n = (size_t)row->n;
        waiting_row *slot = reserve_slot(s);
        if (!slot || !mem_reserve(&slot->ids, &slot->ids_capacity, n, sizeof *slot->ids) ||
            !mem_reserve(&slot->targets, &slot->targets_capacity, n, sizeof *slot->targets))
            return error_memory(err, n * sizeof *slot->ids, "the shuffle buffer");
        memcpy(slot->ids, s->staged->ids + row->begin, n * sizeof *slot->ids);
        memcpy(slot->targets, s->staged->targets + row->begin, n * sizeof *slot->targets);
        slot->row = *row;
        s->n_waiting++;
    }
    return GRAFT_OK;
}

/* Draws one row out of the buffer into the window. */
static graft_status draw_row(data_stream *s, graft_error *err) {
    size_t k = s->n_waiting > 1 ? (size_t)rng_below(&s->random, s->n_waiting) : 0;
    waiting_row drawn = s->buffer[k];
    size_t bytes = (size_t)drawn.row.n * sizeof *drawn.ids;
    graft_status status = dataset_add_stored(s->window, &drawn.row, drawn.ids, drawn.targets,
                                             (uint64_t)s->cursor.index, err);
    if (status != GRAFT_OK)
        return status;
    s->buffer[k] = s->buffer[s->n_waiting - 1];
    s->buffer[s->n_waiting - 1] = drawn; /* its memory is used again */
    s->n_waiting--;
    s->hash = XXH3_64bits_withSeed(drawn.ids, bytes, s->hash);
    s->hash = XXH3_64bits_withSeed(drawn.targets, bytes, s->hash);
    s->cursor.index++;
    return GRAFT_OK;
}

static graft_status end_epoch(data_stream *s, graft_error *err) {
    if (!s->cursor.index)
        return error_set(err, GRAFT_E_INPUT,
                         "%s%s: no row has a supervised token within max_length %d; look at the "
                         "rows with `graft data`",
                         s->options.paths[0], s->options.n_paths > 1 ? " and others" : "",
                         (int)s->options.max_length);
    tell_gate(s);
    s->epoch_rows = s->cursor.index;
    s->cursor = (data_cursor){.epoch = s->cursor.epoch + 1};
    row_stream_close(&s->reader);
    s->hash = 0;
    return GRAFT_OK;
}

static graft_status number_rows(data_stream *s, size_t n, graft_error *err) {
    size_t before = s->order_capacity;
    if (!mem_reserve(&s->order, &s->order_capacity, n, sizeof *s->order))
        return error_memory(err, n * sizeof *s->order, "a step's rows");
    for (size_t i = before; i < s->order_capacity; i++)
        s->order[i] = i;
    return GRAFT_OK;
}

graft_status data_stream_next(data_stream *s, stream_rows *out, int64_t wanted, graft_error *err) {
    assert(wanted > 0);
    dataset_clear_rows(s->window);
    graft_status status = s->reader ? GRAFT_OK : begin_epoch(s, err);
    if (status == GRAFT_OK)
        status = fill_buffer(s, err);
    while (status == GRAFT_OK && s->n_waiting && dataset_rows(s->window) < wanted) {
        status = draw_row(s, err);
        if (status == GRAFT_OK)
            status = fill_buffer(s, err);
    }
    if (status == GRAFT_OK && !s->n_waiting)
        status = end_epoch(s, err);
    if (status == GRAFT_OK)
        status = number_rows(s, s->window->n_rows, err);
    *out = (stream_rows){s->window, s->order, dataset_rows(s->window)};
    return status;
}

/* ---- Places -----------------------------------------------------------------------------------
 */

data_cursor data_stream_cursor(const data_stream *s) {
    return s->cursor;
}

uint64_t data_stream_hash(const data_stream *s) {
    return s->hash;
}

graft_status data_stream_seek(data_stream *s, data_cursor cursor, uint64_t hash, graft_error *err) {
    stream_rows rows;
    graft_status status = GRAFT_OK;
    row_stream_close(&s->reader);
    s->cursor = (data_cursor){.epoch = cursor.epoch};
    s->hash = 0;
    while (status == GRAFT_OK && s->cursor.epoch == cursor.epoch && s->cursor.index < cursor.index)
        status = data_stream_next(s, &rows, cursor.index - s->cursor.index, err);
    if (status != GRAFT_OK || (s->cursor.epoch == cursor.epoch && s->hash == hash))
        return status;
    return error_set(err, GRAFT_E_INPUT,
                     "%s%s: the training data has changed since this checkpoint (the first %lld "
                     "rows of epoch %lld are others); put the old files back, or start anew",
                     s->options.paths[0], s->options.n_paths > 1 ? " and others" : "",
                     (long long)cursor.index, (long long)cursor.epoch + 1);
}

double data_stream_epochs(const data_stream *s) {
    double part = s->epoch_rows ? (double)s->cursor.index / (double)s->epoch_rows : 0;
    return (double)s->cursor.epoch + (part < 1 ? part : 1);
}

int32_t data_stream_max_length(const data_stream *s) {
    return s->options.max_length;
}

const char *data_stream_path(const data_stream *s, int32_t file) {
    return file >= 0 && (size_t)file < s->options.n_paths ? s->options.paths[file] : NULL;
}
