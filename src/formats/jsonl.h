/* Rows of data files: .jsonl (also .jsonl.gz, .jsonl.zst, .json.gz ...), .json (an array of
 * objects, or one object a line), .txt (the whole file is one row {"text": ...}). Told by the name;
 * an unknown ending is refused by name (.parquet, .arrow, .csv with how to convert them). A file
 * without rows is refused. */
#ifndef GRAFT_FORMATS_JSONL_H
#define GRAFT_FORMATS_JSONL_H

#include "formats/json.h"

/* Limits, named in messages and in docs/bad-input.md. */
enum {
    ROW_BYTES_MAX = 64 << 20,      /* one line of .jsonl */
    DECOMPRESSION_RATIO_MAX = 1000 /* checked past the first 64 MiB of output */
};
#define WHOLE_FILE_BYTES_MAX ((size_t)2 << 30) /* a .json array or a .txt, which are read whole */

/* What the end of a name promises. */
typedef enum row_path_kind {
    ROW_PATH_READABLE,
    ROW_PATH_CONVERTIBLE,
    ROW_PATH_OTHER
} row_path_kind;
row_path_kind row_path_kind_of(const char *path);

typedef struct row_reader row_reader;

graft_status row_reader_open(row_reader **, const char *path, graft_error *);
/* The next row as a JSON object (caller json_decref()s) and its line number (1-based; for .json the
 * element's number). *row is NULL at the end. Blank lines, CRLF and a BOM are accepted; a row that
 * is no object, invalid UTF-8, a truncated last line, duplicate keys are refused with path and
 * line. */
graft_status row_reader_next(row_reader *, json_t **row, int64_t *line, graft_error *);
void row_reader_close(row_reader **);

/* xxh3 64-bit hash of a file's bytes: is it still the same data? */
graft_status file_hash(uint64_t *out, const char *path, graft_error *);

#endif
