/* + - * / // % ** and comparisons, with Python's rules. Integers have 64 bits: what does not fit is
 * refused. */
#include "text/template/evaluator.h"

#include <math.h>
#include <string.h>

static const char *const symbols[] = {
    [OPERATOR_ADD] = "+",
    [OPERATOR_SUBTRACT] = "-",
    [OPERATOR_MULTIPLY] = "*",
    [OPERATOR_DIVIDE] = "/",
    [OPERATOR_FLOOR_DIVIDE] = "//",
    [OPERATOR_MODULO] = "%",
    [OPERATOR_POWER] = "**",
    [OPERATOR_EQUAL] = "==",
    [OPERATOR_NOT_EQUAL] = "!=",
    [OPERATOR_LESS] = "<",
    [OPERATOR_LESS_EQUAL] = "<=",
    [OPERATOR_GREATER] = ">",
    [OPERATOR_GREATER_EQUAL] = ">=",
    [OPERATOR_IN] = "in",
    [OPERATOR_NOT_IN] = "not in",
};

static value refuse_types(vm *m, operator_kind kind, value a, value b) {
    return refuse(m, "'%s' is not possible between a %s and a %s", symbols[kind], value_type(a),
                  value_type(b));
}

static value too_large(vm *m) {
    return refuse(m, "the result is an integer that does not fit 64 bits");
}

static value power_integers(vm *m, int64_t base, int64_t exponent) {
    int64_t result = 1;
    if (exponent < 0) {
        if (base == 0) {
            return refuse(m, "zero cannot be raised to a negative power");
        }
        return value_float(pow((double)base, (double)exponent));
    }
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            return too_large(m);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base))
            return too_large(m);
    }
    return value_int(result);
}

