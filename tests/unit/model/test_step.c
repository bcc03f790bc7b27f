/* Steps of whole models: what must give the same bits, and what must agree. */
#include "tests/parity/model_case.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { VOCAB = 37, LONG = 300, ROWS = 3, MAX_TOKENS = 800 };

static const char config[] =
    "{\"model_type\": \"qwen3\", \"vocab_size\": 37, \"hidden_size\": 24, \"intermediate_size\": "
    "20,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"head_dim\": 6,"
    " \"attention_bias\": true, \"use_sliding_window\": true, \"sliding_window\": 50,"
    " \"max_window_layers\": 1}";

static const step_limits limits = {.max_tokens = MAX_TOKENS,
                                   .max_labelled = MAX_TOKENS,
                                   .max_segments = ROWS,
                                   .max_jobs = 2,
                                   .training = true,
                                   .head_chunk = 64};

static const int32_t lengths[ROWS] = {70, LONG, 290};

static void open_case(model_case *m, backend *dev) {
    model_case_open(m, dev, model_case_write("step", config, 8), "config.json");
}

static void add_row(model_case *m, int32_t row, int32_t job) {
    int32_t ids[LONG], targets[LONG], n = lengths[row];
    for (int32_t t = 0; t < n; t++) {
        ids[t] = (11 * row + 5 * t + t * t) % VOCAB;
        targets[t] = t % 7 == row || t + 1 == n ? -1 : (3 * t + row) % VOCAB;
    }
    model_case_add_row(m, &(batch_row){.ids = ids,
                                       .targets = targets,
                                       .n = n,
                                       .weight = 0.01f,
                                       .job = job,
                                       .row_id = 70 + (uint64_t)row});
}

static void add_terms(model_case *m, int32_t jobs) {
    for (size_t i = 0; i < m->n_modules; i++)
        for (int32_t job = 0; job < jobs && m->modules[i].kind != MODULE_NORM; job++) {
            low_rank_term term = {.scale = 1,
                                  .rank = 3,
                                  .job = jobs > 1 ? job : -1,
                                  .dropout = 0.1f,
                                  .dropout_stream = (uint32_t)i};
            model_case_add_term(m, m->modules[i].name, term, false, 50 + i + 1000 * (uint64_t)job);
        }
}

/* All gradients, one after the other. Caller frees. */
static double *all_gradients(const model_case *m, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < m->n_parameters; i++)
        *n += (size_t)m->parameters[i].n;
    double *all = mem_array(*n, sizeof *all), *at = all;
    assert_non_null(all);
    for (size_t i = 0; i < m->n_parameters; at += m->parameters[i].n, i++)
        m->dev->ops->download_f64(m->dev, at, m->parameters[i].gradient, m->parameters[i].n);
    return all;
}

static void assert_same_bits(const double *a, const double *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0)
            fail_msg("gradient %zu of %zu: %.17g and %.17g", i, n, a[i], b[i]);
}

/* How the rows of one step are passed. */
typedef enum passing { TOGETHER, ONE_BY_ONE } passing;

/* Gradients of a step over all rows. What is trained is the base, or terms of so many jobs (the
 * last row is the last job's). */
static double *step_gradients(size_t *n, backend *dev, const step_limits *with, int32_t jobs,
                              passing how) {
    static model_case m;
    open_case(&m, dev);
    if (jobs == 0)
        model_case_train_all(&m);
    else
        add_terms(&m, jobs);
    model_case_layout(&m, with);
    model_case_zero_gradients(&m);
    model_run run = model_case_run(&m);
    for (int32_t row = 0; row < ROWS;) {
        int32_t n_labelled;
        model_case_batch_begin(&m, true, 12345);
        do
            add_row(&m, row, jobs > 1 && row == ROWS - 1);
        while (++row < ROWS && how == TOGETHER);
        assert_ok(step_forward(&run, &m.buffers, m.batch, &test_error));
        assert_ok(step_loss(&n_labelled, &run, &m.buffers, m.batch, &test_error));
        assert_ok(step_backward(&run, &m.buffers, m.batch, &test_error));
    }
    double *gradients = all_gradients(&m, n);
    model_case_close(&m);
    return gradients;
}

