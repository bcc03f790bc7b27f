#include "train/data/row_stream.h"

#include "base/memory.h"
#include "formats/jsonl.h"
#include "train/data/columns.h"
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
    script_counts scripts;
    column_renames columns;
    int64_t line;      /* of the last row */
    json_t *pair;      /* whose rejected answer comes next; NULL: none */
    int64_t rows_read; /* JSON rows; a pair may count twice in the gate */
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
    if (options->stride < 0 || options->stride >= options->max_length)
        return error_set(err, GRAFT_E_USAGE,
                         "stride is %d; expected fewer tokens than max_length, %d",
                         (int)options->stride, (int)options->max_length);
    if (!options->n_paths)
        return error_set(err, GRAFT_E_USAGE, "no data file is given; name one with --data FILE");
    row_stream *s = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the data reader");
    s->options = *options;
    graft_status status =
        column_renames_parse(&s->columns, options->columns, options->n_columns, err);
    if (status == GRAFT_OK)
        status = supervisor_create(&s->supervisor, options, err);
    if (status != GRAFT_OK)
        row_stream_close(&s);
    *out = s;
    return status;
}

void row_stream_close(row_stream **s) {
    if (!*s)
        return;
    row_reader_close(&(*s)->reader);
    json_decref((*s)->pair);
    supervisor_destroy(&(*s)->supervisor);
    data_row_free(&(*s)->row);
    encoded_row_free(&(*s)->encoded);
    free(*s);
    *s = NULL;
}

const gate_report *row_stream_gate(const row_stream *s) {
    return &s->gate;
}

const script_counts *row_stream_scripts(const row_stream *s) {
    return &s->scripts;
}

static void count_scripts(script_counts *counts, const data_row *row) {
    size_t i;
    json_t *message;
    if (!row->conversation.messages) {
        scripts_count(counts, strbuf_text(&row->prompt), row->prompt.length);
        scripts_count(counts, strbuf_text(&row->completion), row->completion.length);
        return;
    }
    json_array_foreach(row->conversation.messages, i, message) {
        const json_t *content = json_object_get(message, "content");
        if (json_is_string(content))
            scripts_count(counts, json_string_value(content), json_string_length(content));
    }
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

/* Rows that say which answer is better are no answers to imitate, unless that is asked for. */
static graft_status check_preference(const row_stream *s, const char *origin, graft_error *err) {
    if (!row_kind_is_preference(s->row.kind) || s->options.preferences != PREFERENCE_REFUSED)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: a preference row (%s): learning which answer is better is not supported; "
                     "--train-on chosen trains the better answers as completions, and `graft data` "
                     "shows both",
                     origin, row_kind_name(s->row.kind));
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

/* One answer of the row: the only one, or one of a pair's two. */
static graft_status take_answer(row_stream *s, json_t *json, int64_t line, answer_kind answer,
                                graft_error *err) {
    char origin[4200];
    size_t file = s->next_file - 1;
    snprintf(origin, sizeof origin, "%s:%lld", s->options.paths[file], (long long)line);
    encoded_row_clear(&s->encoded);
    s->encoded.is_document = s->is_text_file;
    s->encoded.source =
        (data_source){.file = (int32_t)file, .line = line, .ordinal = s->rows_read - 1};
    graft_status status =
        data_row_read(&s->row, json, answer, s->options.chat != NULL, origin, err);
    if (status == GRAFT_OK)
        status = check_preference(s, origin, err);
    if (status == GRAFT_OK)
        status = check_kind(s, line, origin, err);
    if (status != GRAFT_OK)
        return status;
    count_scripts(&s->scripts, &s->row);
    bool is_bad = s->row.answer == ANSWER_REJECTED && s->options.preferences == PREFERENCE_CHOSEN;
    if (is_bad) {
        encoded_row_find(&s->encoded, GATE_REJECTED);
        s->encoded.kind = s->row.kind;
        s->encoded.source.answer = ANSWER_REJECTED;
    } else {
        status = supervisor_encode(s->supervisor, &s->encoded, &s->row, origin, err);
    }
    if (status == GRAFT_OK && s->options.for_evaluation)
        s->encoded.weight = 1;
    if (status == GRAFT_OK)
        note_row(s, json);
    return status;
}

/* The next row of the files; its rejected answer is kept back when both are wanted. *is_end: none.
 */
static graft_status take_row(row_stream *s, bool *is_end, graft_error *err) {
    json_t *json = NULL;
    int64_t line = 0;
    *is_end = s->options.rows_max > 0 && s->rows_read >= s->options.rows_max;
    if (*is_end)
        return GRAFT_OK;
    graft_status status = next_json(s, &json, &line, err);
    if (status != GRAFT_OK)
        return status;
    *is_end = !json;
    if (!json)
        return column_renames_check_used(&s->columns, err);
    s->rows_read++;
    s->line = line;
    status = column_renames_apply(&s->columns, json, err);
    if (status == GRAFT_OK)
        status = take_answer(s, json, line, ANSWER_CHOSEN, err);
    if (status == GRAFT_OK && s->row.kind == ROW_PAIR && s->options.preferences == PREFERENCE_BOTH)
        s->pair = json_incref(json);
    json_decref(json);
    return status;
}

graft_status row_stream_next(row_stream *s, const encoded_row **out, graft_error *err) {
    graft_status status = GRAFT_OK;
    bool is_end = false, is_bad = false;
    *out = NULL;
    do {
        if (s->options.stop && *s->options.stop)
            return error_set(err, GRAFT_E_INTERRUPTED,
                             "stopped while reading data; nothing was written");
        if (s->pair) {
            status = take_answer(s, s->pair, s->line, ANSWER_REJECTED, err);
            json_decref(s->pair);
            s->pair = NULL;
        } else {
            status = take_row(s, &is_end, err);
        }
        is_bad = s->encoded.findings >> GATE_REJECTED & 1;
    } while (status == GRAFT_OK && !is_end && is_bad);
    if (status == GRAFT_OK && !is_end)
        *out = &s->encoded;
    return status;
}
