#include "train/data/columns.h"

#include "train/data/rows.h"

#include <string.h>

static graft_status parse_one(column_rename *out, const char *text, graft_error *err) {
    const char *equals = strchr(text, '=');
    size_t to = equals ? (size_t)(equals - text) : 0, from = equals ? strlen(equals + 1) : 0;
    *out = (column_rename){0};
    if (!to || !from || to >= COLUMN_BYTES_MAX || from >= COLUMN_BYTES_MAX)
        return error_set(err, GRAFT_E_USAGE,
                         "--columns: expected NAME=COLUMN (prompt=question), found \"%s\"", text);
    memcpy(out->to, text, to);
    memcpy(out->from, equals + 1, from);
    if (data_row_key_is_known(out->to))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_USAGE,
                     "--columns: no row has a \"%s\"; expected a name of docs/data.md before the "
                     "\"=\" (prompt, completion, messages, text, ...), and your column's after it",
                     out->to);
}

graft_status column_renames_parse(column_renames *out, const char *const *texts, size_t n,
                                  graft_error *err) {
    *out = (column_renames){0};
    if (n > COLUMNS_MAX)
        return error_set(err, GRAFT_E_USAGE, "--columns: expected at most %d names, found %zu",
                         (int)COLUMNS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        graft_status status = parse_one(&out->items[i], texts[i], err);
        if (status != GRAFT_OK)
            return status;
        for (size_t k = 0; k < i; k++)
            if (!strcmp(out->items[k].to, out->items[i].to) ||
                !strcmp(out->items[k].from, out->items[i].from))
                return error_set(err, GRAFT_E_USAGE,
                                 "--columns: \"%s\" names a column again; expected each once",
                                 texts[i]);
    }
    out->n = n;
    return GRAFT_OK;
}

graft_status column_renames_apply(column_renames *renames, json_t *row, graft_error *err) {
    json_t *values[COLUMNS_MAX] = {NULL};
    bool ok = true;
    for (size_t i = 0; i < renames->n; i++) {
        values[i] = json_incref(json_object_get(row, renames->items[i].from));
        renames->items[i].is_used = renames->items[i].is_used || values[i];
    }
    for (size_t i = 0; i < renames->n; i++)
        if (values[i])
            json_object_del(row, renames->items[i].from);
    for (size_t i = 0; i < renames->n; i++)
        if (values[i])
            ok = !json_object_set_new(row, renames->items[i].to, values[i]) && ok;
    return ok ? GRAFT_OK : error_memory(err, 0, "a row");
}

graft_status column_renames_check_used(const column_renames *renames, graft_error *err) {
    for (size_t i = 0; i < renames->n; i++)
        if (!renames->items[i].is_used)
            return error_set(err, GRAFT_E_USAGE,
                             "--columns: no row has a column \"%s\" (to be read as %s); look at "
                             "the names in your file",
                             renames->items[i].from, renames->items[i].to);
    return GRAFT_OK;
}
