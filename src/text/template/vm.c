#include "text/template/vm.h"

#include "base/memory.h"
#include "text/template/template.h"

#include <stdio.h>

/* Nested evaluations: each takes less than a kilobyte of stack. */
enum { LEVELS_MAX = 12 * TEMPLATE_DEPTH_MAX, BYTES_A_STEP = 256 };

bool fail_list(vm *m, graft_status status, const char *format, va_list args) {
    if (m->status != GRAFT_OK)
        return false;
    char text[sizeof m->err->message];
    vsnprintf(text, sizeof text, format, args);
    m->status = error_set(m->err, status, "%s:%d: %s", m->origin, (int)m->line, text);
    return false;
}

bool fail(vm *m, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_list(m, GRAFT_E_INPUT, format, args);
    va_end(args);
    return false;
}

bool fail_as(vm *m, graft_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_list(m, status, format, args);
    va_end(args);
    return false;
}

bool fail_memory(vm *m) {
    if (m->memory.is_exhausted)
        return fail(m, "rendering takes more memory than the limit of %zu MiB",
                    m->memory.limit >> 20);
    return fail_as(m, GRAFT_E_MEMORY, "out of memory");
}

bool spend(vm *m, size_t n) {
    if (m->status != GRAFT_OK)
        return false;
    if (n > (size_t)m->steps_left) {
        m->steps_left = 0;
        return fail(m, "rendering takes more than the limit of %d steps", TEMPLATE_STEPS_MAX);
    }
    m->steps_left -= (int64_t)n;
    return true;
}

bool spend_bytes(vm *m, size_t n) {
    return spend(m, 1 + n / BYTES_A_STEP);
}

bool enter(vm *m) {
    if (m->level >= LEVELS_MAX)
        return fail(m, "nested too deeply: more than %d levels of expressions or values",
                    LEVELS_MAX);
    m->level++;
    return true;
}

void leave(vm *m) {
    m->level--;
}

void *vm_take(vm *m, size_t count, size_t element_bytes) {
    size_t bytes;
    if (!size_mul(&bytes, count, element_bytes))
        bytes = SIZE_MAX / 2; /* more than any limit */
    void *taken = arena_take(&m->memory, bytes);
    if (!taken)
        fail_memory(m);
    return taken;
}
