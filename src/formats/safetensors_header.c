#include "formats/safetensors_parts.h"

#include "base/memory.h"
#include "formats/foreign.h"
#include "formats/json_scan.h"
#include "formats/utf8.h"

#include <stdlib.h>
#include <string.h>

/* The header is read token by token, straight into entries, never into a JSON document: what is
 * allocated stays a small multiple of what is there, whatever the header holds. Names are decoded
 * into one block of the header's size. */

enum { LENGTH_BYTES = 8 };

#define DAMAGED "; the file is damaged or incomplete: get it again"

typedef struct header_reader {
    const char *path;
    const char *text; /* the header, n bytes */
    size_t n, at;
    char *names; /* where the next decoded string goes */
    graft_error *err;
} header_reader;

static graft_status fail(const header_reader *r, size_t at, const char *expected) {
    enum { SHOWN = 24 };
    size_t left = r->n - at;
    const char *found = left ? r->text + at : "the end of the header";
    int shown = left ? (int)utf8_valid_length(found, left < SHOWN ? left : SHOWN) : SHOWN;
    return error_set(r->err, GRAFT_E_INPUT, "%s: byte %zu: expected %s, found %.*s" DAMAGED,
                     r->path, LENGTH_BYTES + at, expected, shown, found);
}

static json_token next(header_reader *r) {
    json_token token = json_scan(r->text, r->n, r->at);
    r->at = token.end;
    return token;
}

/* Takes the next token when it is this punctuation. */
static bool take(header_reader *r, const char *punctuation) {
    json_token token = json_scan(r->text, r->n, r->at);
    if (!json_token_is(r->text, token, punctuation))
        return false;
    r->at = token.end;
    return true;
}

static graft_status need(header_reader *r, const char *punctuation) {
    size_t at = r->at;
    return take(r, punctuation) ? GRAFT_OK : fail(r, at, punctuation);
}

