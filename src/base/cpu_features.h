/* What this processor, and the system on it, let a program use. */
#ifndef GRAFT_BASE_CPU_FEATURES_H
#define GRAFT_BASE_CPU_FEATURES_H

#include "base/status.h"

typedef struct cpu_features {
    /* Instruction sets: true where the processor has them and the system saves their registers. */
    bool avx2; /* with FMA */
    bool f16c;
    bool avx512; /* F, BW, VL and DQ */
    bool avx512_vnni;
    bool avx512_bf16;
    bool amx_tile; /* amx_*: present; use them only after cpu_features_request_amx() said yes */
    bool amx_bf16;
    bool amx_int8;
    int threads;                          /* logical processors that this process may run on */
    int cores;                            /* physical cores among them */
    size_t l1d_bytes, l2_bytes, l3_bytes; /* 0 when unknown */
    char model[49];                       /* the processor's name; "" when unknown */
} cpu_features;

cpu_features cpu_features_detect(void);

/* Asks the kernel for leave to use AMX, for the whole process. False: amx_* must be masked. */
bool cpu_features_request_amx(void);

/* Keeps only the instruction sets that `list` names and that are there: "avx2,f16c"; "none" keeps
 * none. False, with the known names in the message, when a name is not known. */
bool cpu_features_mask(cpu_features *, const char *list, graft_error *);

/* The instruction sets there are names for, for listings: name NULL past the last. */
const char *cpu_features_name(size_t i);
bool cpu_features_has(const cpu_features *, size_t i);

#endif