static int64_t floor_divide(int64_t a, int64_t b) {
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static value operate_integers(vm *m, operator_kind kind, int64_t a, int64_t b) {
    int64_t result;
    switch (kind) {
    case OPERATOR_ADD:
        return __builtin_add_overflow(a, b, &result) ? too_large(m) : value_int(result);
    case OPERATOR_SUBTRACT:
        return __builtin_sub_overflow(a, b, &result) ? too_large(m) : value_int(result);
    case OPERATOR_MULTIPLY:
        return __builtin_mul_overflow(a, b, &result) ? too_large(m) : value_int(result);
    case OPERATOR_POWER:
        return power_integers(m, a, b);
    default:
        break;
    }
    if (b == 0) {
        return refuse(m, "division by zero");
    }
    if (kind == OPERATOR_DIVIDE)
        return value_float((double)((long double)a / (long double)b));
    if (b == -1) { /* INT64_MIN / -1 is the one quotient that overflows */
        if (kind == OPERATOR_MODULO)
            return value_int(0);
        return __builtin_sub_overflow((int64_t)0, a, &result) ? too_large(m) : value_int(result);
    }
    int64_t quotient = floor_divide(a, b);
    return value_int(kind == OPERATOR_FLOOR_DIVIDE ? quotient : a - quotient * b);
}

/* The remainder has the divisor's sign. */
static double modulo(double a, double b) {
    double rest = fmod(a, b);
    if (rest == 0)
        return copysign(0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}

static value operate_floats(vm *m, operator_kind kind, double a, double b) {
    switch (kind) {
    case OPERATOR_ADD:
        return value_float(a + b);
    case OPERATOR_SUBTRACT:
        return value_float(a - b);
    case OPERATOR_MULTIPLY:
        return value_float(a * b);
    case OPERATOR_POWER:
        if ((a == 0 && b < 0) || (a < 0 && b != floor(b))) {
            return refuse(m, "this power is not a real number");
        }
        return isinf(pow(a, b)) && !isinf(a) && !isinf(b)
                   ? refuse(m, "the result is a float that is too large")
                   : value_float(pow(a, b));
    default:
        break;
    }
    if (b == 0) {
        return refuse(m, "division by zero");
    }
    if (kind == OPERATOR_DIVIDE)
        return value_float(a / b);
    if (kind == OPERATOR_MODULO)
        return value_float(modulo(a, b));
    double quotient = (a - modulo(a, b)) / b;
    return value_float(round(quotient));
}

static bool repeat_count(vm *m, size_t *out, size_t n, int64_t count) {
    *out = count > 0 ? (size_t)count : 0;
    return n == 0 || *out <= SIZE_MAX / 2 / n
               ? spend(m, n ? *out / 4 : 0)
               : fail(m, "a repetition of %zu times is too long", *out);
}

static value repeat(vm *m, value what, int64_t times) {
    size_t count;
    if (what.kind == VALUE_TEXT) {
        builder b = builder_on(m);
        if (!repeat_count(m, &count, what.text->n, times))
            return failed_value;
        if (!build_reserve(&b, what.text->n * count))
            return failed_value;
        for (size_t i = 0; i < count && what.text->n && m->status == GRAFT_OK; i++)
            build_text(&b, what.text);
        return value_text(builder_finish(&b));
    }
    const list *from = what.list;
    if (!repeat_count(m, &count, from->n, times))
        return failed_value;
    list *l = list_create(m, from->kind, from->n * count);
    for (size_t i = 0; l && i < from->n * count; i++)
        l->items[i] = from->items[i % from->n];
    return value_list(l);
}

static void build_escaped(builder *b, const text *t) {
    size_t cursor = 0;
    for (size_t i = 0; i < t->n; i++) {
        const char *entity = t->bytes[i] == '&'    ? "&amp;"
                             : t->bytes[i] == '<'  ? "&lt;"
                             : t->bytes[i] == '>'  ? "&gt;"
                             : t->bytes[i] == '\'' ? "&#39;"
                             : t->bytes[i] == '"'  ? "&#34;"
                                                   : NULL;
        build_like(b, entity ? entity : t->bytes + i, entity ? strlen(entity) : 1,
                   text_stretch(t, &cursor, i));
    }
}

value escape_text(vm *m, const text *t) {
    if (t->is_safe)
        return value_text(t);
    builder b = builder_on(m);
    build_escaped(&b, t);
    return mark_safe(m, builder_finish(&b));
}

value mark_safe(vm *m, const text *t) {
    text *safe = t ? vm_take(m, 1, sizeof *safe) : NULL;
    if (!safe)
        return failed_value;
    *safe = *t;
    safe->is_safe = true;
    return value_text(safe);
}

/* What is joined to a safe text is escaped. */
static value join_texts(vm *m, const text *a, const text *b) {
    builder joined = builder_on(m);
    bool is_safe = a->is_safe || b->is_safe;
    const text *parts[] = {a, b};
    for (int i = 0; i < 2; i++)
        if (is_safe && !parts[i]->is_safe)
            build_escaped(&joined, parts[i]);
        else
            build_text(&joined, parts[i]);
    const text *t = builder_finish(&joined);
    return is_safe ? mark_safe(m, t) : value_text(t);
}

static value join_lists(vm *m, const list *a, const list *b) {
    list *l = list_create(m, a->kind, a->n + b->n);
    if (!l || !spend_bytes(m, l->n * sizeof *l->items))
        return failed_value;
    if (a->n)
        memcpy(l->items, a->items, a->n * sizeof *a->items);
    if (b->n)
        memcpy(l->items + a->n, b->items, b->n * sizeof *b->items);
    return value_list(l);
}

value add_values(vm *m, value a, value b) {
    return operate(m, OPERATOR_ADD, a, b);
}

value operate(vm *m, operator_kind kind, value a, value b) {
    int64_t i, j;
    if (value_is_number(a) && value_is_number(b))
        return value_as_int(&i, a) && value_as_int(&j, b)
                   ? operate_integers(m, kind, i, j)
                   : operate_floats(m, kind, value_number(a), value_number(b));
    if (kind == OPERATOR_MODULO && a.kind == VALUE_TEXT)
        return format_percent(m, a.text, b);
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED) {
        fail_undefined(m, a.kind == VALUE_UNDEFINED ? a.undefined : b.undefined);
        return failed_value;
    }
    bool is_list = a.kind == VALUE_LIST && a.list->kind <= LIST_TUPLE;
    if (kind == OPERATOR_ADD && a.kind == VALUE_TEXT && b.kind == VALUE_TEXT)
        return join_texts(m, a.text, b.text);
    if (kind == OPERATOR_ADD && is_list && b.kind == VALUE_LIST && b.list->kind == a.list->kind)
        return join_lists(m, a.list, b.list);
    if (kind == OPERATOR_MULTIPLY && (is_list || a.kind == VALUE_TEXT) && value_as_int(&j, b))
        return repeat(m, a, j);
    bool is_list_b = b.kind == VALUE_LIST && b.list->kind <= LIST_TUPLE;
    if (kind == OPERATOR_MULTIPLY && (is_list_b || b.kind == VALUE_TEXT) && value_as_int(&i, a))
        return repeat(m, b, i);
    return refuse_types(m, kind, a, b);
}

value negate(vm *m, value v) {
    int64_t i;
    if (v.kind == VALUE_FLOAT)
        return value_float(-v.number);
    if (value_as_int(&i, v))
        return i == INT64_MIN ? too_large(m) : value_int(-i);
    if (v.kind != VALUE_UNDEFINED)
        return refuse(m, "a %s has no sign", value_type(v));
    fail_undefined(m, v.undefined);
    return failed_value;
}

bool value_contains(vm *m, bool *out, value container, value item) {
    *out = false;
    if (container.kind == VALUE_TEXT) {
        if (item.kind == VALUE_UNDEFINED)
            return fail_undefined(m, item.undefined);
        if (item.kind != VALUE_TEXT)
            return fail(m, "'in' a str needs a str before it, found a %s", value_type(item));
        *out = text_find(m, container.text, item.text, 0, container.text->n) != SIZE_MAX;
        return m->status == GRAFT_OK;
    }
    if (container.kind == VALUE_DICT) {
        uint64_t hash = 0;
        if (!value_hash(m, &hash, item))
            return false;
        *out = dict_get(m, container.dict, item) != NULL;
        return m->status == GRAFT_OK;
    }
    const list *items = value_items(m, container, "'in'");
    for (size_t i = 0; items && i < items->n && !*out; i++)
        if (!value_equal(m, out, items->items[i], item))
            return false;
    return items != NULL;
}

bool compare(vm *m, bool *out, operator_kind kind, value a, value b) {
    int order;
    bool same;
    switch (kind) {
    case OPERATOR_EQUAL:
    case OPERATOR_NOT_EQUAL:
        if (!value_equal(m, &same, a, b))
            return false;
        *out = same == (kind == OPERATOR_EQUAL);
        return true;
    case OPERATOR_IN:
    case OPERATOR_NOT_IN:
        if (!value_contains(m, &same, b, a))
            return false;
        *out = same == (kind == OPERATOR_IN);
        return true;
    default:
        break;
    }
    if (!value_order(m, &order, a, b, symbols[kind]))
        return false;
    bool is_nan = value_is_number(a) && value_is_number(b) &&
                  (isnan(value_number(a)) || isnan(value_number(b)));
    *out = !is_nan && (kind == OPERATOR_LESS         ? order < 0
                       : kind == OPERATOR_LESS_EQUAL ? order <= 0
                       : kind == OPERATOR_GREATER    ? order > 0
                                                     : order >= 0);
    return true;
}