/* One escape sequence at text[at]; *end is past it. False when it is none that JSON has. */
static bool decode_escape(const header_reader *r, size_t at, uint32_t *character, size_t *end) {
    static const char letters[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    char letter = r->text[at + 1];
    *end = at + 2;
    const char *known = letter ? strchr(letters, letter) : NULL;
    if (known) {
        *character = (unsigned char)meaning[known - letters];
        return true;
    }
    int32_t unit = letter == 'u' ? json_hex4(r->text, r->n, at + 2) : -1;
    if (unit < 0)
        return false;
    *end = at + 6;
    *character = (uint32_t)unit;
    if (unit < 0xD800 || unit > 0xDFFF)
        return true;
    bool pair =
        unit < 0xDC00 && *end + 2 < r->n && r->text[*end] == '\\' && r->text[*end + 1] == 'u';
    int32_t low = pair ? json_hex4(r->text, r->n, *end + 2) : -1;
    if (low < 0xDC00 || low > 0xDFFF)
        return false;
    *end += 6;
    *character = 0x10000u + ((uint32_t)(unit - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
    return true;
}

/* A string, decoded, NUL after it. NUL inside is refused: no name could be told from another by it.
 */
static graft_status read_string(header_reader *r, const char **out, const char *expected) {
    size_t start = r->at;
    json_token token = next(r);
    if (token.kind != JSON_TOKEN_STRING)
        return fail(r, start, expected);
    *out = r->names;
    for (size_t at = token.begin + 1; at + 1 < token.end;) {
        unsigned char c = (unsigned char)r->text[at];
        uint32_t character = c;
        size_t end = at + 1;
        if (c < 0x20 || (c == '\\' && !decode_escape(r, at, &character, &end)) || character == 0)
            return fail(r, at, "a character that a JSON string may hold, and no NUL");
        if (c == '\\')
            r->names += utf8_encode(r->names, character);
        else
            *r->names++ = (char)c;
        at = end;
    }
    *r->names++ = '\0';
    return GRAFT_OK;
}

static graft_status read_size(header_reader *r, uint64_t *out, const char *expected) {
    size_t start = r->at;
    json_token token = next(r);
    uint64_t value = 0;
    bool valid = token.kind == JSON_TOKEN_NUMBER &&
                 (r->text[token.begin] != '0' || token.end == token.begin + 1);
    for (size_t at = token.begin; valid && at < token.end; at++)
        valid = r->text[at] >= '0' && r->text[at] <= '9' &&
                !__builtin_mul_overflow(value, 10u, &value) &&
                !__builtin_add_overflow(value, (uint64_t)(r->text[at] - '0'), &value);
    if (!valid)
        return fail(r, start, expected);
    *out = value;
    return GRAFT_OK;
}

static graft_status read_shape(header_reader *r, tensor_view *view) {
    static const char expected[] = "a dimension (an integer from 0 to 2^63-1)";
    graft_status status = need(r, "[");
    if (status != GRAFT_OK || take(r, "]"))
        return status;
    do {
        size_t start = r->at;
        uint64_t dimension;
        if ((status = read_size(r, &dimension, expected)) != GRAFT_OK)
            return status;
        if (dimension > INT64_MAX)
            return fail(r, start, expected);
        if (view->rank == TENSOR_RANK_MAX)
            return error_set(r->err, GRAFT_E_UNSUPPORTED,
                             "%s: byte %zu: expected at most %d dimensions, found more", r->path,
                             LENGTH_BYTES + start, (int)TENSOR_RANK_MAX);
        view->shape[view->rank++] = (int64_t)dimension;
    } while (take(r, ","));
    return need(r, "]");
}

static graft_status read_dtype(header_reader *r, tensor_view *view) {
    size_t start = r->at;
    const char *name;
    graft_status status = read_string(r, &name, "the name of an element type");
    if (status != GRAFT_OK || dtype_from_name(&view->type, name))
        return status;
    return error_set(
        r->err, GRAFT_E_UNSUPPORTED,
        "%s: byte %zu: the element type \"%.32s\" is not known here; known are F64, F32, "
        "F16, BF16, F8_E4M3, F8_E5M2, I64 to I8, U64 to U8 and BOOL",
        r->path, LENGTH_BYTES + start, name);
}

static graft_status read_range(header_reader *r, uint64_t range[2]) {
    static const char expected[] = "a byte offset (a non-negative integer)";
    graft_status status = need(r, "[");
    if (status == GRAFT_OK)
        status = read_size(r, &range[0], expected);
    if (status == GRAFT_OK)
        status = need(r, ",");
    if (status == GRAFT_OK)
        status = read_size(r, &range[1], expected);
    return status == GRAFT_OK ? need(r, "]") : status;
}

/* The three members of a tensor's description, in any order, each once. */
static graft_status read_members(header_reader *r, tensor_view *view, uint64_t range[2]) {
    static const char expected[] = "\"dtype\", \"shape\" and \"data_offsets\", each once";
    enum { DTYPE = 1, SHAPE = 2, RANGE = 4 };
    int seen = 0;
    graft_status status = need(r, "{");
    for (int i = 0; i < 3 && status == GRAFT_OK; i++) {
        size_t start = r->at;
        const char *key;
        if ((i > 0 && (status = need(r, ",")) != GRAFT_OK) ||
            (status = read_string(r, &key, expected)) != GRAFT_OK ||
            (status = need(r, ":")) != GRAFT_OK)
            break;
        int member = !strcmp(key, "dtype")          ? DTYPE
                     : !strcmp(key, "shape")        ? SHAPE
                     : !strcmp(key, "data_offsets") ? RANGE
                                                    : 0;
        r->names -= strlen(key) + 1; /* no one needs it any more */
        if (!member || (seen & member))
            return fail(r, start, expected);
        seen |= member;
        status = member == DTYPE   ? read_dtype(r, view)
                 : member == SHAPE ? read_shape(r, view)
                                   : read_range(r, range);
    }
    return status == GRAFT_OK ? need(r, "}") : status;
}

/* shape times element size, without overflow. */
static bool view_bytes(const tensor_view *view, size_t *out) {
    size_t bytes = dtype_bytes(view->type);
    for (int i = 0; i < view->rank; i++)
        if (!size_mul(&bytes, bytes, (size_t)view->shape[i]))
            return false;
    *out = bytes;
    return true;
}

static graft_status read_tensor(header_reader *r, st_entry *entry, size_t data_bytes) {
    char shape[256];
    uint64_t range[2] = {0, 0};
    graft_status status = read_members(r, &entry->view, range);
    if (status != GRAFT_OK)
        return status;
    size_t wanted;
    if (!view_bytes(&entry->view, &wanted))
        return error_set(
            r->err, GRAFT_E_INPUT,
            "%s: tensor \"%s\": shape %s of %s has more bytes than 64 bits count" DAMAGED, r->path,
            entry->name, tensor_shape_text(&entry->view, shape, sizeof shape),
            dtype_name(entry->view.type));
    if (range[1] < range[0] || range[1] > data_bytes)
        return error_set(
            r->err, GRAFT_E_INPUT,
            "%s: tensor \"%s\": data_offsets [%llu, %llu]: expected a range within the "
            "file's %zu bytes of data" DAMAGED,
            r->path, entry->name, (unsigned long long)range[0], (unsigned long long)range[1],
            data_bytes);
    if (range[1] - range[0] != wanted)
        return error_set(r->err, GRAFT_E_INPUT,
                         "%s: tensor \"%s\": expected %zu bytes for shape %s of %s, found "
                         "data_offsets [%llu, %llu]" DAMAGED,
                         r->path, entry->name, wanted,
                         tensor_shape_text(&entry->view, shape, sizeof shape),
                         dtype_name(entry->view.type), (unsigned long long)range[0],
                         (unsigned long long)range[1]);
    entry->begin = (size_t)range[0];
    return GRAFT_OK;
}

static int compare_pairs(const void *a, const void *b) {
    return strcmp(((const st_pair *)a)->key, ((const st_pair *)b)->key);
}

static graft_status read_metadata(header_reader *r, st_file *file) {
    json_token token = json_scan(r->text, r->n, r->at);
    if (json_token_is(r->text, token, "null")) {
        r->at = token.end;
        return GRAFT_OK;
    }
    graft_status status = need(r, "{");
    if (status != GRAFT_OK || take(r, "}"))
        return status;
    do {
        st_pair pair;
        if ((status = read_string(r, &pair.key, "a key of __metadata__")) != GRAFT_OK ||
            (status = need(r, ":")) != GRAFT_OK ||
            (status = read_string(r, &pair.value, "a string in __metadata__")) != GRAFT_OK)
            return status;
        if (!mem_reserve(&file->pairs, &file->pairs_capacity, file->n_pairs + 1, sizeof pair))
            return error_memory(r->err, file->n_pairs * sizeof pair, r->path);
        file->pairs[file->n_pairs++] = pair;
    } while (take(r, ","));
    qsort(file->pairs, file->n_pairs, sizeof *file->pairs, compare_pairs);
    for (size_t i = 1; i < file->n_pairs; i++)
        if (!strcmp(file->pairs[i - 1].key, file->pairs[i].key))
            return error_set(r->err, GRAFT_E_INPUT,
                             "%s: __metadata__: the key \"%s\" is there twice" DAMAGED, r->path,
                             file->pairs[i].key);
    return need(r, "}");
}

/* Control characters in a name can only be there to trick a terminal or a log. */
static graft_status check_name(const header_reader *r, const char *name, size_t at) {
    size_t length = strlen(name);
    if (length > SAFETENSORS_NAME_MAX)
        return error_set(
            r->err, GRAFT_E_INPUT,
            "%s: byte %zu: expected a tensor name of at most %d bytes, found %zu" DAMAGED, r->path,
            LENGTH_BYTES + at, (int)SAFETENSORS_NAME_MAX, length);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7F)
            return error_set(
                r->err, GRAFT_E_INPUT,
                "%s: byte %zu: expected a tensor name without control characters, found "
                "0x%02x in it" DAMAGED,
                r->path, LENGTH_BYTES + at, (unsigned)(unsigned char)name[i]);
    return GRAFT_OK;
}

static graft_status read_members_of_header(header_reader *r, safetensors *st, uint32_t file,
                                           size_t data_bytes) {
    bool metadata_seen = false;
    graft_status status = need(r, "{");
    if (status != GRAFT_OK || take(r, "}"))
        return status;
    do {
        size_t start = r->at;
        st_entry entry = {.file = file};
        if ((status = read_string(r, &entry.name, "the name of a tensor")) != GRAFT_OK ||
            (status = need(r, ":")) != GRAFT_OK)
            return status;
        if (!strcmp(entry.name, "__metadata__")) {
            if (metadata_seen)
                return fail(r, start, "__metadata__ only once");
            metadata_seen = true;
            status = read_metadata(r, &st->files[file]);
        } else if ((status = check_name(r, entry.name, start)) == GRAFT_OK &&
                   (status = read_tensor(r, &entry, data_bytes)) == GRAFT_OK) {
            if (!mem_reserve(&st->entries, &st->capacity, st->n + 1, sizeof entry))
                return error_memory(r->err, st->n * sizeof entry, r->path);
            st->entries[st->n++] = entry;
        }
    } while (status == GRAFT_OK && take(r, ","));
    return status == GRAFT_OK ? need(r, "}") : status;
}

static int compare_places(const void *a, const void *b) {
    const st_entry *left = a, *right = b;
    if (left->begin != right->begin)
        return left->begin < right->begin ? -1 : 1;
    /* an empty tensor lies before the one that begins at the same byte */
    size_t left_bytes = tensor_bytes(&left->view), right_bytes = tensor_bytes(&right->view);
    return (left_bytes > right_bytes) - (left_bytes < right_bytes);
}

/* The tensors must cover the data exactly: bytes used twice or not at all hide something. */
static graft_status check_cover(const st_file *file, st_entry *entries, size_t n, size_t data_bytes,
                                graft_error *err) {
    if (n)
        qsort(entries, n, sizeof *entries, compare_places);
    size_t covered = 0;
    for (size_t i = 0; i < n; i++) {
        if (entries[i].begin != covered)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: tensor \"%s\": expected its data at offset %zu, found it at %zu: "
                             "data is %s" DAMAGED,
                             file->path, entries[i].name, covered, entries[i].begin,
                             entries[i].begin < covered ? "used twice" : "left out before it");
        covered += tensor_bytes(&entries[i].view);
    }
    if (covered != data_bytes)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected %zu bytes of data for its %zu tensors, found %zu" DAMAGED,
                         file->path, covered, n, data_bytes);
    return GRAFT_OK;
}

