#include "backend/ops.h"
#include "base/rng.h"
#include "tests/support/support.h"

static void words_are_philox_of_their_place(void **state) {
    (void)state;
    const uint32_t counter[4] = {5, 77, 0x89ABCDEFu, 0x01234567u};
    const uint32_t key[2] = {0x9E3779B9u, 0xDEADBEEFu};
    uint32_t want[4], got[4];
    philox4x32(want, counter, key);
    dropout_words(got, 0xDEADBEEF9E3779B9u, 77, 0x0123456789ABCDEFu, 5);
    assert_memory_equal(got, want, sizeof want);
}

static void thresholds_span_the_words(void **state) {
    (void)state;
    assert_int_equal(dropout_threshold(0), 0);
    assert_int_equal(dropout_threshold(0.5f), 0x80000000u);
    assert_int_equal(dropout_threshold(1), UINT32_MAX);
}

static void the_kept_share_is_one_minus_p(void **state) {
    (void)state;
    enum { BLOCKS = 100000 };
    const float p = 0.1f;
    int kept = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t words[4];
        dropout_words(words, 42, 3, 1000, i);
        for (int j = 0; j < 4; j++)
            kept += words[j] >= dropout_threshold(p);
    }
    /* Five standard deviations of a share of 0.9 in 400,000 draws. */
    test_assert_near((double)kept / (4 * BLOCKS), 0.9, 0.0024, 0, "kept share");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_philox_of_their_place),
        cmocka_unit_test(thresholds_span_the_words),
        cmocka_unit_test(the_kept_share_is_one_minus_p),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
