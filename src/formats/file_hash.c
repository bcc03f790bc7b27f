#include "formats/jsonl.h"

#include "base/file_map.h"

#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

graft_status file_hash(uint64_t *out, const char *path, graft_error *err) {
    enum { CHUNK_BYTES = 1 << 18 };
    int fd = -1;
    graft_status status = file_open_read(&fd, path, err);
    if (status != GRAFT_OK)
        return status;
    XXH3_state_t *state = XXH3_createState();
    unsigned char *chunk = malloc(CHUNK_BYTES);
    if (!state || !chunk || XXH3_64bits_reset(state) != XXH_OK)
        status = error_memory(err, CHUNK_BYTES, path);
    for (size_t got = 1; status == GRAFT_OK && got > 0;) {
        status = file_read_some(&got, fd, chunk, CHUNK_BYTES, path, err);
        if (status == GRAFT_OK)
            XXH3_64bits_update(state, chunk, got);
    }
    if (status == GRAFT_OK)
        *out = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    free(chunk);
    close(fd);
    return status;
}