/* Points the views into the map. Old writers did not pad the header: tensors that then lie
 * misaligned for their type are copied, once, since nothing above could read them. */
static graft_status place_views(st_file *file, st_entry *entries, size_t n, size_t data_first,
                                graft_error *err) {
    enum { COPY_ALIGNMENT = 8 };
    const unsigned char *data = file->map.data + data_first;
    size_t copied = 0;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = tensor_bytes(&entries[i].view);
        entries[i].view.data = bytes ? data + entries[i].begin : NULL;
        if ((data_first + entries[i].begin) % dtype_bytes(entries[i].view.type))
            copied += (bytes + COPY_ALIGNMENT - 1) / COPY_ALIGNMENT * COPY_ALIGNMENT;
    }
    if (copied == 0)
        return GRAFT_OK;
    unsigned char *at = file->aligned = malloc(copied);
    if (!at)
        return error_memory(err, copied, file->path);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = tensor_bytes(&entries[i].view);
        if (bytes && (data_first + entries[i].begin) % dtype_bytes(entries[i].view.type)) {
            memcpy(at, entries[i].view.data, bytes);
            entries[i].view.data = at;
            at += (bytes + COPY_ALIGNMENT - 1) / COPY_ALIGNMENT * COPY_ALIGNMENT;
        }
    }
    return GRAFT_OK;
}

