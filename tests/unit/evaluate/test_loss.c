/* Loss of a trained model over real text, and over rows however they are passed. */
#include "tests/parity/model_case.h"

#include "base/file_map.h"
#include "evaluate/loss.h"
#include "model/step_arena.h"
#include "text/tokenizer/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 512, ROWS_MAX = 8 };

typedef struct rows {
    batch_row row[ROWS_MAX];
    int n, next;
} rows;

static bool next_row(void *context, batch_row *out) {
    rows *r = context;
    if (r->next == r->n)
        return false;
    *out = r->row[r->next++];
    return true;
}

/* The text with BOS first, cut at the context; every token predicts the next. Caller frees ids and
 * targets. */
static batch_row text_row(const tokenizer *t, const char *file) {
    char path[128], *text;
    size_t n_bytes;
    encoding e = {0};
    snprintf(path, sizeof path, "models/stories260K/%s", file);
    assert_ok(file_read_all(&text, &n_bytes, test_data(path), 1 << 20, &test_error));
    encode_options options = {.add_special_tokens = true};
    assert_ok(tokenizer_encode(t, &e, text, n_bytes, options, &test_error));
    assert_int_equal(e.ids[0], tokenizer_bos(t));
    int32_t n = e.n < CONTEXT ? (int32_t)e.n : CONTEXT;
    int32_t *ids = malloc((size_t)n * sizeof *ids), *targets = malloc((size_t)n * sizeof *targets);
    assert_true(ids && targets);
    for (int32_t i = 0; i < n; i++) {
        ids[i] = e.ids[i];
        targets[i] = i + 1 < n ? e.ids[i + 1] : -1;
    }
    encoding_free(&e);
    free(text);
    return (batch_row){.ids = ids, .targets = targets, .n = n, .weight = 1};
}

static void free_rows(rows *r) {
    for (int i = 0; i < r->n; i++) {
        free((void *)(uintptr_t)r->row[i].ids);
        free((void *)(uintptr_t)r->row[i].targets);
    }
}

static void open_stories(model_case *m, tokenizer **t, int backend_kind) {
    model_case_open(m, test_backend(backend_kind), test_data("models/stories260K"), "config.json");
    model_hooks_finish(&m->hooks, &m->spec);
    assert_ok(tokenizer_load(t, test_data("models/stories260K"), NULL, &test_error));
}

static void open_arena(step_arena *arena, const model_run *run, int32_t max_tokens,
                       int32_t max_rows) {
    const step_limits limits = {
        .max_tokens = max_tokens, .max_labelled = max_tokens, .max_segments = max_rows};
    assert_ok(step_arena_create(arena, run, &limits, "a test", &test_error));
}

static loss_total evaluate(const model_case *m, rows *r, int32_t max_tokens, int32_t max_rows) {
    loss_total total;
    double row_sums[ROWS_MAX], sum = 0;
    model_run run = model_case_run(m);
    step_arena arena;
    open_arena(&arena, &run, max_tokens, max_rows);
    const loss_pass pass = {
        .run = &run, .step = &arena.step, .builder = &arena.builder, .row_sums = row_sums};
    for (int i = 0; i < r->n; i++)
        r->row[i].row_id = (uint64_t)i;
    r->next = 0;
    assert_ok(loss_evaluate(&total, &pass, (row_source){next_row, r}, NULL, &test_error));
    for (int i = 0; i < r->n; i++)
        sum += row_sums[i];
    assert_memory_equal(&sum, &total.sum, sizeof sum);
    step_arena_free(&arena);
    return total;
}

static void check_losses(int backend_kind) {
    static const struct {
        const char *file;
        double loss;
        int64_t tokens; /* that are predicted */
    } texts[] = {{"tinystories_900.txt", 1.388945, 379},
                 {"tinystories2MB_900.txt", 1.750932, 425},
                 {"shakespeare_900.txt", 3.900033, 512}};
    static model_case m;
    tokenizer *t = NULL;
    open_stories(&m, &t, backend_kind);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        rows r = {.row = {text_row(t, texts[i].file)}, .n = 1};
        loss_total total = evaluate(&m, &r, CONTEXT, 1);
        assert_int_equal(total.tokens, texts[i].tokens);
        assert_int_equal(total.supervised, texts[i].tokens - 1);
        test_assert_near(total.sum / (double)total.supervised, texts[i].loss, 2e-6, 0,
                         texts[i].file);
        free_rows(&r);
    }
    tokenizer_destroy(&t);
    model_case_close(&m);
}

static void losses_of_stories(void **state) {
    (void)state;
    for (int kind = 0; kind < BACKENDS; kind++)
        check_losses(kind);
}

static void rows_together_cost_what_they_cost_alone(void **state) {
    (void)state;
    static model_case m;
    tokenizer *t = NULL;
    open_stories(&m, &t, 1);
    rows r = {.n = 4};
    for (int i = 0; i < r.n; i++) {
        r.row[i] = text_row(t, i % 2 ? "tinystories_900.txt" : "shakespeare_900.txt");
        r.row[i].n -= 90 * i;
    }
    loss_total alone = evaluate(&m, &r, CONTEXT, 1);
    loss_total together = evaluate(&m, &r, 2000, 8);
    assert_int_equal(alone.rows, 4);
    assert_int_equal(together.supervised, alone.supervised);
    assert_memory_equal(&together.sum, &alone.sum, sizeof alone.sum);
    free_rows(&r);
    tokenizer_destroy(&t);
    model_case_close(&m);
}

static void a_loss_that_is_not_finite(void **state) {
    (void)state;
    static model_case m;
    tokenizer *t = NULL;
    loss_total total;
    step_arena arena;
    const float values[64] = {[5] = NAN};
    const tensor_view norm = {.data = values, .type = DTYPE_F32, .rank = 1, .shape = {64}};
    open_stories(&m, &t, 1);
    test_parameter *p = model_case_parameter(&m, "model.norm.weight", &norm, 64);
    m.hooks.outer_norm[OUTER_NORM_FINAL] = (freed_parameter){.value = p->value, .is_freed = true};
    rows r = {.row = {text_row(t, "tinystories_900.txt")}, .n = 1};
    model_run run = model_case_run(&m);
    open_arena(&arena, &run, CONTEXT, 1);
    const loss_pass pass = {.run = &run, .step = &arena.step, .builder = &arena.builder};
    assert_refused(loss_evaluate(&total, &pass, (row_source){next_row, &r}, NULL, &test_error),
                   GRAFT_E_NUMERIC, "row 0");
    step_arena_free(&arena);
    free_rows(&r);
    tokenizer_destroy(&t);
    model_case_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_of_stories),
        cmocka_unit_test(rows_together_cost_what_they_cost_alone),
        cmocka_unit_test(a_loss_that_is_not_finite),
    };
    return cmocka_run_group_tests_name("evaluate_loss", tests, NULL, NULL);
}
