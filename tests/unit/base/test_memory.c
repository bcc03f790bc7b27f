#include "tests/support/support.h"

#include "base/layout.h"
#include "base/memory.h"
#include "base/message.h"
#include "base/strbuf.h"

#include <stdlib.h>
#include <string.h>

/* ---- status ---- */

static void messages_escape_and_truncate(void **state) {
    (void)state;
    graft_error err = {0};
    assert_int_equal(error_set(&err, GRAFT_E_INPUT, "%s", "a\x1b[31m\x7f\r"), GRAFT_E_INPUT);
    assert_string_equal(err.message, "a\\x1b[31m\\x7f\\x0d");
    char text[4096];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\U0001F600", 5);
        error_set(&err, GRAFT_E_IO, "%s", text);
        size_t n = strlen(err.message);
        assert_true(n > 1000 && n < sizeof err.message);
        assert_int_equal((n - shift) % 4, 0);
    }
    error_set(&err, GRAFT_E_IO, "inner");
    error_prefix(&err, "row %d", 5);
    assert_string_equal(err.message, "row 5: inner");
    assert_int_equal(err.code, GRAFT_E_IO);
    assert_int_equal(error_set(NULL, GRAFT_E_IO, "x"), GRAFT_E_IO);
    error_prefix(NULL, "x");
    assert_int_equal(error_memory(&err, 12, "rows"), GRAFT_E_MEMORY);
    assert_string_equal(err.message, "out of memory: 12 bytes wanted for rows");
}

static void exit_statuses_are_0_1_2(void **state) {
    (void)state;
    assert_int_equal(graft_exit_status(GRAFT_OK), 0);
    assert_int_equal(graft_exit_status(GRAFT_E_USAGE), 2);
    assert_int_equal(graft_exit_status(GRAFT_E_INPUT), 2);
    assert_int_equal(graft_exit_status(GRAFT_E_UNSUPPORTED), 2);
    assert_int_equal(graft_exit_status(GRAFT_E_IO), 1);
    assert_int_equal(graft_exit_status(GRAFT_E_NUMERIC), 1);
}

static void keep(void *context, message_level level, const char *text) {
    strbuf_printf(context, "%d %s", (int)level, text);
}

static void messages_go_to_their_sink(void **state) {
    (void)state;
    strbuf out = {0};
    const message_sink sink = {keep, &out}, none = {0};
    message_emit(&sink, MESSAGE_WARNING, "%d rows", 3);
    message_emit(&none, MESSAGE_WARNING, "dropped");
    message_emit(NULL, MESSAGE_WARNING, "dropped");
    assert_string_equal(out.data, "1 3 rows");
    strbuf_free(&out);
}

/* ---- memory ---- */

static void sizes_that_overflow(void **state) {
    (void)state;
    size_t n;
    assert_true(size_add(&n, SIZE_MAX - 1, 1));
    assert_false(size_add(&n, SIZE_MAX, 1));
    assert_false(size_mul(&n, SIZE_MAX / 2 + 1, 2));
    void *empty = mem_array(0, 8);
    assert_non_null(empty);
    free(empty);
    int *array = NULL;
    size_t capacity = 0;
    assert_true(mem_reserve(&array, &capacity, 1, sizeof *array));
    assert_int_equal(capacity, 8);
    assert_true(mem_reserve(&array, &capacity, 9, sizeof *array));
    assert_int_equal(capacity, 16);
    assert_false(mem_reserve(&array, &capacity, SIZE_MAX, sizeof *array));
    assert_int_equal(capacity, 16);
    free(array);
}

static void strings_grow(void **state) {
    (void)state;
    strbuf b = {0};
    assert_string_equal(strbuf_text(&b), "");
    for (int i = 0; i < 1000; i++)
        strbuf_printf(&b, "%d,", i % 10);
    assert_int_equal(b.length, 2000);
    strbuf_add(&b, "\0x", 2);
    assert_int_equal(b.length, 2002);
    strbuf_clear(&b);
    assert_string_equal(b.data, "");
    strbuf_add_text(&b, "end");
    char *taken = strbuf_take(&b);
    assert_string_equal(taken, "end");
    free(taken);
    taken = strbuf_take(&b);
    assert_string_equal(taken, "");
    free(taken);
    assert_null(b.data);
    strbuf_add(&b, "x", SIZE_MAX);
    assert_true(b.failed);
    assert_null(strbuf_take(&b));
    assert_false(b.failed);
}

/* ---- layout ---- */

typedef struct described {
    float *weights, *scratch_a, *scratch_b, *kept;
} described;

static void describe(described *out, layout *l) {
    out->weights = layout_take(l, COMPONENT_WEIGHTS, 100, sizeof(float));
    layout_place mark = layout_mark(l);
    out->scratch_a = layout_take(l, COMPONENT_WORKSPACE, 1000, sizeof(float));
    layout_release(l, mark);
    out->scratch_b = layout_take(l, COMPONENT_WORKSPACE, 10, sizeof(float));
    layout_release(l, mark);
    out->kept = layout_take(l, COMPONENT_ACTIVATIONS, 1, sizeof(float));
}

static void layouts_count_what_they_assign(void **state) {
    (void)state;
    described d;
    layout counted = layout_counting();
    describe(&d, &counted);
    assert_null(d.weights);
    assert_int_equal(counted.high_water, 448 + 4032);
    assert_int_equal(counted.used, 448 + 64);
    assert_int_equal(counted.at_high_water[COMPONENT_WEIGHTS], 448);
    assert_int_equal(counted.at_high_water[COMPONENT_WORKSPACE], 4032);
    assert_int_equal(counted.at_high_water[COMPONENT_ACTIVATIONS], 0);
    void *memory = aligned_alloc(LAYOUT_ALIGNMENT, counted.high_water);
    layout assigned = layout_over(memory, counted.high_water);
    describe(&d, &assigned);
    assert_int_equal(assigned.high_water, counted.high_water);
    assert_ptr_equal(d.weights, memory);
    assert_ptr_equal(d.scratch_a, (char *)memory + 448);
    assert_ptr_equal(d.scratch_b, d.scratch_a);
    assert_ptr_equal(d.kept, d.scratch_a);
    free(memory);
}

static void layouts_that_overflow(void **state) {
    (void)state;
    static const size_t counts[] = {SIZE_MAX, SIZE_MAX / 8, SIZE_MAX / 8 - 1};
    for (size_t i = 0; i < 3; i++) {
        layout l = layout_counting();
        layout_take(&l, COMPONENT_WEIGHTS, 100, 1);
        assert_null(layout_take(&l, COMPONENT_WEIGHTS, counts[i], 8));
        assert_true(l.overflow);
    }
}

static void components_have_names(void **state) {
    (void)state;
    for (int i = 0; i < N_COMPONENTS; i++)
        assert_true(strlen(component_name((component)i)) > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_escape_and_truncate),
        cmocka_unit_test(exit_statuses_are_0_1_2),
        cmocka_unit_test(messages_go_to_their_sink),
        cmocka_unit_test(sizes_that_overflow),
        cmocka_unit_test(strings_grow),
        cmocka_unit_test(layouts_count_what_they_assign),
        cmocka_unit_test(layouts_that_overflow),
        cmocka_unit_test(components_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
