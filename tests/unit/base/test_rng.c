#include "tests/support/support.h"

#include "base/rng.h"

#include <math.h>

/* The known answers that come with Random123, the authors' own library. */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } cases[] = {
        {{0}, {0}, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
        {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {UINT32_MAX, UINT32_MAX},
         {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
        {{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344},
         {0xA4093822, 0x299F31D0},
         {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t out[4];
        philox4x32(out, cases[i].counter, cases[i].key);
        assert_memory_equal(out, cases[i].expected, sizeof out);
    }
}

static void state_is_position(void **state) {
    (void)state;
    rng a = rng_create(7, 3);
    uint32_t words[9];
    for (int i = 0; i < 9; i++)
        words[i] = rng_u32(&a);
    rng b = {.seed = 7, .stream = 3, .position = 5};
    for (int i = 5; i < 9; i++)
        assert_int_equal(rng_u32(&b), words[i]);
    rng other = rng_create(7, 4);
    assert_int_not_equal(rng_u32(&other), words[0]);
}

static void bounded_numbers_are_even(void **state) {
    (void)state;
    enum { BINS = 7, DRAWS = 70000 };
    rng r = rng_create(1, 0);
    int counts[BINS] = {0};
    for (int i = 0; i < DRAWS; i++)
        counts[rng_below(&r, BINS)]++;
    for (int i = 0; i < BINS; i++)
        test_assert_near(counts[i], DRAWS / BINS, 500, 0, "draws of one number");
    for (int i = 0; i < 100; i++)
        assert_int_equal(rng_below(&r, 1), 0);
    assert_true(rng_below(&r, UINT64_MAX) < UINT64_MAX);
}

static void uniform_and_normal_have_their_moments(void **state) {
    (void)state;
    enum { DRAWS = 200000 };
    rng r = rng_create(2, 0);
    double sum = 0, square = 0, normal_sum = 0, normal_square = 0, normal_fourth = 0;
    for (int i = 0; i < DRAWS; i++) {
        double u = rng_uniform(&r), z = rng_normal(&r);
        assert_true(u >= 0 && u < 1);
        sum += u;
        square += u * u;
        normal_sum += z;
        normal_square += z * z;
        normal_fourth += z * z * z * z;
    }
    test_assert_near(sum / DRAWS, 0.5, 0.003, 0, "uniform mean");
    test_assert_near(square / DRAWS, 1.0 / 3, 0.003, 0, "uniform square");
    test_assert_near(normal_sum / DRAWS, 0, 0.01, 0, "normal mean");
    test_assert_near(normal_square / DRAWS, 1, 0.015, 0, "normal variance");
    test_assert_near(normal_fourth / DRAWS, 3, 0.12, 0, "normal fourth moment");
    rng before = rng_create(2, 0);
    rng_normal(&before);
    assert_int_equal(before.position, 4);
}

static void shuffles_are_permutations(void **state) {
    (void)state;
    enum { N = 100 };
    uint64_t values[N];
    bool seen[N] = {false};
    for (uint64_t i = 0; i < N; i++)
        values[i] = i;
    rng r = rng_create(3, 0);
    rng_shuffle(&r, values, N);
    int fixed = 0;
    for (size_t i = 0; i < N; i++) {
        assert_false(seen[values[i]]);
        seen[values[i]] = true;
        fixed += values[i] == i;
    }
    assert_true(fixed < 10);
    rng_shuffle(&r, values, 0);
    rng_shuffle(&r, values, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(state_is_position),
        cmocka_unit_test(bounded_numbers_are_even),
        cmocka_unit_test(uniform_and_normal_have_their_moments),
        cmocka_unit_test(shuffles_are_permutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
