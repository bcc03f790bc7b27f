/* One op pair (forward, backward) on one backend: named arrays with the same values on every
 * backend, and a batch of segments that can be run whole (packed) or one segment at a time.
 * gradcheck and kernelcheck share it. */
#ifndef GRAFT_TESTS_OP_RUN_H
#define GRAFT_TESTS_OP_RUN_H

#include "backend/ops.h"

enum { OP_ARRAYS_MAX = 48, OP_SEGMENTS_MAX = 8, OP_JOBS_MAX = 4 };

typedef enum array_role {
    ROLE_INPUT,    /* random */
    ROLE_OUTPUT,   /* written by forward */
    ROLE_GRADIENT, /* written by backward: of the input `partner` */
    ROLE_COTANGENT /* random: d loss / d the output `partner` */
} array_role;

typedef struct op_array {
    const char *name;
    device_array *memory;
    int64_t n;           /* elements in all */
    int64_t token_width; /* elements a token; 0: not by token */
    array_role role;
    int partner; /* index of an array; -1 */
} op_array;

typedef struct op_batch {
    int32_t n_segments;
    segment segments[OP_SEGMENTS_MAX];
    int32_t *grid;
    int32_t job_begin[OP_JOBS_MAX + 1];
    uint64_t *dropout_counter;
    int32_t *ids, *targets;
    float *weights;
    int32_t n_jobs;
} op_batch;

typedef struct op_run {
    backend *dev;
    uint64_t seed;
    double magnitude; /* of random values; 1 usually */
    op_array arrays[OP_ARRAYS_MAX];
    int n_arrays;
    op_batch all;        /* what was built */
    batch batch;         /* what runs now: all of it, or one segment */
    int32_t token_first; /* of the batch that runs now, in `all` */
    int32_t *grid_now, job_begin_now[OP_JOBS_MAX + 1];
    segment segments_now[OP_SEGMENTS_MAX];
    const void *params; /* of the case */
    void *state;        /* the case's own, freed with free() */
    void *owned[OP_ARRAYS_MAX];
    int n_owned;
} op_run;

/* Segment lengths (0 ends), their jobs (NULL: all 0). Keeps run->magnitude. */
void op_run_begin(op_run *, backend *, uint64_t seed, const int32_t *lengths, const int32_t *jobs,
                  int32_t vocab);
void op_run_end(op_run *);

/* Runs everything, or segment s alone. */
void op_run_select_all(op_run *);
void op_run_select(op_run *, int32_t s);

/* Adds an array of n elements, or of all tokens times token_width; returns its index. Inputs and
 * cotangents are random; others zero. */
int op_array_add(op_run *, const char *name, int64_t n, array_role, int partner);
int op_array_add_tokens(op_run *, const char *name, int64_t token_width, array_role, int partner);
/* The handle for the batch that runs now; index -1 gives NULL. */
device_array *op_at(const op_run *, int index);
/* The whole array as doubles (caller frees), and back. */
double *op_values(const op_run *, int index);
void op_set(op_run *, int index, const double *values);
/* n random host elements of a stored type, freed with the run. */
void *op_stored(op_run *, dtype, int64_t n, double scale);

/* A pair under test. */
typedef struct op_case {
    const char *name;
    void (*build)(op_run *, backend *, uint64_t seed, const void *params);
    void (*forward)(op_run *);
    void (*backward)(op_run *); /* NULL: none */
    const void *params;
    bool has_tokens;  /* can run one segment at a time */
    double tolerance; /* see kernelcheck.c */
    bool is_large;    /* too slow for finite differences */
    bool is_attention;
} op_case;

const op_case *op_case_at(int i); /* NULL past the last */
/* Those of routing_cases.c and transform_cases.c, which op_case_at has too. */
const op_case *routing_case_at(int i);
const op_case *transform_case_at(int i);

#endif
