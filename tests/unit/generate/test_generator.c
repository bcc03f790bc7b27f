/* Generation with a trained model, and a model's generation_config.json. */
#include "tests/parity/model_case.h"

#include "base/file_map.h"
#include "generate/generation_config.h"
#include "generate/generator.h"
#include "text/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 200 };

typedef struct written {
    int32_t ids[2 * STEPS];
    int n, end_after; /* 0: never */
} written;

static bool keep_token(void *context, int32_t id) {
    written *w = context;
    w->ids[w->n++] = id;
    return w->n != w->end_after;
}

static void open_stories(model_case *m, int backend_kind) {
    model_case_open(m, test_backend(backend_kind), test_data("models/stories260K"), "config.json");
    model_hooks_finish(&m->hooks, &m->spec);
}

static generate_result generate(model_case *m, written *w, generate_request request) {
    generator *g = NULL;
    generate_result result;
    model_run run = model_case_run(m);
    assert_ok(generator_create(&g, &run, &test_error));
    memset(w, 0, sizeof *w);
    w->end_after = (int)(intptr_t)request.context;
    request.on_token = keep_token;
    request.context = w;
    assert_ok(generator_run(&result, g, &request, &test_error));
    generator_destroy(&g);
    return result;
}

static const int32_t bos = 1;
static const generate_request greedy = {.prompt = &bos,
                                        .n_prompt = 1,
                                        .max_new_tokens = STEPS,
                                        .sampling = {.top_p = 1, .repetition_penalty = 1}};

/* 200 steps from BOS write expected_greedy_200.txt, as the reference program does. */
static void check_greedy(int backend_kind) {
    static model_case m;
    written w;
    tokenizer *t = NULL;
    strbuf text = {0};
    char *expected;
    size_t n;
    open_stories(&m, backend_kind);
    generate_result result = generate(&m, &w, greedy);
    assert_int_equal(result.n_tokens, STEPS);
    assert_int_equal(result.reason, FINISH_LENGTH);
    assert_ok(tokenizer_load(&t, test_data("models/stories260K"), NULL, &test_error));
    assert_ok(tokenizer_decode(t, &text, w.ids, STEPS, true, &test_error));
    assert_ok(file_read_all(&expected, &n, test_data("models/stories260K/expected_greedy_200.txt"),
                            1 << 20, &test_error));
    while (n > 0 && expected[n - 1] == '\n')
        expected[--n] = '\0';
    assert_string_equal(strbuf_text(&text), expected);
    free(expected);
    strbuf_free(&text);
    tokenizer_destroy(&t);
    model_case_close(&m);
}

static void greedy_200_tokens_of_stories(void **state) {
    (void)state;
    for (int kind = 0; kind < BACKENDS; kind++)
        check_greedy(kind);
}

/* A prompt longer than the pieces it is read in, and the tokens after it, are those of reading it
 * token by token. */
static void a_long_prompt_goes_on_as_if_it_had_been_written(void **state) {
    (void)state;
    static model_case m;
    written whole, rest;
    int32_t prompt[301] = {1};
    open_stories(&m, 1);
    generate_request request = greedy;
    request.max_new_tokens = 320;
    generate(&m, &whole, request);
    memcpy(prompt + 1, whole.ids, 300 * sizeof *prompt);
    request.prompt = prompt;
    request.n_prompt = 301;
    request.max_new_tokens = 20;
    generate(&m, &rest, request);
    assert_memory_equal(rest.ids, whole.ids + 300, 20 * sizeof *rest.ids);
    model_case_close(&m);
}

static void how_answers_end(void **state) {
    (void)state;
    static model_case m;
    written first, w;
    open_stories(&m, 1);
    generate(&m, &first, greedy);
    generate_request request = greedy;
    const int32_t eos = first.ids[5];
    int before = 0;
    while (first.ids[before] != eos)
        before++;
    request.eos = &eos;
    request.n_eos = 1;
    generate_result result = generate(&m, &w, request);
    assert_int_equal(result.reason, FINISH_STOP);
    assert_int_equal(result.n_tokens, before);

    request = greedy;
    request.context = (void *)(intptr_t)3;
    result = generate(&m, &w, request);
    assert_int_equal(result.reason, FINISH_STOP);
    assert_int_equal(result.n_tokens, 3);
    model_case_close(&m);
}

