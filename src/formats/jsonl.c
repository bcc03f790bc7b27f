#include "formats/jsonl.h"

#include "base/file_map.h"
#include "base/memory.h"
#include "formats/byte_source.h"
#include "formats/foreign.h"
#include "formats/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CHUNK_BYTES = 1 << 18 };

typedef enum row_kind { ROWS_ARE_LINES, ROWS_IN_ARRAY_OR_LINES, ROW_IS_TEXT } row_kind;

struct row_reader {
    char *path;
    row_kind kind;
    byte_source *source;
    char *data; /* what was read and not yet handed out: data[begin..end) */
    size_t begin, end, capacity;
    bool source_ended;
    int64_t row; /* rows or lines handed out so far */
    bool found_any;
    json_t *array; /* of a .json file */
    bool started;
};

static const struct {
    const char *ending;
    row_kind kind;
} readable[] = {
    {".jsonl", ROWS_ARE_LINES},
    {".ndjson", ROWS_ARE_LINES},
    {".json", ROWS_IN_ARRAY_OR_LINES},
    {".txt", ROW_IS_TEXT},
};

static const struct {
    const char *ending, *conversion; /* Python, for the message */
} convertible[] = {
    {".parquet", "pandas.read_parquet(\"FILE\")"},
    {".arrow", "datasets.Dataset.from_file(\"FILE\")"},
    {".feather", "pandas.read_feather(\"FILE\")"},
    {".csv", "pandas.read_csv(\"FILE\")"},
    {".tsv", "pandas.read_csv(\"FILE\", sep=\"\\t\")"},
};

static bool has_ending(const char *path, size_t length, const char *ending) {
    size_t n = strlen(ending);
    return length > n && !strncasecmp(path + length - n, ending, n);
}

static bool readable_kind(row_kind *out, const char *path) {
    size_t stem = byte_source_stem(path);
    for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++)
        if (has_ending(path, stem, readable[i].ending)) {
            *out = readable[i].kind;
            return true;
        }
    return false;
}

/* How to convert the file, in Python; NULL: nothing is known. */
static const char *conversion_of(const char *path) {
    size_t stem = byte_source_stem(path);
    for (size_t i = 0; i < sizeof convertible / sizeof convertible[0]; i++)
        if (has_ending(path, stem, convertible[i].ending))
            return convertible[i].conversion;
    return NULL;
}

row_path_kind row_path_kind_of(const char *path) {
    row_kind kind;
    if (readable_kind(&kind, path))
        return ROW_PATH_READABLE;
    return conversion_of(path) ? ROW_PATH_CONVERTIBLE : ROW_PATH_OTHER;
}

static graft_status kind_of(row_kind *out, const char *path, graft_error *err) {
    if (readable_kind(out, path))
        return GRAFT_OK;
    const char *conversion = conversion_of(path);
    if (conversion)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: %s files are not read; convert it with Python: "
                         "%s.to_json(\"rows.jsonl\", orient=\"records\", lines=True)",
                         path, strrchr(path, '.'), conversion);
    return error_set(
        err, GRAFT_E_INPUT,
        "%s: expected a data file named .jsonl, .ndjson, .json or .txt (with .gz or .zst "
        "after it when packed), found another ending; rename or convert it",
        path);
}

graft_status row_reader_open(row_reader **out, const char *path, graft_error *err) {
    *out = NULL;
    row_kind kind = ROWS_ARE_LINES;
    graft_status status = kind_of(&kind, path, err);
    if (status != GRAFT_OK)
        return status;
    row_reader *reader = mem_array(1, sizeof *reader);
    if (!reader)
        return error_memory(err, sizeof *reader, path);
    reader->kind = kind;
    reader->path = mem_text(path, strlen(path));
    status = reader->path ? byte_source_open(&reader->source, path, err)
                          : error_memory(err, strlen(path), "a file name");
    if (status != GRAFT_OK)
        row_reader_close(&reader);
    *out = reader;
    return status;
}

void row_reader_close(row_reader **owner) {
    row_reader *reader = *owner;
    if (!reader)
        return;
    byte_source_close(&reader->source);
    json_decref(reader->array);
    free(reader->data);
    free(reader->path);
    free(reader);
    *owner = NULL;
}

/* Reads one more chunk behind what is there. */
static graft_status fetch(row_reader *reader, graft_error *err) {
    if (reader->begin > 0) {
        memmove(reader->data, reader->data + reader->begin, reader->end - reader->begin);
        reader->end -= reader->begin;
        reader->begin = 0;
    }
    if (!mem_reserve(&reader->data, &reader->capacity, reader->end + CHUNK_BYTES, 1))
        return error_memory(err, reader->end + CHUNK_BYTES, reader->path);
    size_t got = 0;
    graft_status status = byte_source_read(reader->source, &got, reader->data + reader->end,
                                           reader->capacity - reader->end, err);
    reader->end += got;
    reader->source_ended = got == 0;
    return status;
}

/* The next line without its end; *line NULL after the last. Lent until the next call. */
static graft_status next_line(row_reader *reader, char **line, size_t *n, graft_error *err) {
    size_t searched = 0;
    *line = NULL;
    *n = 0;
    for (;;) {
        char *first = reader->data ? reader->data + reader->begin : NULL;
        size_t length = reader->end - reader->begin;
        char *newline =
            length > searched ? memchr(first + searched, '\n', length - searched) : NULL;
        size_t line_bytes = newline ? (size_t)(newline - first) : length;
        if (line_bytes > ROW_BYTES_MAX)
            return error_set(
                err, GRAFT_E_INPUT,
                "%s:%lld: expected a line of at most %d bytes, found more; is each row on "
                "its own line?",
                reader->path, (long long)reader->row + 1, (int)ROW_BYTES_MAX);
        if (newline || (reader->source_ended && length > 0)) {
            *line = first;
            *n = line_bytes;
            reader->begin += newline ? line_bytes + 1 : line_bytes;
            reader->row++;
            return GRAFT_OK;
        }
        if (reader->source_ended)
            return GRAFT_OK;
        searched = length;
        graft_status status = fetch(reader, err);
        if (status != GRAFT_OK)
            return status;
    }
}

