/* Is it still the same base model? */
#ifndef GRAFT_TRAIN_BASE_IDENTITY_H
#define GRAFT_TRAIN_BASE_IDENTITY_H

#include "model/weights.h"

/* xxh3 over what config.json says that changes a number, every tensor's name, dtype and shape, and
 * a sample of its bytes: BASE_SAMPLES pieces of BASE_SAMPLE_BYTES spread evenly, the first and last
 * among them (all bytes of a small tensor). Hashing a whole model would read it from the disk once
 * more at every start. */
enum { BASE_SAMPLES = 16, BASE_SAMPLE_BYTES = 1024 };
uint64_t base_identity(const model_spec *, const weight_source *);

#endif
