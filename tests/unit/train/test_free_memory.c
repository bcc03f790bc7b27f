/* What a run may take: made-up /proc and /sys trees. */
#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "train/free_memory.h"

#include <stdio.h>
#include <string.h>

static const char *root_named(const char *name) {
    static char root[256];
    snprintf(root, sizeof root, "%s/%s", test_folder(), name);
    return root;
}

static void put(const char *root, const char *path, const char *text) {
    char full[512], folder[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    snprintf(folder, sizeof folder, "%s", full);
    *strrchr(folder, '/') = '\0';
    assert_ok(folder_create(folder, &test_error));
    assert_ok(file_write_atomic(full, text, strlen(text), &test_error));
}

static const char meminfo[] = "MemTotal:       24000000 kB\nMemFree:         1000 kB\n"
                              "MemAvailable:    8000 kB\n";

static void available_memory_without_groups(void **state) {
    (void)state;
    const char *root = root_named("plain");
    put(root, "/proc/meminfo", meminfo);
    assert_int_equal(free_memory_bytes(root), 8000 * 1024);
}

static void group_v2_limit_of_a_parent_counts(void **state) {
    (void)state;
    const char *root = root_named("v2");
    put(root, "/proc/meminfo", meminfo);
    put(root, "/proc/self/cgroup", "0::/jobs/one\n");
    put(root, "/sys/fs/cgroup/jobs/one/memory.max", "max\n");
    put(root, "/sys/fs/cgroup/jobs/one/memory.current", "1000\n");
    put(root, "/sys/fs/cgroup/jobs/memory.max", "5000000\n");
    put(root, "/sys/fs/cgroup/jobs/memory.current", "3000000\n");
    put(root, "/sys/fs/cgroup/jobs/memory.stat", "anon 5\ninactive_file 500000\nactive_file 1\n");
    assert_int_equal(free_memory_bytes(root), 2500000);
}

static void group_v1_limit_counts(void **state) {
    (void)state;
    const char *root = root_named("v1");
    put(root, "/proc/meminfo", meminfo);
    put(root, "/proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/box\n");
    put(root, "/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "4000000\n");
    put(root, "/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "4100000\n");
    assert_int_equal(free_memory_bytes(root), 0);
}

static void nothing_to_read_means_no_limit(void **state) {
    (void)state;
    assert_int_equal(free_memory_bytes(root_named("nowhere")), INT64_MAX);
}

static void this_machine_has_memory(void **state) {
    (void)state;
    assert_true(free_memory_bytes("") > 1 << 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(available_memory_without_groups),
        cmocka_unit_test(group_v2_limit_of_a_parent_counts),
        cmocka_unit_test(group_v1_limit_counts),
        cmocka_unit_test(nothing_to_read_means_no_limit),
        cmocka_unit_test(this_machine_has_memory),
    };
    return cmocka_run_group_tests_name("free memory", tests, NULL, NULL);
}