static void compare_steps(backend *dev_a, const step_limits *a, passing how_a, backend *dev_b,
                          const step_limits *b, passing how_b, int32_t jobs) {
    size_t n_a, n_b;
    double *first = step_gradients(&n_a, dev_a, a, jobs, how_a);
    double *second = step_gradients(&n_b, dev_b, b, jobs, how_b);
    assert_int_equal(n_a, n_b);
    assert_same_bits(first, second, n_a);
    free(first);
    free(second);
}

/* Every way to divide the two blocks. */
static void what_blocks_keep_changes_no_bit(void **state) {
    (void)state;
    static const int32_t ways[][2] = {{2, 0}, {0, 2}, {1, 0}, {0, 1}, {1, 1}, {INT32_MAX, 0}};
    for (int labelled_only = 0; labelled_only < 2; labelled_only++)
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
            for (int32_t jobs = 0; jobs < 2; jobs++) {
                step_limits all = limits;
                all.labelled_only = labelled_only;
                step_limits with = all;
                with.layers_from_input = ways[i][0];
                with.layers_without_mlp = ways[i][1];
                compare_steps(test_backend(i % 2), &all, TOGETHER, test_backend(i % 2), &with,
                              TOGETHER, jobs);
            }
}

/* Leaving out what nobody looks at changes no more than the order of a sum. */
static void labelled_rows_alone_give_the_same_gradients(void **state) {
    (void)state;
    for (int32_t jobs = 0; jobs < 3; jobs++) {
        step_limits with = limits;
        size_t n, n_with;
        with.labelled_only = true;
        double *all = step_gradients(&n, test_backend(0), &limits, jobs, TOGETHER);
        double *labelled = step_gradients(&n_with, test_backend(0), &with, jobs, TOGETHER);
        assert_int_equal(n, n_with);
        for (size_t i = 0; i < n; i++)
            test_assert_near(labelled[i], all[i], 1e-14, 1e-10, "gradient");
        free(all);
        free(labelled);
    }
}

static void packed_equals_one_by_one(void **state) {
    (void)state;
    for (int i = 0; i < 2 * BACKENDS; i++) {
        step_limits large = limits, small;
        large.labelled_only = i >= BACKENDS;
        small = large;
        small.max_tokens = small.max_labelled = LONG;
        for (int32_t jobs = 0; jobs < 3; jobs++)
            compare_steps(test_backend(i % BACKENDS), &large, TOGETHER, test_backend(i % BACKENDS),
                          &small, ONE_BY_ONE, jobs);
    }
}

static void any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    backend *one = test_cpu_backend(1), *three = test_cpu_backend(3);
    compare_steps(one, &limits, TOGETHER, three, &limits, TOGETHER, 1);
}

/* ---- Layouts ---- */

static size_t layout_bytes(const model_spec *spec, const model_hooks *hooks,
                           const step_limits *with) {
    layout device = layout_counting(), host = layout_counting();
    step_buffers buffers;
    block_saved saved[2];
    assert_ok(step_layout(&buffers, saved, &device, &host, spec, hooks, with, 4, &test_error));
    assert_int_equal(device.used, device.high_water);
    return device.high_water;
}

