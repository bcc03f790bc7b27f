#include "base/cpu_features.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const struct {
    const char *name;
    size_t offset; /* of its flag in cpu_features */
} sets[] = {
    {"avx2", offsetof(cpu_features, avx2)},
    {"f16c", offsetof(cpu_features, f16c)},
    {"avx512", offsetof(cpu_features, avx512)},
    {"avx512_vnni", offsetof(cpu_features, avx512_vnni)},
    {"avx512_bf16", offsetof(cpu_features, avx512_bf16)},
    {"amx_tile", offsetof(cpu_features, amx_tile)},
    {"amx_bf16", offsetof(cpu_features, amx_bf16)},
    {"amx_int8", offsetof(cpu_features, amx_int8)},
};
enum { N_SETS = sizeof sets / sizeof sets[0] };

const char *cpu_features_name(size_t i) {
    return i < N_SETS ? sets[i].name : NULL;
}

bool cpu_features_has(const cpu_features *features, size_t i) {
    bool has;
    memcpy(&has, (const char *)features + sets[i].offset, sizeof has);
    return has;
}

#if defined(__x86_64__)
static bool bit(unsigned word, int i) {
    return word >> i & 1u;
}

/* Which register files the system saves (XCR0): an instruction set without its registers faults. */
static uint64_t saved_registers(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static void detect_sets(cpu_features *out) {
    enum { SSE_AVX = 0x6, AVX512 = 0xE6, AMX = 0x60000 };
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27) || !bit(c, 28))
        return; /* no XSAVE in use, or no AVX */
    bool fma = bit(c, 12), f16c = bit(c, 29);
    uint64_t saved = saved_registers();
    if ((saved & SSE_AVX) != SSE_AVX || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return;
    unsigned leaf7_subleaves = a;
    out->f16c = f16c;
    out->avx2 = fma && bit(b, 5);
    if ((saved & AVX512) == AVX512) {
        out->avx512 = bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);
        out->avx512_vnni = out->avx512 && bit(c, 11);
    }
    if ((saved & AMX) == AMX) {
        out->amx_tile = bit(d, 24);
        out->amx_bf16 = out->amx_tile && bit(d, 22);
        out->amx_int8 = out->amx_tile && bit(d, 25);
    }
    if (leaf7_subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
        out->avx512_bf16 = out->avx512 && bit(a, 5);
}

static void detect_model(char out[49]) {
    unsigned words[12];
    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                         &words[4 * i + 3]))
            return;
    memcpy(out, words, 48);
    out[48] = '\0';
    size_t spaces = strspn(out, " "), length = strlen(out);
    memmove(out, out + spaces, length - spaces + 1);
}

bool cpu_features_request_amx(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
static void detect_sets(cpu_features *out) {
    (void)out;
}

static void detect_model(char out[49]) {
    out[0] = '\0';
}

bool cpu_features_request_amx(void) {
    return false;
}
#endif

/* The first processor that shares cpu's core, from the kernel's list "0,4" or "0-1"; cpu itself
 * when unknown. */
static int first_sibling(int cpu) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (!file)
        return cpu;
    int first;
    if (fscanf(file, "%d", &first) != 1)
        first = cpu;
    fclose(file);
    return first;
}

static void detect_counts(cpu_features *out) {
    out->threads = out->cores = 1;
    cpu_set_t allowed, seen;
    CPU_ZERO(&allowed);
    CPU_ZERO(&seen);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        int core;
        if (CPU_ISSET((size_t)cpu, &allowed) && (core = first_sibling(cpu)) >= 0 &&
            core < CPU_SETSIZE)
            CPU_SET((size_t)core, &seen);
    }
    if (CPU_COUNT(&allowed) > 0)
        out->threads = CPU_COUNT(&allowed);
    if (CPU_COUNT(&seen) > 0)
        out->cores = CPU_COUNT(&seen);
}

static size_t cache_bytes(int name) {
    long bytes = sysconf(name);
    return bytes > 0 ? (size_t)bytes : 0;
}

cpu_features cpu_features_detect(void) {
    cpu_features found = {0};
    detect_sets(&found);
    detect_model(found.model);
    detect_counts(&found);
    found.l1d_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE);
    found.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
    found.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
    return found;
}

static graft_status refuse_name(const char *name, size_t length, graft_error *err) {
    char known[256] = "none";
    size_t used = strlen(known);
    for (size_t i = 0; i < N_SETS; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, ", %s", sets[i].name);
    return error_set(err, GRAFT_E_USAGE,
                     "--cpu-features: \"%.*s\" is no instruction set known here; known are: %s",
                     (int)(length < 64 ? length : 64), name, known);
}

bool cpu_features_mask(cpu_features *features, const char *list, graft_error *err) {
    bool kept[N_SETS] = {false};
    for (const char *at = list;;) {
        size_t length = strcspn(at, ",");
        size_t i = 0;
        while (i < N_SETS && (strlen(sets[i].name) != length || strncmp(sets[i].name, at, length)))
            i++;
        if (i < N_SETS)
            kept[i] = true;
        else if (length != 4 || strncmp(at, "none", 4))
            return refuse_name(at, length, err) == GRAFT_OK;
        if (!at[length])
            break;
        at += length + 1;
    }
    for (size_t i = 0; i < N_SETS; i++) {
        bool has = kept[i] && cpu_features_has(features, i);
        memcpy((char *)features + sets[i].offset, &has, sizeof has);
    }
    return true;
}
