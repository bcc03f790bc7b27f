/* Rows of every kind to tokens. The first byte says how they are read; the others are a .jsonl. */
#include "tests/support/support.h"

#include "tests/fuzz/fuzz.h"
#include "train/data/dataset.h"
#include "train/data/templates.h"

#include <stdlib.h>

static tokenizer *bytes;
static data_templates templates;

/* What holds for whatever was accepted. */
static void check_rows(const dataset *d, int32_t max_length) {
    for (int64_t i = 0; i < dataset_rows(d); i++) {
        data_row_view row = dataset_row(d, i);
        int32_t supervised = 0;
        for (int32_t t = 0; t < row.n; t++) {
            if (row.ids[t] < 0 || row.targets[t] < NO_TARGET)
                abort();
            supervised += row.targets[t] != NO_TARGET;
        }
        if (row.n < 1 || row.n > max_length || supervised != row.supervised ||
            row.targets[row.n - 1] != NO_TARGET || !(row.weight >= 0) ||
            !dataset_path(d, row.source.file))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const columns[] = {"prompt=a", "completion=b"};
    graft_error err;
    if (size == 0)
        return 0;
    if (!bytes &&
        (tokenizer_load(&bytes, test_fixture("data/bytes"), NULL, &err) != GRAFT_OK ||
         data_templates_load(&templates, test_fixture("data/bytes"), NULL, &err) != GRAFT_OK))
        abort();
    unsigned how = data[0];
    const char *path = test_file("fuzz.jsonl", data + 1, size - 1);
    dataset_options options = {.paths = &path,
                               .n_paths = 1,
                               .tokenizer = bytes,
                               .chat = how & 1 ? templates.chat : NULL,
                               .train_on = how & 2 ? TRAIN_ON_ALL : TRAIN_ON_COMPLETIONS,
                               .preferences = how & 4   ? PREFERENCE_BOTH
                                              : how & 8 ? PREFERENCE_CHOSEN
                                                        : PREFERENCE_REFUSED,
                               .text_windows = how & 16,
                               .stride = how & 16 ? 3 : 0,
                               .text_ends = how & 32,
                               .dedup = how & 64 ? DEDUP_NEAR : DEDUP_NONE,
                               .columns = columns,
                               .n_columns = how & 128 ? 2 : 0,
                               .max_length = 16};
    dataset *d = NULL, *held_out = NULL;
    if (dataset_open(&d, &options, &err) != GRAFT_OK)
        return 0;
    check_rows(d, options.max_length);
    int64_t rows = dataset_rows(d);
    if (dataset_split(&held_out, d, 0.3, 1, &err) == GRAFT_OK) {
        check_rows(d, options.max_length);
        check_rows(held_out, options.max_length);
        if (dataset_rows(d) + dataset_rows(held_out) != rows)
            abort();
    }
    dataset_close(&held_out);
    dataset_close(&d);
    return 0;
}
