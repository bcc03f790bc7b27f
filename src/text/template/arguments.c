#include "text/template/builtins.h"

#include <assert.h>
#include <string.h>

bool was_given(value v) {
    return v.kind != VALUE_FAILED;
}

/* The next word of the signature; its length, 0 at the end. */
static size_t next_word(const char **at) {
    while (**at == ' ')
        (*at)++;
    return strcspn(*at, " ");
}

static bool bind_named(vm *m, value *out, const char *what, const char *signature, size_t n,
                       const text *name, value given) {
    size_t i = 0;
    for (const char *at = signature; i < n; i++) {
        size_t length = next_word(&at);
        if (length == name->n && memcmp(at, name->bytes, length) == 0)
            break;
        at += length;
    }
    if (i == n)
        return fail(m, "%s takes no argument '%.*s'", what, (int)name->n, name->bytes);
    if (was_given(out[i]))
        return fail(m, "%s: the argument '%.*s' is given twice", what, (int)name->n, name->bytes);
    out[i] = given;
    return true;
}

bool bind(vm *m, value *out, const char *what, const char *signature, size_t needed,
          const arguments *given) {
    size_t n = 0;
    for (const char *at = signature; next_word(&at); at += next_word(&at))
        n++;
    assert(n <= PARAMETERS_MAX);
    for (size_t i = 0; i < n; i++)
        out[i] = failed_value;
    if (given->n > n)
        return fail(m, "%s takes %zu arguments at most, found %zu", what, n, given->n);
    for (size_t i = 0; i < given->n; i++)
        out[i] = given->items[i];
    for (size_t i = 0; i < given->n_named; i++)
        if (!bind_named(m, out, what, signature, n, given->names[i], given->named[i]))
            return false;
    const char *at = signature;
    for (size_t i = 0; i < needed; i++) {
        size_t length = next_word(&at);
        if (!was_given(out[i]))
            return fail(m, "%s needs the argument '%.*s'", what, (int)length, at);
        at += length;
    }
    return true;
}

bool take_int(vm *m, int64_t *out, value v, const char *name) {
    if (!was_given(v) || value_as_int(out, v))
        return true;
    if (v.kind == VALUE_UNDEFINED)
        return fail_undefined(m, v.undefined);
    return fail(m, "%s must be an integer, found a %s", name, value_type(v));
}

void take_bool(bool *out, value v) {
    if (was_given(v))
        *out = value_truth(v);
}

bool take_text(vm *m, const text **out, value v, const char *name) {
    if (!was_given(v))
        return true;
    if (v.kind == VALUE_UNDEFINED)
        return fail_undefined(m, v.undefined);
    if (v.kind != VALUE_TEXT)
        return fail(m, "%s must be a str, found a %s", name, value_type(v));
    *out = v.text;
    return true;
}
