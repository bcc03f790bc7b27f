/* PyTorch's generator, draw for draw: tests/fixtures/base/make_torch_random.py. */
#include "tests/support/support.h"

#include "base/torch_random.h"
#include "formats/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static safetensors *expected;
static torch_random generator;

static const void *expect(const char *name, size_t n) {
    tensor_view view;
    if (!safetensors_find(&view, expected, name))
        fail_msg("torch_random.safetensors lacks %s", name);
    assert_int_equal(tensor_count(&view), n);
    return view.data;
}

/* Short draws are kept whole, long ones by their first and last 32. */
static void check(const char *name, const void *drawn, size_t n, size_t element) {
    const unsigned char *bytes = drawn;
    size_t kept = n <= 64 ? n : 64;
    const unsigned char *want = expect(name, kept);
    if (n <= 64) {
        if (memcmp(bytes, want, n * element) != 0)
            fail_msg("%s differs", name);
        return;
    }
    if (memcmp(bytes, want, 32 * element) != 0)
        fail_msg("the head of %s differs", name);
    if (memcmp(bytes + (n - 32) * element, want + 32 * element, 32 * element) != 0)
        fail_msg("the tail of %s differs", name);
}

static void check_integers(const char *name, int64_t n, int64_t low, int64_t high) {
    int64_t drawn[64];
    torch_random_integers(&generator, drawn, n, low, high);
    check(name, drawn, (size_t)n, sizeof *drawn);
}

static void check_permutation(const char *name, int64_t n) {
    int64_t *drawn = calloc((size_t)n, sizeof *drawn);
    assert_non_null(drawn);
    assert_ok(torch_random_permutation(&generator, drawn, n, n, &test_error));
    check(name, drawn, (size_t)n, sizeof *drawn);
    free(drawn);
}

static void check_normal(const char *name, int64_t n, double mean, double deviation) {
    float *drawn = calloc((size_t)n, sizeof *drawn);
    assert_non_null(drawn);
    torch_random_normal(&generator, drawn, n, mean, deviation);
    check(name, drawn, (size_t)n, sizeof *drawn);
    free(drawn);
}

/* The sum in double of many draws, all bits of each of which count. */
static void check_normal_sum(const char *name, int64_t n) {
    float *drawn = calloc((size_t)n, sizeof *drawn);
    assert_non_null(drawn);
    torch_random_normal(&generator, drawn, n, 0, 1);
    double sum = 0, want;
    for (int64_t i = 0; i < n; i++)
        sum += (double)drawn[i];
    memcpy(&want, expect(name, 1), sizeof want);
    test_assert_near(sum, want, 1e-9, 0, name);
    free(drawn);
}

static void check_kaiming(const char *name, int64_t n, int64_t fan_in, double a) {
    float *drawn = calloc((size_t)n, sizeof *drawn);
    assert_non_null(drawn);
    torch_random_kaiming_uniform(&generator, drawn, n, fan_in, a);
    check(name, drawn, (size_t)n, sizeof *drawn);
    free(drawn);
}

static void one_stream_draws_as_torch_does(void **state) {
    (void)state;
    torch_random_seed(&generator, 777);
    check_integers("ints_small", 16, 0, 1000);
    check_integers("ints_negative", 8, -5, ((int64_t)1 << 28) - 6);
    check_integers("ints_wide", 8, 0, (int64_t)1 << 28);
    check_integers("ints_huge", 8, -((int64_t)1 << 40), (int64_t)1 << 50);
    check_permutation("perm_1", 1);
    check_permutation("perm_50", 50);
    check_permutation("perm_5000", 5000);
    float drawn[33];
    torch_random_uniform(&generator, drawn, 33, -0.3, 1.7);
    check("uniform", drawn, 33, sizeof *drawn);
    torch_random_uniform(&generator, drawn, 5, 0, 1);
    check("rand", drawn, 5, sizeof *drawn);
    check_normal("normal_3", 3, 0.5, 2);
    check_normal("normal_15", 15, 0, 1);
    check_normal("normal_16", 16, 0, 1);
    check_normal("normal_41", 41, -1, 0.25);
    check_normal("normal_4099", 4099, 0, 1);
    check_normal("normal_100000", 100000, 0, 1);
    check_normal_sum("normal_sum", 1 << 18);
    check_kaiming("kaiming", 2800, 70, 0);
    check_kaiming("kaiming_sqrt5", 840, 35, sqrt(5));
    check_integers("after", 4, 0, 1000);
}

static void heads_of_permutations(void **state) {
    (void)state;
    int64_t head[64];
    torch_random_seed(&generator, (uint64_t)-1);
    assert_ok(torch_random_permutation(&generator, head, 64, 100000, &test_error));
    check("head_seed_-1", head, 64, sizeof *head);
    torch_random_seed(&generator, ((uint64_t)1 << 40) + 3);
    assert_ok(torch_random_permutation(&generator, head, 64, 12345678, &test_error));
    check("head_seed_2_40", head, 64, sizeof *head);
    assert_ok(torch_random_permutation(&generator, head, 0, 0, &test_error));
}

static int open_fixture(void **state) {
    (void)state;
    return safetensors_open(&expected, test_fixture("base/torch_random.safetensors"),
                            &test_error) == GRAFT_OK
               ? 0
               : -1;
}

static int close_fixture(void **state) {
    (void)state;
    safetensors_close(&expected);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_stream_draws_as_torch_does),
        cmocka_unit_test(heads_of_permutations),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