static graft_status read_rest(row_reader *reader, graft_error *err) {
    while (!reader->source_ended) {
        if (reader->end - reader->begin > WHOLE_FILE_BYTES_MAX)
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: expected at most %llu bytes in a file that is read whole, found more; "
                "write one JSON object a line and name it .jsonl",
                reader->path, (unsigned long long)WHOLE_FILE_BYTES_MAX);
        graft_status status = fetch(reader, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static bool is_blank(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static graft_status need_object(const row_reader *reader, json_t **row, int64_t line,
                                graft_error *err) {
    if (json_is_object(*row))
        return GRAFT_OK;
    const char *found = json_type_name(*row);
    json_decref(*row);
    *row = NULL;
    return error_set(err, GRAFT_E_INPUT, "%s:%lld: expected a JSON object, found %s", reader->path,
                     (long long)line, found);
}

static graft_status parse_line(const row_reader *reader, json_t **row, const char *text, size_t n,
                               graft_error *err) {
    char origin[512];
    size_t length = strlen(reader->path); /* the end of a long path tells more than its beginning */
    snprintf(origin, sizeof origin, "%s:%lld", reader->path + (length > 400 ? length - 400 : 0),
             (long long)reader->row);
    graft_status status = json_parse(row, text, n, origin, err);
    return status == GRAFT_OK ? need_object(reader, row, reader->row, err) : status;
}

static graft_status next_from_lines(row_reader *reader, json_t **row, graft_error *err) {
    for (;;) {
        char *text;
        size_t n;
        graft_status status = next_line(reader, &text, &n, err);
        if (status != GRAFT_OK || !text)
            return status;
        if (reader->row == 1 && n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) {
            text += 3;
            n -= 3;
        }
        if (is_blank(text, n))
            continue;
        status = parse_line(reader, row, text, n, err);
        if (status != GRAFT_OK && reader->kind == ROWS_IN_ARRAY_OR_LINES && reader->row == 1)
            error_prefix(err, "a .json file holds an array of objects, or one object a line");
        return status;
    }
}

static graft_status next_from_array(row_reader *reader, json_t **row, graft_error *err) {
    json_t *element = json_array_get(reader->array, (size_t)reader->row);
    if (!element)
        return GRAFT_OK;
    reader->row++;
    *row = json_incref(element);
    return need_object(reader, row, reader->row, err);
}

/* A .json file: an array when its first character is '[', else (as much data on the hub is) one
 * object a line. */
static graft_status start_json(row_reader *reader, graft_error *err) {
    size_t at;
    do {
        graft_status status = fetch(reader, err);
        if (status != GRAFT_OK)
            return status;
        at = reader->end >= 3 && !memcmp(reader->data, "\xEF\xBB\xBF", 3) ? 3 : 0;
        while (at < reader->end && strchr(" \t\r\n", reader->data[at]) && reader->data[at])
            at++;
    } while (at == reader->end && !reader->source_ended);
    if (at == reader->end || reader->data[at] != '[')
        return GRAFT_OK;
    graft_status status = read_rest(reader, err);
    if (status == GRAFT_OK)
        status = json_parse(&reader->array, reader->data, reader->end, reader->path, err);
    free(reader->data);
    reader->data = NULL;
    reader->begin = reader->end = reader->capacity = 0;
    return status;
}

static graft_status next_text(row_reader *reader, json_t **row, graft_error *err) {
    if (reader->row > 0)
        return GRAFT_OK;
    graft_status status = read_rest(reader, err);
    if (status != GRAFT_OK || reader->end == 0)
        return status;
    const char *text = reader->data;
    size_t n = reader->end;
    size_t valid = utf8_valid_length(text, n);
    const char *foreign =
        valid < n || foreign_is_lfs_pointer(text, n) ? foreign_format(text, n) : NULL;
    if (foreign)
        return error_set(err, GRAFT_E_INPUT, "%s: expected text, found %s", reader->path, foreign);
    if (valid < n)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: byte %zu: expected UTF-8 text, found byte 0x%02x; convert it to UTF-8",
            reader->path, valid, (unsigned)(unsigned char)text[valid]);
    size_t skipped = n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    *row = json_pack("{s:s%}", "text", text + skipped, n - skipped);
    if (!*row)
        return error_memory(err, n, reader->path);
    reader->row = 1;
    return GRAFT_OK;
}

graft_status row_reader_next(row_reader *reader, json_t **row, int64_t *line, graft_error *err) {
    *row = NULL;
    graft_status status = GRAFT_OK;
    if (reader->kind == ROWS_IN_ARRAY_OR_LINES && !reader->started)
        status = start_json(reader, err);
    reader->started = true;
    if (status != GRAFT_OK)
        return status;
    status = reader->array                 ? next_from_array(reader, row, err)
             : reader->kind == ROW_IS_TEXT ? next_text(reader, row, err)
                                           : next_from_lines(reader, row, err);
    *line = reader->row;
    if (status == GRAFT_OK && !*row && !reader->found_any)
        return error_set(err, GRAFT_E_INPUT, "%s: expected rows of data, found none", reader->path);
    reader->found_any = true;
    return status;
}
