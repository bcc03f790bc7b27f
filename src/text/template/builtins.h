/* Filters, tests, methods and functions: what they are called with, and where they are found. */
#ifndef GRAFT_TEXT_TEMPLATE_BUILTINS_H
#define GRAFT_TEXT_TEMPLATE_BUILTINS_H

#include "text/template/value.h"

typedef struct arguments {
    const value *items;
    size_t n;
    const text *const *names; /* of the named ones */
    const value *named;
    size_t n_named;
} arguments;

typedef struct builtin {
    const char *name;
    /* For a filter, test or method `self` is what stands before it. NULL: known to Jinja, but not
     * supported. */
    value (*run)(vm *, value self, const arguments *);
} builtin;

struct function { /* a global one, called without self */
    builtin builtin;
};

struct method {
    value self;
    const builtin *builtin;
};

/* NULL when there is none of this name. */
const builtin *builtin_find(const builtin *table, size_t n, const text *name);
const builtin *filter_find(const text *name);
const builtin *test_find(const text *name);
const builtin *text_method_find(const text *name);
const builtin *dict_method_find(const text *name);
const builtin *list_method_find(const text *name);
const builtin *cycler_method_find(const text *name);
const function *function_find(const text *name);

/* Matches arguments to parameters as Python does: out[i] is the i-th word of `signature`,
 * VALUE_FAILED where it was not given. The first `needed` must be given. `what` names the function
 * in messages. False when it failed. */
bool bind(vm *, value *out, const char *what, const char *signature, size_t needed,
          const arguments *);
enum { PARAMETERS_MAX = 8 };
bool was_given(value);

/* An argument as what is needed; fails with its name. Where it was not given, *out stays as it is.
 */
bool take_int(vm *, int64_t *out, value, const char *name);
void take_bool(bool *out, value);
bool take_text(vm *, const text **out, value, const char *name);

/* What the evaluator offers to filters. */
value call_value(vm *, value callee, const arguments *);
value run_filter(vm *, const builtin *, value self, const arguments *);
value run_test(vm *, const builtin *, value self, const arguments *);
value get_attribute(vm *, value, const text *name);  /* a.name */
value attribute_only(vm *, value, const text *name); /* not an item, even where . would give one */
value get_item(vm *, value, value key);              /* a[key] */
value get_slice(vm *, value, value begin, value end, value step);
/* *out: whether item is in container. */
bool value_contains(vm *, bool *out, value container, value item);
value add_values(vm *, value, value);
/* str(value) % argument; the arguments are a tuple or a dict, or one value. */
value format_percent(vm *, const text *format, value argument);
value format_braces(vm *, const text *format, const arguments *);
/* json.dumps. */
typedef struct json_options {
    const text *indent;                         /* one level; NULL: all on one line */
    const text *item_separator, *key_separator; /* NULL: Python's defaults */
    bool ensure_ascii, sort_keys;
} json_options;
value value_to_json(vm *, value, const json_options *);
value escape_text(vm *, const text *); /* HTML, marked as safe */
value mark_safe(vm *, const text *);   /* NULL: failed */
value strftime_now(vm *, const text *format);

#endif
