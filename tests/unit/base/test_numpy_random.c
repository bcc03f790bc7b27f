/* np.random.default_rng(seed) of NumPy 2, draw for draw. Expected values: random_raw(3),
 * integers(0, 2**32, 4, dtype=np.uint32), choice(128, 8, replace=False),
 * default_rng(5000000000).choice(20000, 500, replace=False)[:4], shuffle(np.arange(10)), each of a
 * new default_rng(42) where no other is named. */
#include "base/numpy_random.h"
#include "tests/support/support.h"

static void words_are_pcg64s(void **state) {
    (void)state;
    numpy_random r;
    numpy_random_seed(&r, 42);
    assert_true(numpy_random_u64(&r) == 14276969152011380360U);
    assert_true(numpy_random_u64(&r) == 8095878257575067585U);
    assert_true(numpy_random_u64(&r) == 15838336090824644132U);
    static const uint32_t halves[] = {383329928, 3324115917, 2811363265, 1884968545};
    numpy_random_seed(&r, 42);
    for (int i = 0; i < 4; i++)
        assert_true(numpy_random_u32(&r) == halves[i]);
}

static void choices_are_numpys(void **state) {
    (void)state;
    static const int64_t few[] = {126, 89, 108, 80, 124, 54, 10, 94},
                         many[] = {97, 6661, 8326, 15334};
    int64_t out[500];
    numpy_random r;
    numpy_random_seed(&r, 42);
    assert_ok(numpy_random_choice(&r, out, 8, 128, &test_error));
    assert_memory_equal(out, few, sizeof few);
    numpy_random_seed(&r, 5000000000U);
    assert_ok(numpy_random_choice(&r, out, 500, 20000, &test_error));
    assert_memory_equal(out, many, sizeof many);
}

static void shuffles_are_numpys(void **state) {
    (void)state;
    static const int64_t expected[] = {5, 6, 0, 7, 3, 2, 4, 9, 1, 8};
    int64_t values[10];
    numpy_random r;
    for (int64_t i = 0; i < 10; i++)
        values[i] = i;
    numpy_random_seed(&r, 42);
    numpy_random_shuffle(&r, values, 10);
    assert_memory_equal(values, expected, sizeof expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_pcg64s),
        cmocka_unit_test(choices_are_numpys),
        cmocka_unit_test(shuffles_are_numpys),
    };
    return cmocka_run_group_tests_name("numpy_random", tests, NULL, NULL);
}
