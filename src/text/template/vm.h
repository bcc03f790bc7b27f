/* The state of one rendering, and how it fails. */
#ifndef GRAFT_TEXT_TEMPLATE_VM_H
#define GRAFT_TEXT_TEMPLATE_VM_H

#include "text/template/arena.h"

#include <stdarg.h>

enum { NOBODY = -1 };

typedef struct vm {
    arena memory;       /* everything a rendering makes; freed at its end */
    const char *origin; /* what the template is called in messages */
    graft_error *err;
    graft_status status; /* of the first failure; later ones are ignored */
    int64_t steps_left;
    int64_t now;
    int32_t line;  /* of the template, where evaluation is */
    int32_t level; /* nested evaluations and values */
    int32_t calls; /* nested macro calls and recursive loops */
    /* Who is printing: see text.h. */
    int32_t turn, generation, n_generations;
} vm;

/* The first failure wins. Messages get "origin:line: " in front. All return false, for `return
 * fail(...)`. */
bool fail(vm *, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool fail_as(vm *, graft_status, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool fail_list(vm *, graft_status, const char *format, va_list);
bool fail_memory(vm *);

/* Counts work of n steps against TEMPLATE_STEPS_MAX. */
bool spend(vm *, size_t n);
/* Work that passes over n bytes. */
bool spend_bytes(vm *, size_t n);
/* Around whatever calls itself. */
bool enter(vm *);
void leave(vm *);

/* Zeroed; NULL (and failed) when memory or the limit is reached. */
void *vm_take(vm *, size_t count, size_t element_bytes);

#endif
