/* JSON: jansson's values, with a reader and a writer of our own. The reader takes what real model
 * directories hold and jansson's refuses (a BOM; integers over 64 bits, which saturate to the
 * nearest 64-bit integer; NaN, Infinity and -Infinity, which become the object {"__float__": "NaN"}
 * that newer Transformers write themselves: harmless where it is not used, refused where a number
 * is needed; lone surrogates, and NUL in keys, which become U+FFFD), refuses duplicate keys, bounds
 * the depth and the number of values, and tells bad JSON from memory that ran out, which jansson's
 * does not. The writer writes numbers in their shortest form. */
#ifndef GRAFT_FORMATS_JSON_H
#define GRAFT_FORMATS_JSON_H

#include "base/strbuf.h"

#include <jansson.h>

enum {
    JSON_DEPTH_MAX = 512,
    JSON_VALUES_MAX = 1 << 24 /* a value takes up to 300 bytes */
};

/* Parses n bytes. `origin` names the text in messages (a path, "data.jsonl:17"). The caller
 * json_decref()s. Object keys keep their order. */
graft_status json_parse(json_t **out, const char *text, size_t n, const char *origin,
                        graft_error *);
/* The whole file; a missing file, a folder, a Git-LFS pointer, UTF-16 are named. `limit` bytes at
 * most. */
graft_status json_read_file(json_t **out, const char *path, size_t limit, graft_error *);

typedef enum json_style {
    JSON_TIGHT,   /* {"a":1,"b":[2]} */
    JSON_PYTHON,  /* json.dumps: ", " and ": " */
    JSON_INDENT_2 /* json.dumps(indent=2); no newline at the end */
} json_style;

/* Appends the value's text. Non-ASCII stays as it is. Floats as Python's repr writes them (shortest
 * digits that read back, "1.0", "1e-05"). sort_keys orders objects by byte. */
void json_write(strbuf *, const json_t *, json_style, bool sort_keys);
/* The shortest decimal text that reads back as value, in Python's repr form; NaN, Infinity,
 * -Infinity for those. */
void json_write_double(strbuf *, double value);
/* A JSON string with quotes and escapes (n bytes of UTF-8; ensure_ascii false). */
void json_write_string(strbuf *, const char *text, size_t n);

/* Typed members of an object, with messages that name origin, key, what was expected and what was
 * found. A missing or null member gives `fallback`; the `need` forms refuse it. Integers accept
 * 4096.0 but neither "4096" nor 32.5. */
graft_status json_get_i64(int64_t *out, const json_t *object, const char *key, int64_t low,
                          int64_t high, int64_t fallback, const char *origin, graft_error *);
graft_status json_need_i64(int64_t *out, const json_t *object, const char *key, int64_t low,
                           int64_t high, const char *origin, graft_error *);
graft_status json_get_double(double *out, const json_t *object, const char *key, double fallback,
                             const char *origin, graft_error *);
graft_status json_need_double(double *out, const json_t *object, const char *key,
                              const char *origin, graft_error *);
graft_status json_get_bool(bool *out, const json_t *object, const char *key, bool fallback,
                           const char *origin, graft_error *);
/* Borrowed from the object. */
graft_status json_get_string(const char **out, const json_t *object, const char *key,
                             const char *fallback, const char *origin, graft_error *);
const char *json_type_name(const json_t *); /* "an object", "a string", ... */

#endif
