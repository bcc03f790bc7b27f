#include "text/template/attribute.h"

#include "text/template/builtins.h"
#include "text/template/transform.h"

#include <string.h>

/* One step of a path: a number where it is made of digits. */
static value step_of(const text *part) {
    int64_t index;
    bool is_number = part->n > 0;
    for (size_t i = 0; i < part->n; i++)
        is_number &= part->bytes[i] >= '0' && part->bytes[i] <= '9';
    if (is_number && string_to_int(&index, part, 10))
        return value_int(index);
    return value_text(part);
}

value attribute_path_or(vm *m, value of, value path, value fallback) {
    static const text dot = {.bytes = ".", .n = 1};
    if (path.kind != VALUE_TEXT)
        return path.kind == VALUE_NONE ? of : get_item(m, of, path);
    const list *parts = string_split(m, path.text, &dot, -1, false);
    if (!parts)
        return failed_value;
    for (size_t i = 0; i < parts->n && !is_failed(of); i++) {
        of = get_item(m, of, step_of(parts->items[i].text));
        if (of.kind == VALUE_UNDEFINED && was_given(fallback) && fallback.kind != VALUE_NONE)
            of = fallback;
    }
    return of;
}

value attribute_path(vm *m, value of, value path) {
    return attribute_path_or(m, of, path, failed_value);
}
