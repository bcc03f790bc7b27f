/* Every tensor of a file that opens can be read to its last byte. */
#include "tests/support/support.h"

#include "formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    safetensors *st = NULL;
    graft_error err;
    if (safetensors_open(&st, test_file("fuzz.safetensors", data, size), &err) != GRAFT_OK)
        return 0;
    size_t total = 0;
    for (size_t i = 0; i < safetensors_count(st); i++) {
        tensor_view found, view = safetensors_at(st, i);
        const unsigned char *bytes = view.data;
        size_t n = tensor_bytes(&view);
        unsigned sum = 0;
        for (size_t b = 0; b < n; b++)
            sum += bytes[b];
        total += n + (sum == UINT32_MAX);
        if ((uintptr_t)bytes % dtype_bytes(view.type) ||
            !safetensors_find(&found, st, safetensors_name(st, i)) || found.data != view.data)
            abort();
    }
    if (total > size)
        abort();
    safetensors_metadata(st, "format");
    safetensors_close(&st);
    return 0;
}