static void layouts_need_shapes_only(void **state) {
    (void)state;
    static model_case m;
    open_case(&m, test_backend(0));
    add_terms(&m, 2);
    model_hooks_finish(&m.hooks, &m.spec);
    step_limits with = limits, without = limits, between = limits, inference = limits;
    with.layers_from_input = m.spec.n_layers;
    between.layers_without_mlp = m.spec.n_layers;
    inference.training = false;
    size_t whole = layout_bytes(&m.spec, &m.hooks, &without);
    size_t checkpointed = layout_bytes(&m.spec, &m.hooks, &with);
    size_t forward = layout_bytes(&m.spec, &m.hooks, &inference);
    size_t without_mlp = layout_bytes(&m.spec, &m.hooks, &between);
    assert_true(forward < checkpointed && checkpointed < without_mlp && without_mlp < whole);
    for (size_t i = 0; i < m.n_terms; i++) {
        low_rank_term *t = &m.terms[i];
        t->a = t->b = NULL;
        t->da = t->db = NULL;
    }
    model_hooks_finish(&m.hooks, &m.spec);
    assert_int_equal(layout_bytes(&m.spec, &m.hooks, &without), whole);
    assert_int_equal(layout_bytes(&m.spec, &m.hooks, &with), checkpointed);
    model_case_close(&m);
}

static void blocks_below_the_lowest_trained_keep_nothing(void **state) {
    (void)state;
    static model_case m;
    open_case(&m, test_backend(0));
    model_hooks_finish(&m.hooks, &m.spec);
    size_t none = layout_bytes(&m.spec, &m.hooks, &limits);
    low_rank_term term = {.scale = 1, .rank = 2, .job = -1};
    model_case_add_term(&m, "model.layers.1.self_attn.v_proj", term, false, 1);
    model_case_layout(&m, &limits);
    assert_null(m.saved[0].x_in);
    assert_non_null(m.saved[1].x_in);
    assert_int_equal(m.hooks.lowest_trained_layer, 1);
    assert_true(none < layout_bytes(&m.spec, &m.hooks, &limits));
    model_case_close(&m);
}

static void a_step_too_large_for_the_address_space(void **state) {
    (void)state;
    static model_case m;
    layout device = layout_counting(), host = layout_counting();
    step_limits with = limits;
    block_saved saved[2];
    open_case(&m, test_backend(0));
    m.spec.hidden = m.spec.intermediate = INT32_MAX;
    with.max_tokens = INT32_MAX;
    assert_refused(
        step_layout(&m.buffers, saved, &device, &host, &m.spec, &m.hooks, &with, 8, &test_error),
        GRAFT_E_INPUT, "address space");
    model_case_close(&m);
}

/* ---- Forward ---- */

static void logits_of(model_case *m, int32_t begin, int32_t n, float *out) {
    model_run run = model_case_run(m);
    int32_t rows[LONG];
    for (int32_t i = 0; i < n; i++)
        rows[i] = begin + i;
    assert_ok(step_logits(out, &run, &m->buffers, m->batch, rows, n, &test_error));
}

/* A block-by-block schedule that keeps keys and values: tokens in pieces give the logits of the
 * whole row. */
static void cached_keys_and_values(backend *dev) {
    static model_case m;
    enum { N = 70, FIRST = 41, WIDTH = 12 };
    float *whole = mem_array(N * VOCAB, sizeof *whole),
          *piece = mem_array(N * VOCAB, sizeof *piece);
    int32_t ids[N];
    kv_view past[2];
    device_array *k[2], *v[2];
    step_limits inference = limits;
    inference.training = false;
    open_case(&m, dev);
    model_case_layout(&m, &inference);
    model_run run = model_case_run(&m);
    for (int layer = 0; layer < 2; layer++) {
        k[layer] = dev->ops->alloc(dev, N * WIDTH * dev->element_bytes);
        v[layer] = dev->ops->alloc(dev, N * WIDTH * dev->element_bytes);
    }
    for (int t = 0; t < N; t++)
        ids[t] = (t * t + 3) % VOCAB;
    model_case_batch_begin(&m, false, 0);
    model_case_add_row(&m, &(batch_row){.ids = ids, .n = N});
    assert_ok(step_forward(&run, &m.buffers, m.batch, &test_error));
    logits_of(&m, 0, N, whole);
    for (int32_t done = 0, n = FIRST; done < N; done += n, n = done + n <= N ? 7 : N - done) {
        for (int layer = 0; layer < 2; layer++)
            past[layer] = (kv_view){.k = k[layer], .v = v[layer], .length = done};
        n = n < N - done ? n : N - done;
        model_case_batch_begin(&m, false, 0);
        model_case_add_row(
            &m, &(batch_row){.ids = ids + done, .n = n, .position_first = done, .past = past});
        assert_ok(step_embed(&run, &m.buffers, m.batch, &test_error));
        for (int32_t layer = 0; layer < 2; layer++) {
            layer_weights weights;
            assert_ok(layer_acquire(&weights, m.weights, layer, +1, &test_error));
            block_fwd(&run, layer, &weights, m.batch, &m.buffers, &m.saved[layer]);
            dev->ops->copy(dev, array_at(dev, k[layer], done * WIDTH), m.saved[layer].k, n * WIDTH);
            dev->ops->copy(dev, array_at(dev, v[layer], done * WIDTH), m.saved[layer].v, n * WIDTH);
            layer_release(m.weights, layer);
        }
        logits_of(&m, 0, n, piece);
        for (int32_t i = 0; i < n * VOCAB; i++)
            test_assert_near((double)piece[i], (double)whole[done * VOCAB + i], 2e-5, 2e-5,
                             "logits");
    }
    for (int layer = 0; layer < 2; layer++) {
        dev->ops->release(dev, k[layer]);
        dev->ops->release(dev, v[layer]);
    }
    free(whole);
    free(piece);
    model_case_close(&m);
}

