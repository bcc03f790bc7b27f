/* Tests: value is name(arguments). */
#include "text/template/builtins.h"

#include "text/template/evaluator.h"
#include "text/template/unicode.h"

#include <math.h>
#include <string.h>

static value yes(vm *m, const arguments *given, const char *what, bool holds) {
    return bind(m, NULL, what, "", 0, given) ? value_bool(holds) : failed_value;
}

static value test_defined(vm *m, value self, const arguments *given) {
    return yes(m, given, "defined", self.kind != VALUE_UNDEFINED);
}

static value test_undefined(vm *m, value self, const arguments *given) {
    return yes(m, given, "undefined", self.kind == VALUE_UNDEFINED);
}

static value test_none(vm *m, value self, const arguments *given) {
    return yes(m, given, "none", self.kind == VALUE_NONE);
}

static value test_boolean(vm *m, value self, const arguments *given) {
    return yes(m, given, "boolean", self.kind == VALUE_BOOL);
}

static value test_true(vm *m, value self, const arguments *given) {
    return yes(m, given, "true", self.kind == VALUE_BOOL && self.boolean);
}

static value test_false(vm *m, value self, const arguments *given) {
    return yes(m, given, "false", self.kind == VALUE_BOOL && !self.boolean);
}

static value test_integer(vm *m, value self, const arguments *given) {
    return yes(m, given, "integer", self.kind == VALUE_INT);
}

static value test_float(vm *m, value self, const arguments *given) {
    return yes(m, given, "float", self.kind == VALUE_FLOAT);
}

static value test_number(vm *m, value self, const arguments *given) {
    return yes(m, given, "number", value_is_number(self));
}

static value test_string(vm *m, value self, const arguments *given) {
    return yes(m, given, "string", self.kind == VALUE_TEXT);
}

static value test_mapping(vm *m, value self, const arguments *given) {
    return yes(m, given, "mapping", self.kind == VALUE_DICT);
}

static value test_iterable(vm *m, value self, const arguments *given) {
    return yes(m, given, "iterable", value_is_iterable(self));
}

static value test_sequence(vm *m, value self, const arguments *given) {
    bool has_index = self.kind == VALUE_TEXT || self.kind == VALUE_DICT ||
                     self.kind == VALUE_UNDEFINED ||
                     (self.kind == VALUE_LIST && self.list->kind < LIST_KEYS);
    return yes(m, given, "sequence", has_index);
}

static value test_callable(vm *m, value self, const arguments *given) {
    bool is_callable = self.kind == VALUE_MACRO || self.kind == VALUE_METHOD ||
                       self.kind == VALUE_FUNCTION || self.kind == VALUE_LOOP ||
                       self.kind == VALUE_JOINER || self.kind == VALUE_UNDEFINED;
    return yes(m, given, "callable", is_callable);
}

static value test_escaped(vm *m, value self, const arguments *given) {
    return yes(m, given, "escaped", self.kind == VALUE_TEXT && self.text->is_safe);
}

static value test_filter(vm *m, value self, const arguments *given) {
    const builtin *found = self.kind == VALUE_TEXT ? filter_find(self.text) : NULL;
    return yes(m, given, "filter", found && found->run);
}

static value test_test(vm *m, value self, const arguments *given) {
    return yes(m, given, "test", self.kind == VALUE_TEXT && test_find(self.text));
}

/* Whether self % divisor is `wanted`. */
static value test_remainder(vm *m, value self, value divisor, int64_t wanted) {
    bool same;
    value rest = operate(m, OPERATOR_MODULO, self, divisor);
    if (is_failed(rest) || !value_equal(m, &same, rest, value_int(wanted)))
        return failed_value;
    return value_bool(same);
}

static value test_odd(vm *m, value self, const arguments *given) {
    return bind(m, NULL, "odd", "", 0, given) ? test_remainder(m, self, value_int(2), 1)
                                              : failed_value;
}

static value test_even(vm *m, value self, const arguments *given) {
    return bind(m, NULL, "even", "", 0, given) ? test_remainder(m, self, value_int(2), 0)
                                               : failed_value;
}

