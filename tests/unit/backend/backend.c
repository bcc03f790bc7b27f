#include "backend/ops.h"
#include "base/layout.h"
#include "tests/support/support.h"

#include <string.h>

static backend *cpu(int32_t n_threads) {
    backend *dev;
    cpu_features features = cpu_features_detect();
    assert_ok(backend_create_cpu(&dev, n_threads, &features, &test_error));
    return dev;
}

static void a_backend_says_what_it_is(void **state) {
    (void)state;
    backend *dev = cpu(3), *reference;
    assert_string_equal(dev->name, "cpu");
    assert_int_equal(dev->element, DTYPE_F32);
    assert_int_equal(dev->element_bytes, sizeof(float));
    assert_int_equal(dev->n_threads, 3);
    assert_int_equal(dev->workspace_bytes, backend_cpu_workspace_bytes(3));
    backend_destroy(&dev);
    assert_null(dev);
    dev = cpu(0);
    assert_true(dev->n_threads >= 1);
    assert_int_equal(dev->workspace_bytes, backend_cpu_workspace_bytes(0));
    backend_destroy(&dev);
    assert_ok(backend_create_reference(&reference, &test_error));
    assert_string_equal(reference->name, "reference");
    assert_int_equal(reference->element, DTYPE_F64);
    assert_int_equal(reference->element_bytes, sizeof(double));
    backend_destroy(&reference);
    backend_destroy(&reference);
    backend_destroy(NULL);
}

static void masked_features_choose_slower_kernels(void **state) {
    (void)state;
    cpu_features none = {0};
    assert_string_equal(backend_cpu_kernels(&none), "portable");
#if defined(__x86_64__)
    cpu_features some = {.avx2 = true, .f16c = true};
    assert_string_equal(backend_cpu_kernels(&some), "avx2");
    some.f16c = false; /* the AVX2 files use it */
    assert_string_equal(backend_cpu_kernels(&some), "portable");
    cpu_features all = {.avx2 = true, .f16c = true, .avx512 = true};
    assert_string_equal(backend_cpu_kernels(&all), "avx512");
#endif
}

static void memory_is_aligned_and_zeroed(void **state) {
    (void)state;
    backend *devices[2] = {cpu(2), NULL};
    assert_ok(backend_create_reference(&devices[1], &test_error));
    static const size_t sizes[] = {0, 1, 4095, (size_t)9 << 20};
    for (int d = 0; d < 2; d++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            unsigned char *memory = devices[d]->ops->alloc(devices[d], sizes[i]);
            assert_non_null(memory);
            assert_int_equal((uintptr_t)memory % LAYOUT_ALIGNMENT, 0);
            for (size_t j = 0; j < sizes[i]; j++)
                assert_true(memory[j] == 0);
            devices[d]->ops->release(devices[d], memory);
        }
        assert_null(devices[d]->ops->alloc(devices[d], SIZE_MAX - 10));
        devices[d]->ops->release(devices[d], NULL);
        backend_destroy(&devices[d]);
    }
}

static void handles_are_moved_by_elements(void **state) {
    (void)state;
    backend *devices[2] = {cpu(1), NULL};
    assert_ok(backend_create_reference(&devices[1], &test_error));
    for (int d = 0; d < 2; d++) {
        backend *dev = devices[d];
        device_array *x = dev->ops->alloc(dev, 10 * dev->element_bytes);
        const double values[3] = {1.5, -2, 4};
        dev->ops->upload(dev, array_at(dev, x, 4), values, DTYPE_F64, 3);
        float got[10];
        dev->ops->download(dev, got, x, 10);
        const float want[10] = {0, 0, 0, 0, 1.5f, -2, 4, 0, 0, 0};
        assert_memory_equal(got, want, sizeof want);
        double wide[2];
        dev->ops->download_f64(dev, wide, array_at_const(dev, x, 5), 2);
        assert_true(wide[0] == -2 && wide[1] == 4);
        dev->ops->release(dev, x);
        backend_destroy(&devices[d]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backend_says_what_it_is),
        cmocka_unit_test(masked_features_choose_slower_kernels),
        cmocka_unit_test(memory_is_aligned_and_zeroed),
        cmocka_unit_test(handles_are_moved_by_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