static void tokens_in_pieces_give_the_logits_of_the_row(void **state) {
    (void)state;
    for (int kind = 0; kind < BACKENDS; kind++)
        cached_keys_and_values(test_backend(kind));
}

static void token_outside_the_embedding(void **state) {
    (void)state;
    static model_case m;
    int32_t ids[2] = {1, VOCAB};
    open_case(&m, test_backend(0));
    model_case_layout(&m, &limits);
    model_run run = model_case_run(&m);
    model_case_batch_begin(&m, false, 0);
    model_case_add_row(&m, &(batch_row){.ids = ids, .n = 2});
    assert_refused(step_forward(&run, &m.buffers, m.batch, &test_error), GRAFT_E_INPUT, "37 rows");
    model_case_close(&m);
}

static void rows_that_do_not_fit_the_builder(void **state) {
    (void)state;
    static model_case m;
    int32_t ids[LONG] = {0};
    open_case(&m, test_backend(0));
    model_case_layout(&m, &limits);
    model_case_batch_begin(&m, false, 0);
    assert_true(batch_builder_add(&m.builder, &(batch_row){.ids = ids, .n = LONG, .job = 1}));
    assert_int_equal(m.batch->tokens.n_jobs, 2);
    assert_int_equal(m.batch->tokens.job_begin[1], 0);
    assert_int_equal(m.batch->tokens.job_begin[2], LONG);
    assert_int_equal(m.batch->tokens.n_grid, 2);
    assert_true(batch_builder_add(&m.builder, &(batch_row){.ids = ids, .n = LONG, .job = 1}));
    assert_false(batch_builder_add(&m.builder, &(batch_row){.ids = ids, .n = LONG, .job = 1}));
    assert_int_equal(m.batch->tokens.n, 2 * LONG);
    assert_true(batch_builder_add(&m.builder, &(batch_row){.ids = ids, .n = 1, .job = 1}));
    assert_false(batch_builder_add(&m.builder, &(batch_row){.ids = ids, .n = 1, .job = 1}));
    model_case_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_blocks_keep_changes_no_bit),
        cmocka_unit_test(labelled_rows_alone_give_the_same_gradients),
        cmocka_unit_test(packed_equals_one_by_one),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(layouts_need_shapes_only),
        cmocka_unit_test(blocks_below_the_lowest_trained_keep_nothing),
        cmocka_unit_test(a_step_too_large_for_the_address_space),
        cmocka_unit_test(tokens_in_pieces_give_the_logits_of_the_row),
        cmocka_unit_test(token_outside_the_embedding),
        cmocka_unit_test(rows_that_do_not_fit_the_builder),
    };
    return cmocka_run_group_tests_name("model_step", tests, NULL, NULL);
}