static void the_context_is_a_limit(void **state) {
    (void)state;
    static model_case m;
    written w;
    static int32_t prompt[513];
    generator *g = NULL;
    generate_result result;
    open_stories(&m, 1);
    for (int i = 0; i < 513; i++)
        prompt[i] = 1 + i % 400;
    generate_request request = greedy;
    request.prompt = prompt;
    request.n_prompt = 500;
    result = generate(&m, &w, request);
    assert_int_equal(result.n_tokens, 12);
    assert_int_equal(result.reason, FINISH_LENGTH);
    model_run run = model_case_run(&m);
    assert_ok(generator_create(&g, &run, &test_error));
    request.n_prompt = 513;
    assert_refused(generator_run(&result, g, &request, &test_error), GRAFT_E_INPUT, "512");
    request.n_prompt = 0;
    assert_refused(generator_run(&result, g, &request, &test_error), GRAFT_E_INPUT, "empty");
    generator_destroy(&g);
    model_case_close(&m);
}

/* One generator may write several answers: nothing of the first is left in the second. */
static void answers_do_not_see_each_other(void **state) {
    (void)state;
    static model_case m;
    written a, b;
    generator *g = NULL;
    generate_result result;
    open_stories(&m, 1);
    model_run run = model_case_run(&m);
    assert_ok(generator_create(&g, &run, &test_error));
    generate_request request = greedy;
    request.on_token = keep_token;
    request.sampling.temperature = 0.8;
    request.sampling.repetition_penalty = 1.1;
    request.max_new_tokens = 40;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    request.context = &a;
    assert_ok(generator_run(&result, g, &request, &test_error));
    request.context = &b;
    assert_ok(generator_run(&result, g, &request, &test_error));
    assert_memory_equal(a.ids, b.ids, 40 * sizeof *a.ids);
    generator_destroy(&g);
    model_case_close(&m);
}

/* ---- generation_config.json ---- */

static graft_status read_config(generation_config *out, const char *text) {
    const model_spec spec = {.n_eos = 1, .eos_ids = {2}};
    if (text)
        test_file("generation_config.json", text, strlen(text));
    return generation_config_read(out, test_folder(), &spec, &test_error);
}

static void generation_config_says_what_to_do(void **state) {
    (void)state;
    generation_config c;
    assert_ok(read_config(&c, NULL));
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 2);
    test_assert_near(c.sampling.temperature, 0, 0, 0, "temperature");
    test_assert_near(c.sampling.top_p, 1, 0, 0, "top_p");

    assert_ok(read_config(&c,
                          "{\"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.9,"
                          " \"eos_token_id\": [128001, 128009], \"repetition_penalty\": 1.05}"));
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[1], 128009);
    assert_int_equal(c.sampling.top_k, 50);
    test_assert_near(c.sampling.temperature, 0.6, 0, 0, "temperature");
    test_assert_near(c.sampling.repetition_penalty, 1.05, 0, 0, "repetition_penalty");

    assert_ok(read_config(&c, "{\"temperature\": 0.6, \"eos_token_id\": 7}"));
    test_assert_near(c.sampling.temperature, 0, 0, 0, "temperature without do_sample");
    assert_int_equal(c.eos[0], 7);
}

static void generation_config_out_of_range(void **state) {
    (void)state;
    generation_config c;
    assert_refused(read_config(&c, "{\"top_p\": 1.5}"), GRAFT_E_INPUT, "top_p");
    assert_refused(read_config(&c, "{\"temperature\": -1}"), GRAFT_E_INPUT, "temperature");
    assert_refused(read_config(&c, "{\"repetition_penalty\": 0}"), GRAFT_E_INPUT,
                   "repetition_penalty");
    assert_refused(read_config(&c, "{\"eos_token_id\": [\"x\"]}"), GRAFT_E_INPUT, "eos_token_id");
    assert_refused(read_config(&c, "{\"top_k\": 1.5}"), GRAFT_E_INPUT, "top_k");
    assert_refused(read_config(&c, "[1]"), GRAFT_E_INPUT, "generation_config.json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generation_config_says_what_to_do),
        cmocka_unit_test(generation_config_out_of_range),
        cmocka_unit_test(greedy_200_tokens_of_stories),
        cmocka_unit_test(a_long_prompt_goes_on_as_if_it_had_been_written),
        cmocka_unit_test(how_answers_end),
        cmocka_unit_test(the_context_is_a_limit),
        cmocka_unit_test(answers_do_not_see_each_other),
    };
    return cmocka_run_group_tests_name("generator", tests, NULL, NULL);
}