/* The header's length, checked against the file. A file that is something else altogether is named
 * as that. */
static graft_status read_length(const st_file *file, size_t *out, graft_error *err) {
    const file_map *map = &file->map;
    uint64_t length = 0;
    for (size_t i = LENGTH_BYTES; i-- > 0 && map->size >= LENGTH_BYTES;)
        length = length << 8 | map->data[i];
    bool fits = map->size >= LENGTH_BYTES && length <= map->size - LENGTH_BYTES &&
                length <= SAFETENSORS_HEADER_MAX;
    const char *foreign = fits && length && strchr(" \n\r\t{", map->data[LENGTH_BYTES])
                              ? NULL
                              : foreign_format(map->data, map->size);
    if (foreign)
        return error_set(err, GRAFT_E_INPUT, "%s: expected a safetensors file, found %s",
                         file->path, foreign);
    if (map->size < LENGTH_BYTES)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: expected a safetensors file, which begins with %d bytes of length, found "
            "%zu bytes" DAMAGED,
            file->path, (int)LENGTH_BYTES, map->size);
    if (!fits)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: byte 0: expected a header of at most %zu bytes (it may have %d), found a "
            "length of %llu" DAMAGED,
            file->path, map->size - LENGTH_BYTES, (int)SAFETENSORS_HEADER_MAX,
            (unsigned long long)length);
    *out = (size_t)length;
    return GRAFT_OK;
}

graft_status safetensors_read_header(safetensors *st, uint32_t index, graft_error *err) {
    st_file *file = &st->files[index];
    size_t length = 0, first = st->n;
    graft_status status = read_length(file, &length, err);
    if (status != GRAFT_OK)
        return status;
    header_reader r = {.path = file->path,
                       .text = (const char *)file->map.data + LENGTH_BYTES,
                       .n = length,
                       .err = err};
    size_t valid = utf8_valid_length(r.text, r.n);
    if (valid < r.n)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: byte %zu: expected UTF-8 text in the header, found byte 0x%02x" DAMAGED,
            file->path, LENGTH_BYTES + valid, (unsigned)(unsigned char)r.text[valid]);
    r.names = file->names =
        malloc(length + 1); /* a decoded string is never longer than its token */
    if (!file->names)
        return error_memory(err, length, file->path);
    size_t data_first = LENGTH_BYTES + length, data_bytes = file->map.size - data_first;
    status = read_members_of_header(&r, st, index, data_bytes);
    if (status != GRAFT_OK)
        return status;
    if (next(&r).kind != JSON_TOKEN_END)
        return fail(&r, r.at - 1, "only blanks after the header's closing brace");
    if (st->n == first) /* an adapter with nothing in it, say */
        return check_cover(file, NULL, 0, data_bytes, err);
    st_entry *entries = st->entries + first;
    status = check_cover(file, entries, st->n - first, data_bytes, err);
    if (status == GRAFT_OK)
        status = place_views(file, entries, st->n - first, data_first, err);
    return status;
}
