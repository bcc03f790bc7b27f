/* A checkpoint is a folder OUTPUT_DIR/checkpoint-N (N: steps done) with all that a run needs to go
 * on to the same bits:
 *
 *   state.safetensors     value.KEY, moment1.KEY, moment2.KEY of every trained tensor, in the
 * backend's element type state.json            step, cursor, seed, counters, hashes of data and
 * base, settings recipe.yaml           all options, for people adapter_config.json,
 * adapter_model.safetensors   the adapter as PEFT reads it (not in full fine-tuning) manifest.json
 * size and xxh3 of each file, format version, run id: written last
 *
 * Invariants
 *  1. A folder named checkpoint-N is whole, or its manifest does not verify and it is skipped
 * aloud. It is written as checkpoint-N.tmp; each file is synced, then the manifest, then the
 * folder; then it is renamed and the parent synced.
 *  2. A save that fails leaves every earlier checkpoint as it was and removes what it wrote.
 *  3. Only checkpoints of the same run (run.json in the output folder) are removed or resumed
 * without being named.
 *
 * docs/checkpoints.md is the same for users. */
#ifndef GRAFT_TRAIN_CHECKPOINT_H
#define GRAFT_TRAIN_CHECKPOINT_H

#include "train/data/sampler.h"
#include "train/manifest.h"
#include "train/trainer.h"

/* Counters of a run; they grow with it and go into checkpoints. */
typedef struct run_progress {
    int64_t step;    /* done, skipped ones included */
    int64_t updates; /* done by the optimizer */
    int64_t skipped; /* steps without an update: not finite */
    int64_t skipped_in_a_row;
    int64_t tokens, supervised_tokens;
    data_cursor cursor;
} run_progress;

typedef struct checkpoint_state {
    char run_id[RUN_ID_BYTES];
    run_progress progress;
    int64_t total_steps;
    uint64_t seed, data_hash, base_hash;
    json_t *settings; /* option name to value; owned */
} checkpoint_state;

void checkpoint_state_free(checkpoint_state *);

/* What a save needs beside the state. Borrowed. */
typedef struct checkpoint_source {
    const adapter *adapter;
    backend *dev;
    const weight_source *weights;
    const char *base_name, *recipe; /* recipe may be NULL */
    void *staging;                  /* STAGING_ELEMENTS elements: see memory_plan.h */
} checkpoint_source;

/* Writes OUTPUT_DIR/checkpoint-<step>; *path is its name (caller frees). */
graft_status checkpoint_save(char **path, const char *output_dir, const checkpoint_state *,
                             const checkpoint_source *, graft_error *);
/* Reads state.json of a folder that verifies. */
graft_status checkpoint_read(checkpoint_state *, const char *path, graft_error *);
/* Reads the tensors into an adapter laid out for training. Refuses other names and shapes by name.
 */
graft_status checkpoint_load(const adapter *, backend *, const char *path, graft_error *);

/* ---- The output folder ---- */

/* The newest checkpoint of this run that verifies (caller frees); older and damaged ones are told
 * of. run_id "": of any run. GRAFT_E_INPUT when there is no checkpoint at all, GRAFT_E_IO when
 * there are and none is good. */
graft_status checkpoint_newest(char **path, const char *output_dir, const char *run_id,
                               const message_sink *, graft_error *);
/* Removes this run's checkpoints of up to `step` steps but the newest `keep` (at least 2; 0: all
 * stay). Later ones are damaged leftovers that a resume went past: they count for nothing. */
void checkpoint_prune(const char *output_dir, const char *run_id, int64_t step, int32_t keep,
                      const message_sink *);
/* Removes what interrupted saves left. */
void checkpoint_sweep(const char *output_dir);

/* Whose folder this is: run.json. read: "" when there is none. */
void run_id_create(char out[RUN_ID_BYTES]);
graft_status run_id_read(char out[RUN_ID_BYTES], const char *output_dir, graft_error *);
graft_status run_id_write(const char *output_dir, const char *run_id, graft_error *);

#endif
