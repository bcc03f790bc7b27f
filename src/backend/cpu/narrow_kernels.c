/* Which kernels multiply in fewer bits than f32, on which processor. */
#include "backend/cpu/gemm_narrow.h"

#include <assert.h>

typedef const narrow_kernels *narrow_table(void);

/* Of each type in rising order: choose takes the last one that the features allow. */
static narrow_table *const tables[] = {
    narrow_int8_portable, narrow_bf16_portable,
#if defined(__x86_64__)
    narrow_int8_avx2,     narrow_int8_vnni,     narrow_int8_amx, narrow_bf16_amx,
#endif
};
enum { N_TABLES = sizeof tables / sizeof tables[0] };

const narrow_kernels *narrow_kernels_at(size_t i) {
    return i < N_TABLES ? tables[i]() : NULL;
}

bool narrow_kernels_are_allowed(const narrow_kernels *kernels, const cpu_features *features) {
    bool has_avx512 = features->avx512 && features->avx2 && features->f16c;
    bool has_amx = has_avx512 && features->amx_tile;
    if (kernels == narrow_int8_portable() || kernels == narrow_bf16_portable())
        return true;
#if defined(__x86_64__)
    if (kernels == narrow_int8_avx2())
        return features->avx2 && features->f16c;
    if (kernels == narrow_int8_vnni())
        return has_avx512 && features->avx512_vnni;
    if (kernels == narrow_int8_amx())
        return has_amx && features->amx_int8;
    if (kernels == narrow_bf16_amx())
        return has_amx && features->amx_bf16;
#endif
    (void)has_amx;
    return false;
}

const narrow_kernels *narrow_kernels_choose(compute_type type, const cpu_features *features) {
    const narrow_kernels *best = NULL;
    for (size_t i = 0; i < N_TABLES; i++) {
        const narrow_kernels *kernels = tables[i]();
        if (kernels->type == type && narrow_kernels_are_allowed(kernels, features))
            best = kernels;
    }
    return best;
}

const char *backend_cpu_compute_kernels(bool *gains, compute_type type,
                                        const cpu_features *features) {
    const narrow_kernels *kernels = narrow_kernels_choose(type, features);
    *gains = !kernels || kernels->gains;
    return kernels ? kernels->name : backend_cpu_kernels(features);
}

/* What a person may do about a type that gains nothing here. */
static graft_status refuse(const narrow_kernels *kernels, const cpu_features *features,
                           graft_error *err) {
    static const char *const needs[N_COMPUTE_TYPES] = {
        [COMPUTE_BF16] = "AMX with bf16 (amx_bf16)",
        [COMPUTE_INT8] = "AVX-512 VNNI (avx512_vnni) or AMX with int8 (amx_int8)"};
    return error_set(err, GRAFT_E_USAGE,
                     "--compute %s: expected a processor with %s, found %s kernels at best%s%s%s, "
                     "which gain little or nothing over f32: use --compute f32 (or add "
                     "--force-compute to have the arithmetic anyway)",
                     compute_type_name(kernels->type), needs[kernels->type], kernels->name,
                     features->model[0] ? " (" : "", features->model,
                     features->model[0] ? ")" : "");
}

graft_status cpu_set_compute(backend *dev, compute_type type, const cpu_features *features,
                             bool force, graft_error *err) {
    cpu_backend *cpu = cpu_of(dev);
    cpu_features allowed = *features;
    if (allowed.amx_tile && type != COMPUTE_F32)
        allowed.amx_tile = cpu_features_request_amx();
    const narrow_kernels *kernels = narrow_kernels_choose(type, &allowed);
    if (kernels && !kernels->gains && !force)
        return refuse(kernels, features, err);
    cpu->narrow = kernels;
    dev->compute = type;
    return GRAFT_OK;
}
