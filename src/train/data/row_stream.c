#include "train/data/row_stream.h"

#include "base/memory.h"
#include "formats/jsonl.h"
#include "train/data/supervise.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row_stream {
    dataset_options options;
    supervisor *supervisor;
    row_reader *reader; /* of file next_file - 1; NULL: none is open */
    size_t next_file;
    bool is_text_file, has_rows;
    row_kind kind; /* of the file's first row */
    int64_t kind_line;
    data_row row;
    encoded_row encoded;
    gate_report gate;
};

static bool ends_with(const char *text, size_t n, const char *suffix) {
    size_t length = strlen(suffix);
    return n >= length && !strncmp(text + n - length, suffix, length);
}

static bool is_text_path(const char *path) {
    size_t n = strlen(path);
    if (ends_with(path, n, ".gz"))
        n -= 3;
    else if (ends_with(path, n, ".zst"))
        n -= 4;
    return ends_with(path, n, ".txt");
}

graft_status row_stream_open(row_stream **out, const dataset_options *options, graft_error *err) {
    *out = NULL;
    if (options->max_length < 2 || options->max_length > ROW_TOKENS_MAX)
        return error_set(err, GRAFT_E_USAGE, "max_length is %d; expected 2 to %d tokens",
                         (int)options->max_length, (int)ROW_TOKENS_MAX);
    if (!options->n_paths)
        return error_set(err, GRAFT_E_USAGE, "no data file is given; name one with --data FILE");
    row_stream *s = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the data reader");
    s->options = *options;
    graft_status status = supervisor_create(&s->supervisor, options, err);
    if (status != GRAFT_OK)
        row_stream_close(&s);
    *out = s;
    return status;
}

void row_stream_close(row_stream **s) {
    if (!*s)
        return;
    row_reader_close(&(*s)->reader);
    supervisor_destroy(&(*s)->supervisor);
    data_row_free(&(*s)->row);
    encoded_row_free(&(*s)->encoded);
    free(*s);
    *s = NULL;
}

const gate_report *row_stream_gate(const row_stream *s) {
    return &s->gate;
}

/* The next JSON row of any file; *row is NULL at the end of the last. */
static graft_status next_json(row_stream *s, json_t **row, int64_t *line, graft_error *err) {
    *row = NULL;
    for (;;) {
        if (s->reader) {
            graft_status status = row_reader_next(s->reader, row, line, err);
            if (status != GRAFT_OK || *row)
                return status;
            row_reader_close(&s->reader);
        }
        if (s->next_file == s->options.n_paths)
            return GRAFT_OK;
        const char *path = s->options.paths[s->next_file++];
        graft_status status = row_reader_open(&s->reader, path, err);
        if (status != GRAFT_OK)
            return status;
        s->is_text_file = is_text_path(path);
        s->has_rows = false;
    }
}

static graft_status check_kind(row_stream *s, int64_t line, const char *origin, graft_error *err) {
    if (!s->has_rows) {
        s->has_rows = true;
        s->kind = s->row.kind;
        s->kind_line = line;
        return GRAFT_OK;
    }
    if (s->row.kind == s->kind)
        return GRAFT_OK;
    return error_set(
        err, GRAFT_E_INPUT,
        "%s: this row has %s, but the file began (line %lld) with %s; expected one kind of "
        "row in a file: split it",
        origin, row_kind_name(s->row.kind), (long long)s->kind_line, row_kind_name(s->kind));
}

static void note_row(row_stream *s, json_t *json) {
    encoded_row *row = &s->encoded;
    const char *name = data_row_extra_column(json, 0);
    if (name)
        encoded_row_find(row, GATE_EXTRA_COLUMNS);
    for (size_t i = 0; (name = data_row_extra_column(json, i)) != NULL; i++)
        gate_add_column(&s->gate, name);
    for (int i = 0; i < N_GATE_FINDINGS; i++)
        if (row->findings >> i & 1)
            gate_add(&s->gate, (gate_finding)i, row->source);
    s->gate.rows_read++;
}

graft_status row_stream_next(row_stream *s, const encoded_row **out, graft_error *err) {
    json_t *json = NULL;
    int64_t line = 0;
    *out = NULL;
    if (s->options.stop && *s->options.stop)
        return error_set(err, GRAFT_E_INTERRUPTED,
                         "stopped while reading data; nothing was written");
    if (s->options.rows_max > 0 && s->gate.rows_read >= s->options.rows_max)
        return GRAFT_OK;
    graft_status status = next_json(s, &json, &line, err);
    if (status != GRAFT_OK || !json)
        return status;

    char origin[4200];
    size_t file = s->next_file - 1;
    snprintf(origin, sizeof origin, "%s:%lld", s->options.paths[file], (long long)line);
    encoded_row_clear(&s->encoded);
    s->encoded.is_document = s->is_text_file;
    s->encoded.source =
        (data_source){.file = (int32_t)file, .line = line, .ordinal = s->gate.rows_read};
    status = data_row_read(&s->row, json, s->options.chat != NULL, origin, err);
    if (status == GRAFT_OK)
        status = check_kind(s, line, origin, err);
    if (status == GRAFT_OK)
        status = supervisor_encode(s->supervisor, &s->encoded, &s->row, origin, err);
    if (status == GRAFT_OK) {
        note_row(s, json);
        *out = &s->encoded;
    }
    json_decref(json);
    return status;
}
