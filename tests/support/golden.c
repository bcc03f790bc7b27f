#include "tests/support/golden.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void copy(const char *from_folder, const char *from, const char *to_folder, const char *to) {
    char source[4200], target[4200], *bytes = NULL;
    size_t n = 0;
    snprintf(source, sizeof source, "%s/%s", from_folder, from);
    snprintf(target, sizeof target, "%s/%s", to_folder, to);
    assert_ok(file_read_all(&bytes, &n, source, 1 << 30, &test_error));
    assert_ok(file_write_atomic(target, bytes, n, &test_error));
    free(bytes);
}

const char *golden_adapter(const char *name) {
    static char folder[4100];
    char relative[256], unsaved[4200];
    snprintf(relative, sizeof relative, "golden/%s", name);
    const char *golden = test_data(relative);
    snprintf(unsaved, sizeof unsaved, "%s/start_unsaved.safetensors", golden);
    if (!path_exists(unsaved))
        return golden;
    snprintf(folder, sizeof folder, "%s/start_%s", test_folder(), name);
    assert_ok(folder_create(folder, &test_error));
    copy(golden, "adapter_config.json", folder, "adapter_config.json");
    copy(golden, "adapter_model.safetensors", folder, "adapter_model.safetensors");
    copy(golden, "start_unsaved.safetensors", folder, "prompt_encoder.safetensors");
    return folder;
}
