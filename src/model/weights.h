/* A model's frozen weights: mapped files, used where they lie. Read-only once open; any number of
 * jobs share one. */
#ifndef GRAFT_MODEL_WEIGHTS_H
#define GRAFT_MODEL_WEIGHTS_H

#include "base/layout.h"
#include "formats/safetensors.h"
#include "model/hooks.h"

typedef struct layer_weights {
    weight_ref linear[N_LINEAR_SLOTS];
    const device_array *bias[N_LINEAR_SLOTS];                         /* NULL: none */
    const device_array *norm[N_NORM_SLOTS], *norm_bias[N_NORM_SLOTS]; /* NULL: 1 and 0 */
    const weight_ref *experts;                       /* [n_experts][N_EXPERT_SLOTS] */
    const device_array *expert_bias[N_EXPERT_SLOTS]; /* [n_experts, rows]; NULL: none */
    const device_array *sinks, *router_correction;
} layer_weights;

typedef struct outer_weights {
    weight_ref embedding, head; /* head is the embedding's when tied */
    const device_array *head_bias;
    weight_ref positions;
    weight_ref linear[N_OUTER_LINEARS];
    const device_array *norm[N_OUTER_NORMS], *norm_bias[N_OUTER_NORMS];
} outer_weights;

typedef struct weight_source weight_source;

/* Opens and checks every tensor against the spec (names, shapes, dtypes; what is missing or left
 * over is named). Norms and biases, which ops read as elements, are uploaded once; matrices stay as
 * stored. spec->is_head_tied may be set to false when the file has an lm_head of its own that
 * differs (said to the sink), as Transformers would refuse to tie. */
graft_status weight_source_open(weight_source **, backend *, model_spec *, const char *folder,
                                const message_sink *, graft_error *);
/* No files: the references have the spec's shapes and stored type, and no data. For a backend that
 * only counts (backend/meter). */
graft_status weight_source_open_shapes(weight_source **, backend *, const model_spec *,
                                       graft_error *);
void weight_source_close(weight_source **);

/* direction +1 forward, -1 backward: a streamed source reads ahead that way. A mapped one gives
 * pointers. */
graft_status layer_acquire(layer_weights *out, weight_source *, int32_t layer, int32_t direction,
                           graft_error *);
void layer_release(weight_source *, int32_t layer);
const outer_weights *weight_source_outer(const weight_source *);

/* What the files call a tensor: they may leave out the first part of its name ("transformer."). */
const char *weight_source_name(const weight_source *, const char *name);
/* The stored tensor by its name on disk; false when there is none. For masters, merges, saves. */
bool weight_source_tensor(tensor_view *out, const weight_source *, const char *name);
const safetensors *weight_source_files(const weight_source *);
/* Mapped bytes, and bytes uploaded beside them. */
size_t weight_source_mapped_bytes(const weight_source *);
size_t weight_source_uploaded_bytes(const weight_source *);
/* The same uploaded bytes from the spec alone, for plans. */
graft_status weight_source_plan_bytes(size_t *, const model_spec *, size_t element_bytes,
                                      graft_error *);

/* ---- Where models live ---- */

/* A directory as given, or org/name[@revision] found in the hub's cache on disk (HF_HUB_CACHE,
 * HF_HOME/hub,
 * ~/.cache/huggingface/hub; refs/REVISION, default main). Caller frees. Nothing is downloaded. */
graft_status model_folder_find(char **out, const char *model, graft_error *);

#endif
