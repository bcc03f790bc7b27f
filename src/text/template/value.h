/* Values of the template language: Python's, as far as templates can see them. Immutable, except
 * namespaces, loops, cyclers and joiners. All memory is the vm's. */
#ifndef GRAFT_TEXT_TEMPLATE_VALUE_H
#define GRAFT_TEXT_TEMPLATE_VALUE_H

#include "text/template/text.h"

typedef enum value_kind {
    VALUE_FAILED, /* no value: the vm holds why. Returned, never stored */
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_TEXT,
    VALUE_LIST, /* and whatever else is a sequence: see list_kind */
    VALUE_DICT,
    VALUE_NAMESPACE,
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_METHOD, /* bound to its object */
    VALUE_FUNCTION,
    VALUE_CYCLER,
    VALUE_JOINER
} value_kind;

typedef struct undefined undefined;
typedef struct list list;
typedef struct dict dict;
typedef struct loop loop;
typedef struct macro macro;
typedef struct method method;
typedef struct function function;
typedef struct cycler cycler;
typedef struct joiner joiner;

typedef struct value {
    value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        const text *text;
        const undefined *undefined;
        list *list;
        dict *dict; /* also of a namespace */
        loop *loop;
        const macro *macro;
        const method *method;
        const function *function;
        cycler *cycler;
        joiner *joiner;
    };
} value;

typedef enum list_kind {
    LIST_LIST,
    LIST_TUPLE,
    LIST_RANGE,
    LIST_KEYS,     /* dict.keys(), .values(), .items(): no index */
    LIST_ITERATOR, /* what Python would make lazily: no length, no index, gone after one use */
} list_kind;

struct list {
    value *items;
    size_t n;
    list_kind kind;
    const char *type_name; /* of KEYS, ITERATOR: "dict_items", "generator", ... */
    const text *printed;   /* of RANGE: "range(0, 3)" */
    bool is_used_up;       /* ITERATOR */
    bool is_group;         /* TUPLE: what |groupby gives, (grouper, list) */
    int32_t owner;         /* message in which it lies; NOBODY */
};

typedef struct dict_entry {
    value key, item;
    uint64_t hash;
} dict_entry;

struct dict {
    dict_entry *entries; /* in order of insertion */
    size_t n, capacity;
    uint32_t *slots; /* entry number + 1, open addressing; NULL while there are few */
    size_t n_slots;  /* power of two */
    int32_t owner;   /* message in which it lies; NOBODY */
    bool is_message; /* it is that message itself */
};

/* Why there is no value; made into a message only when it is needed. */
struct undefined {
    const char *hint; /* the whole message; NULL: made from the rest */
    const text *name; /* variable, attribute or key; NULL: see element */
    value holder;     /* what lacks it; VALUE_FAILED: a variable */
    value element;    /* the key or index when it is no string */
    bool is_unsafe;   /* an attribute the sandbox hides */
};

struct macro {
    const struct node *node; /* NODE_MACRO or NODE_CALL_BLOCK */
    struct scope *scope;     /* where it was defined */
};

struct cycler {
    const value *items;
    size_t n, at;
};

struct joiner {
    value separator;
    bool is_used;
};

struct loop {
    const list *over;
    size_t index0;
    int32_t depth0;
    const struct node *node; /* the for statement, when it is recursive; else NULL */
    struct scope *scope;     /* around that statement */
    value changed;           /* what loop.changed() saw last; VALUE_FAILED: nothing */
};

static const value failed_value = {.kind = VALUE_FAILED};
static const value none_value = {.kind = VALUE_NONE};

static inline bool is_failed(value v) {
    return v.kind == VALUE_FAILED;
}
static inline value value_bool(bool b) {
    return (value){.kind = VALUE_BOOL, .boolean = b};
}
static inline value value_int(int64_t i) {
    return (value){.kind = VALUE_INT, .integer = i};
}
static inline value value_float(double d) {
    return (value){.kind = VALUE_FLOAT, .number = d};
}
/* A text that could not be made is a failed value. */
static inline value value_text(const text *t) {
    return t ? (value){.kind = VALUE_TEXT, .text = t} : failed_value;
}
static inline value value_list(list *l) {
    return l ? (value){.kind = VALUE_LIST, .list = l} : failed_value;
}
static inline value value_dict(dict *d) {
    return d ? (value){.kind = VALUE_DICT, .dict = d} : failed_value;
}

/* Fails like fail(). */
value refuse(vm *, const char *format, ...) __attribute__((format(printf, 2, 3)));
value value_undefined(vm *, undefined);
/* Fails, saying what is undefined. */
bool fail_undefined(vm *, const undefined *);

list *list_create(vm *, list_kind, size_t n);
list *list_iterator(vm *, size_t n, const char *type_name);
value value_pair(vm *, value, value); /* a tuple */

dict *dict_create(vm *);
dict *dict_copy(vm *, const dict *);
/* False when it failed: a key that Python could not hash. */
bool dict_set(vm *, dict *, value key, value item);
/* NULL when it is not there, or when the key cannot be hashed (never equal to any key). */
const value *dict_get(vm *, const dict *, value key);
const value *dict_get_literal(const dict *, const char *key);
const value *dict_get_text(const dict *, const text *key);

/* "str", "NoneType", "dict", ...: Python's name of the value's type. */
const char *value_type(value);
bool value_truth(value);
bool value_is_number(value);            /* bool, int, float */
double value_number(value);             /* of one that is */
bool value_as_int(int64_t *out, value); /* bool or int */
/* *out as Python's ==, <. Ordering fails for types that have none. */
bool value_equal(vm *, bool *out, value, value);
bool value_order(vm *, int *out, value, value, const char *symbol);
bool value_is_same(value, value); /* Python's `is`, as far as it can be seen */
bool value_hash(vm *, uint64_t *out, value);

/* str(), and repr(). */
const text *value_str(vm *, value);
bool build_str(builder *, value);
bool build_repr(builder *, value);
bool build_int(builder *, int64_t);
bool build_float(builder *, double); /* repr */

/* The items of anything that can be iterated over (a text: its characters; a dict: its keys). NULL
 * when it cannot or failed. Uses an iterator up. `what` goes into the message. */
const list *value_items(vm *, value, const char *what);
bool value_is_iterable(value);

#endif
