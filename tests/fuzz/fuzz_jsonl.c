/* The first byte says how the file is named; the others are the file. */
#include "tests/support/support.h"

#include "formats/jsonl.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"fuzz.jsonl", "fuzz.json", "fuzz.txt", "fuzz.jsonl.gz",
                                        "fuzz.jsonl.zst"};
    if (size == 0)
        return 0;
    const char *name = names[data[0] % (sizeof names / sizeof names[0])];
    row_reader *reader = NULL;
    graft_error err;
    graft_status status = row_reader_open(&reader, test_file(name, data + 1, size - 1), &err);
    int64_t last = 0;
    for (json_t *row = NULL; status == GRAFT_OK;) {
        int64_t line;
        status = row_reader_next(reader, &row, &line, &err);
        if (!row)
            break;
        if (status != GRAFT_OK || !json_is_object(row) || line <= last)
            abort();
        last = line;
        json_decref(row);
    }
    row_reader_close(&reader);
    return 0;
}
