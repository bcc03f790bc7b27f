/* Choosing tokens. Expected sets were taken from Transformers' logits processors. */
#include "tests/support/support.h"

#include "generate/sampling.h"

#include <math.h>
#include <string.h>

enum { VOCAB = 8, DRAWS = 4000 };

/* Probabilities 0.30 0.25 0.20 0.10 0.06 0.05 0.03 0.01, in another order of ids. */
static const float logits[VOCAB] = {-2.3025851f, -1.2039728f, -3.5065579f, -1.3862944f,
                                    -4.6051702f, -1.6094379f, -2.8134107f, -2.9957323f};

static const sampling_options plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

static int32_t choose(token_sampler *s, const sampling_options *options, rng *random) {
    float copy[VOCAB];
    memcpy(copy, logits, sizeof copy);
    return token_sampler_choose(s, copy, options, random);
}

/* Which tokens come up in many draws, as bits. */
static unsigned drawn_set(const sampling_options *options) {
    token_sampler s;
    rng random = rng_create(3, 0);
    unsigned set = 0;
    assert_ok(token_sampler_create(&s, VOCAB, &test_error));
    for (int i = 0; i < DRAWS; i++)
        set |= 1u << choose(&s, options, &random);
    token_sampler_free(&s);
    return set;
}

static void draws_follow_the_probabilities(void **state) {
    (void)state;
    token_sampler s;
    rng random = rng_create(17, 0);
    int counts[VOCAB] = {0};
    assert_ok(token_sampler_create(&s, VOCAB, &test_error));
    for (int i = 0; i < 10 * DRAWS; i++)
        counts[choose(&s, &plain, &random)]++;
    for (int i = 0; i < VOCAB; i++) {
        double p = exp((double)logits[i]), deviation = sqrt(p * (1 - p) / (10 * DRAWS));
        test_assert_near(counts[i] / (10.0 * DRAWS), p, 4 * deviation, 0, "share of draws");
    }
    token_sampler_free(&s);
}

static void each_filter_keeps_what_transformers_keeps(void **state) {
    (void)state;
    sampling_options o = plain;
    o.top_k = 3;
    assert_int_equal(drawn_set(&o), 1u << 1 | 1u << 3 | 1u << 5);
    o = plain;
    o.top_p = 0.7; /* 0.30 + 0.25 + 0.20 */
    assert_int_equal(drawn_set(&o), 1u << 1 | 1u << 3 | 1u << 5);
    o = plain;
    o.top_p = 0;
    assert_int_equal(drawn_set(&o), 1u << 1);
    o = plain;
    o.min_p = 0.32; /* of 0.30: 0.096 */
    assert_int_equal(drawn_set(&o), 1u << 1 | 1u << 3 | 1u << 5 | 1u << 0);
    o = plain;
    o.top_k = 1;
    assert_int_equal(drawn_set(&o), 1u << 1);
}

/* top-p looks at what top-k left, made to sum to 1 again: 0.30 and 0.25 of 0.75 are 0.73 of it. */
static void filters_follow_each_other(void **state) {
    (void)state;
    sampling_options o = plain;
    o.top_k = 3;
    o.top_p = 0.7;
    assert_int_equal(drawn_set(&o), 1u << 1 | 1u << 3);
}

static void tokens_as_likely_as_the_kth_stay(void **state) {
    (void)state;
    token_sampler s;
    rng random = rng_create(3, 0);
    const sampling_options o = {.temperature = 1, .top_k = 2, .top_p = 1, .repetition_penalty = 1};
    unsigned set = 0;
    assert_ok(token_sampler_create(&s, 4, &test_error));
    for (int i = 0; i < 400; i++) {
        float four[4] = {1, 2, 1, 0};
        set |= 1u << token_sampler_choose(&s, four, &o, &random);
    }
    assert_int_equal(set, 1u | 1u << 1 | 1u << 2);
    token_sampler_free(&s);
}

static void repetition_penalty_of_positive_and_negative_logits(void **state) {
    (void)state;
    token_sampler s;
    rng random = rng_create(3, 0);
    const sampling_options greedy = {.top_p = 1, .repetition_penalty = 2};
    float values[4] = {1.5f, 2.0f, -1.0f, -3.0f};
    assert_ok(token_sampler_create(&s, 4, &test_error));
    token_sampler_see(&s, 1);
    token_sampler_see(&s, 1);
    token_sampler_see(&s, 2);
    token_sampler_see(&s, 99);
    assert_int_equal(token_sampler_choose(&s, values, &greedy, &random), 0);
    test_assert_near((double)values[1], 1, 0, 0, "positive");
    test_assert_near((double)values[2], -2, 0, 0, "negative");
    token_sampler_reset(&s);
    values[1] = 2;
    assert_int_equal(token_sampler_choose(&s, values, &greedy, &random), 1);
    token_sampler_free(&s);
}

static void greedy_takes_the_first_of_equals(void **state) {
    (void)state;
    token_sampler s;
    rng random = rng_create(3, 0);
    const sampling_options greedy = {.top_k = 5, .top_p = 0.1, .repetition_penalty = 1};
    float values[4] = {0, 7, 7, 1};
    assert_ok(token_sampler_create(&s, 4, &test_error));
    assert_int_equal(token_sampler_choose(&s, values, &greedy, &random), 1);
    token_sampler_free(&s);
}

static void logits_that_are_not_finite(void **state) {
    (void)state;
    token_sampler s;
    rng random = rng_create(3, 0);
    const sampling_options greedy = {.top_p = 1, .repetition_penalty = 1};
    float nan_among[4] = {0, 7, NAN, 1}, infinite[4] = {0, INFINITY, 2, 1}, minus[4];
    assert_ok(token_sampler_create(&s, 4, &test_error));
    for (int i = 0; i < 4; i++)
        minus[i] = -INFINITY;
    assert_int_equal(token_sampler_choose(&s, nan_among, &greedy, &random), -1);
    assert_int_equal(token_sampler_choose(&s, nan_among, &plain, &random), -1);
    assert_int_equal(token_sampler_choose(&s, infinite, &plain, &random), -1);
    assert_int_equal(token_sampler_choose(&s, minus, &greedy, &random), -1);
    token_sampler_free(&s);
}

static void a_seed_repeats_its_draws(void **state) {
    (void)state;
    token_sampler s;
    rng a = rng_create(5, 1), b = rng_create(5, 1), c = rng_create(6, 1);
    int differ = 0;
    assert_ok(token_sampler_create(&s, VOCAB, &test_error));
    for (int i = 0; i < 100; i++) {
        int32_t first = choose(&s, &plain, &a);
        assert_int_equal(first, choose(&s, &plain, &b));
        differ += first != choose(&s, &plain, &c);
    }
    assert_true(differ > 10);
    token_sampler_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(each_filter_keeps_what_transformers_keeps),
        cmocka_unit_test(filters_follow_each_other),
        cmocka_unit_test(tokens_as_likely_as_the_kth_stay),
        cmocka_unit_test(repetition_penalty_of_positive_and_negative_logits),
        cmocka_unit_test(greedy_takes_the_first_of_equals),
        cmocka_unit_test(logits_that_are_not_finite),
        cmocka_unit_test(a_seed_repeats_its_draws),
    };
    return cmocka_run_group_tests_name("sampling", tests, NULL, NULL);
}
