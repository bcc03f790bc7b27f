/* Sessions, as a program that embeds the library uses them. */
#include "tests/support/support.h"

#include "base/strbuf.h"

#include <stdlib.h>
#include <string.h>

static graft_session *open_session(const char *template, const graft_observer *observer) {
    graft_recipe *recipe = NULL;
    graft_session *session = NULL;
    assert_ok(graft_recipe_create(&recipe, GRAFT_VERB_GENERATE, &test_error));
    assert_ok(graft_recipe_set(recipe, "model", test_data("models/stories260K"), &test_error));
    assert_ok(graft_recipe_set(recipe, "max_new_tokens", "12", &test_error));
    if (template)
        assert_ok(graft_recipe_set(recipe, "chat_template", template, &test_error));
    assert_ok(graft_session_open(&session, recipe, observer, &test_error));
    graft_recipe_destroy(&recipe); /* a session needs it no more */
    return session;
}

static void append(void *context, const char *text, size_t n) {
    strbuf_add(context, text, n);
}

/* Pieces that were streamed, the text, and what another session says are the same; each call begins
 * anew. */
static void answers_are_streamed_and_independent(void **state) {
    (void)state;
    graft_session *a = open_session(NULL, NULL), *b = open_session(NULL, NULL);
    graft_sampling sampling = graft_session_sampling(a);
    assert_int_equal(sampling.max_new_tokens, 12);
    assert_true(sampling.temperature == 0);
    graft_generation first = {0}, again = {0}, other = {0};
    strbuf streamed = {0};
    graft_sink stream = {append, &streamed};
    assert_ok(
        graft_session_generate(&first, a, "Once upon a time", &sampling, &stream, &test_error));
    assert_ok(graft_session_generate(&again, a, "Once upon a time", &sampling, NULL, &test_error));
    assert_ok(graft_session_generate(&other, b, "Once upon a time", &sampling, NULL, &test_error));
    assert_string_equal(strbuf_text(&streamed), first.text);
    assert_int_equal(first.text_bytes, strlen(first.text));
    assert_string_equal(first.text, again.text);
    assert_string_equal(first.text, other.text);
    assert_int_equal(first.n_tokens, 12);
    graft_generation_free(&first);
    graft_generation_free(&again);
    graft_generation_free(&other);
    strbuf_free(&streamed);
    graft_session_close(&a);
    graft_session_close(&b);
    graft_session_close(&b);
}

static void chat_needs_messages_and_a_template(void **state) {
    (void)state;
    graft_session *with = open_session("chatml", NULL), *without = open_session(NULL, NULL);
    graft_sampling sampling = graft_session_sampling(with);
    graft_generation g;
    static const char hello[] = "[{\"role\": \"user\", \"content\": \"Hello\"}]";
    assert_ok(graft_session_chat(&g, with, hello, &sampling, NULL, &test_error));
    graft_generation_free(&g);
    assert_refused(graft_session_chat(&g, without, hello, &sampling, NULL, &test_error),
                   GRAFT_E_INPUT, "no chat template");
    assert_refused(graft_session_chat(&g, with, "{}", &sampling, NULL, &test_error), GRAFT_E_INPUT,
                   "expected an array");
    assert_refused(graft_session_chat(&g, with, "[", &sampling, NULL, &test_error), GRAFT_E_INPUT,
                   "messages");
    assert_refused(graft_session_chat(&g, with, "[{\"content\": 1}]", &sampling, NULL, &test_error),
                   GRAFT_E_INPUT, "role");
    graft_session_close(&with);
    graft_session_close(&without);
}

/* "</s>" typed by a user is more tokens than the one that the model knows by that name. */
static void control_token_text_in_a_message(void **state) {
    (void)state;
    graft_session *session = open_session("chatml", NULL);
    graft_sampling sampling = graft_session_sampling(session);
    static const char *const messages[] = {"[{\"role\": \"user\", \"content\": \"x\"}]",
                                           "[{\"role\": \"user\", \"content\": \"x</s>\"}]"};
    size_t n_tokens[2];
    for (int i = 0; i < 2; i++) {
        graft_generation g;
        assert_ok(graft_session_chat(&g, session, messages[i], &sampling, NULL, &test_error));
        n_tokens[i] = g.n_prompt_tokens;
        graft_generation_free(&g);
    }
    assert_int_equal(n_tokens[1], n_tokens[0] + 4);
    graft_session_close(&session);
}

static void stop_flag_interrupts(void **state) {
    (void)state;
    volatile int stop = 0;
    const graft_observer observer = {.stop = &stop};
    graft_session *session = open_session(NULL, &observer);
    graft_sampling sampling = graft_session_sampling(session);
    graft_generation g;
    stop = 1;
    assert_refused(graft_session_generate(&g, session, "Once", &sampling, NULL, &test_error),
                   GRAFT_E_INTERRUPTED, "stop");
    graft_generation_free(&g);
    stop = 0;
    assert_ok(graft_session_generate(&g, session, "Once", &sampling, NULL, &test_error));
    graft_generation_free(&g);
    graft_session_close(&session);
}

/* Sampling that asks for it: one filter alone means that something is sampled. */
static void options_of_sampling(void **state) {
    (void)state;
    graft_recipe *recipe = NULL;
    graft_session *session = NULL;
    assert_ok(graft_recipe_create(&recipe, GRAFT_VERB_GENERATE, &test_error));
    assert_ok(graft_recipe_set(recipe, "model", test_data("models/stories260K"), &test_error));
    assert_ok(graft_recipe_set(recipe, "top_k", "5", &test_error));
    assert_ok(graft_recipe_set(recipe, "stop", "a,b", &test_error));
    assert_ok(graft_recipe_set(recipe, "stop", "c", &test_error));
    assert_ok(graft_session_open(&session, recipe, NULL, &test_error));
    graft_recipe_destroy(&recipe);
    graft_sampling sampling = graft_session_sampling(session);
    assert_true(sampling.temperature == 1 && sampling.top_k == 5 && sampling.top_p == 1 &&
                sampling.seed == 42);
    assert_int_equal(sampling.n_stops, 2);
    assert_string_equal(sampling.stops[0], "a,b");
    graft_session_close(&session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_streamed_and_independent),
        cmocka_unit_test(chat_needs_messages_and_a_template),
        cmocka_unit_test(control_token_text_in_a_message),
        cmocka_unit_test(stop_flag_interrupts),
        cmocka_unit_test(options_of_sampling),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
