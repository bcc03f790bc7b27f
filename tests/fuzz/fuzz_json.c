/* What is read can be written in every style, and what is written reads back as the same value. */
#include "tests/fuzz/fuzz.h"

#include "formats/json.h"

#include <stdlib.h>
#include <string.h>

static void check_style(const json_t *value, json_style style, bool sort_keys) {
    strbuf text = {0};
    graft_error err;
    json_t *again = NULL;
    json_write(&text, value, style, sort_keys);
    graft_status status = json_parse(&again, strbuf_text(&text), text.length, "again", &err);
    /* only the objects that stand for NaN can make a text nest deeper than it did */
    if (status == GRAFT_OK ? !json_equal(value, again) : !strstr(err.message, "nested"))
        abort();
    json_decref(again);
    strbuf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *value = NULL;
    graft_error err;
    if (json_parse(&value, (const char *)data, size, "fuzz", &err) != GRAFT_OK)
        return 0;
    check_style(value, JSON_TIGHT, false);
    check_style(value, JSON_PYTHON, true);
    check_style(value, JSON_INDENT_2, false);
    if (json_is_object(value)) {
        int64_t integer;
        double real;
        bool flag;
        const char *text;
        json_get_i64(&integer, value, "a", 0, 10, 0, "fuzz", &err);
        json_get_double(&real, value, "a", 0, "fuzz", &err);
        json_get_bool(&flag, value, "a", false, "fuzz", &err);
        json_get_string(&text, value, "a", "", "fuzz", &err);
    }
    json_decref(value);
    return 0;
}
