/* Fuzz with ASAN_OPTIONS=detect_leaks=0: libfyaml 0.7.12 leaks a buffer when a long quoted scalar
 * turns out wrong. */
#include "tests/fuzz/fuzz.h"

#include "formats/yaml.h"

#include <stdlib.h>
#include <string.h>

static graft_status take(void *context, const char *key, int index, const char *value, int line,
                         graft_error *err) {
    (void)err;
    size_t *total = context;
    *total += strlen(key) + (value ? strlen(value) : 0);
    if (index < -1 || line < 1)
        abort();
    return GRAFT_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t total = 0;
    graft_error err;
    yaml_read_text((const char *)data, size, "fuzz", take, &total, &err);
    return 0;
}