static value test_divisibleby(vm *m, value self, const arguments *given) {
    value v[1];
    return bind(m, v, "divisibleby", "num", 1, given) ? test_remainder(m, self, v[0], 0)
                                                      : failed_value;
}

/* Whether there are cased characters and all of them are of one kind. */
static value test_case(vm *m, value self, const arguments *given, const char *what, bool upper) {
    const text *t = bind(m, NULL, what, "", 0, given) ? value_str(m, self) : NULL;
    bool any = false;
    for (size_t at = 0; t && at < t->n;) {
        uint32_t c;
        at += char_at(&c, t->bytes + at, t->n - at);
        if (char_is_title(c) || (upper ? char_is_lower(c) : char_is_upper(c)))
            return value_bool(false);
        any |= char_is_cased(c);
    }
    return t ? value_bool(any) : failed_value;
}

static value test_lower(vm *m, value self, const arguments *given) {
    return test_case(m, self, given, "lower", false);
}

static value test_upper(vm *m, value self, const arguments *given) {
    return test_case(m, self, given, "upper", true);
}

static value test_sameas(vm *m, value self, const arguments *given) {
    value v[1];
    return bind(m, v, "sameas", "other", 1, given) ? value_bool(value_is_same(self, v[0]))
                                                   : failed_value;
}

static value test_in(vm *m, value self, const arguments *given) {
    value v[1];
    bool found;
    if (!bind(m, v, "in", "seq", 1, given) || !value_contains(m, &found, v[0], self))
        return failed_value;
    return value_bool(found);
}

static value test_compare(vm *m, value self, const arguments *given, operator_kind kind) {
    value v[1];
    bool holds;
    if (!bind(m, v, "a comparison", "b", 1, given) || !compare(m, &holds, kind, self, v[0]))
        return failed_value;
    return value_bool(holds);
}

static value test_eq(vm *m, value self, const arguments *given) {
    return test_compare(m, self, given, OPERATOR_EQUAL);
}

static value test_ne(vm *m, value self, const arguments *given) {
    return test_compare(m, self, given, OPERATOR_NOT_EQUAL);
}

static value test_lt(vm *m, value self, const arguments *given) {
    return test_compare(m, self, given, OPERATOR_LESS);
}

static value test_le(vm *m, value self, const arguments *given) {
    return test_compare(m, self, given, OPERATOR_LESS_EQUAL);
}

static value test_gt(vm *m, value self, const arguments *given) {
    return test_compare(m, self, given, OPERATOR_GREATER);
}

static value test_ge(vm *m, value self, const arguments *given) {
    return test_compare(m, self, given, OPERATOR_GREATER_EQUAL);
}

static const builtin tests[] = {
    {"defined", test_defined},
    {"none", test_none},
    {"string", test_string},
    {"mapping", test_mapping},
    {"iterable", test_iterable},
    {"undefined", test_undefined},
    {"boolean", test_boolean},
    {"true", test_true},
    {"false", test_false},
    {"integer", test_integer},
    {"float", test_float},
    {"number", test_number},
    {"sequence", test_sequence},
    {"callable", test_callable},
    {"escaped", test_escaped},
    {"filter", test_filter},
    {"test", test_test},
    {"odd", test_odd},
    {"even", test_even},
    {"divisibleby", test_divisibleby},
    {"lower", test_lower},
    {"upper", test_upper},
    {"sameas", test_sameas},
    {"in", test_in},
    {"==", test_eq},
    {"eq", test_eq},
    {"equalto", test_eq},
    {"!=", test_ne},
    {"ne", test_ne},
    {"<", test_lt},
    {"lt", test_lt},
    {"lessthan", test_lt},
    {"<=", test_le},
    {"le", test_le},
    {">", test_gt},
    {"gt", test_gt},
    {"greaterthan", test_gt},
    {">=", test_ge},
    {"ge", test_ge},
};

const builtin *test_find(const text *name) {
    return builtin_find(tests, sizeof tests / sizeof *tests, name);
}
