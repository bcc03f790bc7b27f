/* generation_config.json: a model's own defaults. */
#ifndef GRAFT_GENERATE_GENERATION_CONFIG_H
#define GRAFT_GENERATE_GENERATION_CONFIG_H

#include "generate/sampling.h"
#include "model/spec.h"

enum { EOS_IDS_MAX = 16 };

typedef struct generation_config {
    sampling_options sampling; /* greedy unless the file says do_sample */
    int64_t max_new_tokens;    /* 0: the file names none */
    int32_t eos[EOS_IDS_MAX];
    size_t n_eos;
} generation_config;

/* The file of a model folder; a missing one gives greedy decoding and config.json's end tokens.
 * Values outside their range are refused by name. */
graft_status generation_config_read(generation_config *, const char *folder, const model_spec *,
                                    graft_error *);

#endif
