#include "formats/byte_source.h"

#include "base/file_map.h"
#include "base/memory.h"
#include "formats/jsonl.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { PACKED_BYTES = 1 << 17, RATIO_CHECKED_FROM = 64 << 20 };

typedef enum packing { PACKED_NOT, PACKED_GZIP, PACKED_ZSTD } packing;

struct byte_source {
    char *path;
    int fd;
    packing kind;
    z_stream gzip;
    bool gzip_open;
    ZSTD_DStream *zstd;
    bool between; /* no packed stream is half read: the file may end here */
    unsigned char *packed;
    size_t packed_begin, packed_end; /* what of it is not unpacked yet */
    uint64_t bytes_in, bytes_out;
};

static bool ends_with(const char *text, size_t length, const char *ending) {
    size_t n = strlen(ending);
    return length > n && !strncasecmp(text + length - n, ending, n);
}

static packing packing_of(const char *path) {
    size_t length = strlen(path);
    return ends_with(path, length, ".gz")    ? PACKED_GZIP
           : ends_with(path, length, ".zst") ? PACKED_ZSTD
                                             : PACKED_NOT;
}

size_t byte_source_stem(const char *path) {
    static const size_t ending_bytes[] = {[PACKED_NOT] = 0, [PACKED_GZIP] = 3, [PACKED_ZSTD] = 4};
    return strlen(path) - ending_bytes[packing_of(path)];
}

static graft_status open_unpacker(byte_source *source, graft_error *err) {
    enum { GZIP_WINDOW_BITS = 15 + 16 }; /* the largest window; a gzip header is expected */
    source->packed = malloc(PACKED_BYTES);
    if (!source->packed)
        return error_memory(err, PACKED_BYTES, source->path);
    if (source->kind == PACKED_GZIP)
        source->gzip_open = inflateInit2(&source->gzip, GZIP_WINDOW_BITS) == Z_OK;
    else
        source->zstd = ZSTD_createDStream();
    return source->gzip_open || source->zstd ? GRAFT_OK
                                             : error_memory(err, PACKED_BYTES, source->path);
}

graft_status byte_source_open(byte_source **out, const char *path, graft_error *err) {
    *out = NULL;
    byte_source *source = mem_array(1, sizeof *source);
    if (!source)
        return error_memory(err, sizeof *source, path);
    source->fd = -1;
    source->kind = packing_of(path);
    source->between = true;
    source->path = mem_text(path, strlen(path));
    graft_status status =
        source->path ? file_open_read(&source->fd, path, err) : error_memory(err, 1, path);
    if (status == GRAFT_OK && source->kind != PACKED_NOT)
        status = open_unpacker(source, err);
    if (status != GRAFT_OK)
        byte_source_close(&source);
    *out = source;
    return status;
}

void byte_source_close(byte_source **owner) {
    byte_source *source = *owner;
    if (!source)
        return;
    if (source->gzip_open)
        inflateEnd(&source->gzip);
    ZSTD_freeDStream(source->zstd);
    if (source->fd >= 0)
        close(source->fd);
    free(source->packed);
    free(source->path);
    free(source);
    *owner = NULL;
}

static graft_status damaged(const byte_source *source, const char *why, graft_error *err) {
    return error_set(err, GRAFT_E_INPUT,
                     "%s: near packed byte %llu: the %s data is damaged (%s); get the file again",
                     source->path, (unsigned long long)source->bytes_in,
                     source->kind == PACKED_GZIP ? "gzip" : "zstd", why);
}

/* One step of gzip: takes from packed, gives to out. A file may be several gzip members in a row.
 */
static graft_status unpack_gzip(byte_source *source, size_t *got, void *out, size_t n,
                                graft_error *err) {
    z_stream *z = &source->gzip;
    if (source->between && inflateReset(z) != Z_OK)
        return damaged(source, "it cannot be read", err);
    z->next_in = source->packed + source->packed_begin;
    z->avail_in = (uInt)(source->packed_end - source->packed_begin);
    z->next_out = out;
    z->avail_out = (uInt)n;
    int result = inflate(z, Z_NO_FLUSH);
    source->packed_begin = source->packed_end - z->avail_in;
    *got = n - z->avail_out;
    if (result == Z_MEM_ERROR)
        return error_memory(err, PACKED_BYTES, source->path);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        return damaged(source, z->msg ? z->msg : "it cannot be read", err);
    source->between = result == Z_STREAM_END;
    return GRAFT_OK;
}

static graft_status unpack_zstd(byte_source *source, size_t *got, void *out, size_t n,
                                graft_error *err) {
    ZSTD_inBuffer in = {source->packed, source->packed_end, source->packed_begin};
    ZSTD_outBuffer to = {out, n, 0};
    size_t result = ZSTD_decompressStream(source->zstd, &to, &in);
    source->packed_begin = in.pos;
    *got = to.pos;
    if (ZSTD_isError(result))
        return damaged(source, ZSTD_getErrorName(result), err);
    source->between = result == 0;
    return GRAFT_OK;
}

static graft_status refill(byte_source *source, bool *at_end, graft_error *err) {
    size_t got = 0;
    graft_status status =
        file_read_some(&got, source->fd, source->packed, PACKED_BYTES, source->path, err);
    source->packed_begin = 0;
    source->packed_end = got;
    source->bytes_in += got;
    *at_end = got == 0;
    return status;
}

static graft_status read_packed(byte_source *source, size_t *got, void *out, size_t n,
                                graft_error *err) {
    graft_status status = GRAFT_OK;
    *got = 0;
    for (bool at_end = false; status == GRAFT_OK && *got == 0;) {
        /* An unpacker may hold output back even when its input is used up: only `between` ends it.
         */
        if (source->packed_begin == source->packed_end) {
            status = refill(source, &at_end, err);
            if (status != GRAFT_OK || (at_end && source->between))
                return status;
        }
        status = source->kind == PACKED_GZIP ? unpack_gzip(source, got, out, n, err)
                                             : unpack_zstd(source, got, out, n, err);
        bool stuck = status == GRAFT_OK && *got == 0 && !source->between;
        if (at_end && (stuck || status == GRAFT_E_INPUT))
            return damaged(source, "it is cut off", err);
    }
    return status;
}

graft_status byte_source_read(byte_source *source, size_t *got, void *out, size_t n,
                              graft_error *err) {
    enum { STEP_MAX = 1 << 30 }; /* zlib counts in 32 bits */
    if (n > STEP_MAX)
        n = STEP_MAX;
    if (source->kind == PACKED_NOT)
        return file_read_some(got, source->fd, out, n, source->path, err);
    graft_status status = read_packed(source, got, out, n, err);
    if (status != GRAFT_OK)
        return status;
    source->bytes_out += *got;
    if (source->bytes_out > RATIO_CHECKED_FROM &&
        source->bytes_out / DECOMPRESSION_RATIO_MAX > source->bytes_in)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: expected at most %d times its packed bytes, found more (a decompression "
            "bomb?); unpack it by hand if you trust it",
            source->path, (int)DECOMPRESSION_RATIO_MAX);
    return GRAFT_OK;
}
