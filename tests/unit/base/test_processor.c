#include "tests/support/support.h"

#include "base/clock.h"
#include "base/cpu_features.h"

#include <stdio.h>
#include <string.h>

static void detection_agrees_with_the_kernel(void **state) {
    (void)state;
    cpu_features found = cpu_features_detect();
    assert_true(found.threads >= 1 && found.cores >= 1 && found.cores <= found.threads);
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        skip();
    char line[8192] = "";
    while (fgets(line, sizeof line, file) && strncmp(line, "flags", 5))
        ;
    fclose(file);
    if (strncmp(line, "flags", 5))
        skip();
    line[strcspn(line, "\n")] = ' '; /* every flag has a blank after it */
    assert_int_equal(found.avx2, strstr(line, " avx2 ") && strstr(line, " fma "));
    assert_int_equal(found.f16c, strstr(line, " f16c ") != NULL);
    assert_int_equal(found.avx512, strstr(line, " avx512f ") && strstr(line, " avx512bw ") &&
                                       strstr(line, " avx512vl ") && strstr(line, " avx512dq "));
    assert_int_equal(found.avx512_vnni, strstr(line, " avx512_vnni ") != NULL);
    assert_int_equal(found.avx512_bf16, strstr(line, " avx512_bf16 ") != NULL);
    assert_int_equal(found.amx_tile, strstr(line, " amx_tile ") != NULL);
    assert_int_equal(found.amx_int8, strstr(line, " amx_int8 ") != NULL);
    assert_int_equal(found.amx_bf16, strstr(line, " amx_bf16 ") != NULL);
    if (found.amx_tile)
        assert_true(cpu_features_request_amx());
}

static void masks_keep_what_is_named_and_there(void **state) {
    (void)state;
    cpu_features features = {.avx2 = true, .avx512 = true, .avx512_vnni = true, .threads = 4};
    assert_true(cpu_features_mask(&features, "avx2,f16c,avx512_vnni", &test_error));
    assert_true(features.avx2 && features.avx512_vnni);
    assert_false(features.avx512 || features.f16c);
    assert_int_equal(features.threads, 4);
    assert_true(cpu_features_mask(&features, "none", &test_error));
    for (size_t i = 0; cpu_features_name(i); i++)
        assert_false(cpu_features_has(&features, i));
}

static void unknown_processor_feature(void **state) {
    (void)state;
    static const char *const lists[] = {"avx3", "avx2,", "", "avx2 ", "avx2,no", "AVX2"};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        cpu_features features = {.avx2 = true};
        assert_false(cpu_features_mask(&features, lists[i], &test_error));
        assert_true(features.avx2);
        assert_int_equal(test_error.code, GRAFT_E_USAGE);
        assert_non_null(strstr(test_error.message,
                               "known are: none, avx2, f16c, avx512, avx512_vnni, "
                               "avx512_bf16, amx_tile, amx_bf16, amx_int8"));
    }
}

static void clocks_go_on(void **state) {
    (void)state;
    double before = clock_seconds();
    assert_true(clock_seconds() >= before);
    char text[CLOCK_TEXT_BYTES];
    clock_text(text);
    int year, month, day, hour, minute, second, end = 0;
    assert_int_equal(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &year, &month, &day, &hour, &minute,
                            &second, &end),
                     6);
    assert_int_equal(end, 20);
    assert_true(year >= 2024);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(detection_agrees_with_the_kernel),
        cmocka_unit_test(masks_keep_what_is_named_and_there),
        cmocka_unit_test(unknown_processor_feature),
        cmocka_unit_test(clocks_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
