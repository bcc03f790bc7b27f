/* Trained networks that make virtual tokens or prefixes: an embedding passed through a few linear
 * layers. Only their output is a tensor of PEFT's file; the network itself is saved beside it, in
 * prompt_encoder.safetensors under PEFT's parameter names, so that training can go on. Inside
 * adapter/ only. */
#ifndef GRAFT_ADAPTER_PROMPT_ENCODER_H
#define GRAFT_ADAPTER_PROMPT_ENCODER_H

#include "adapter/shape.h"

#define PROMPT_ENCODER_PREFIX "prompt_encoder.default."
#define PROMPT_EMBEDDINGS     "prompt_embeddings"

/* y = act(x W^T + b) over n rows. */
typedef struct encoder_layer {
    const char *name; /* "mlp_head.0" */
    int64_t in, out;
    activation_kind act;
    adapter_tensor *weight, *bias; /* found by prompt_encoder_find */
    size_t before, after;          /* derived: [n, out] before and behind act, with gradients */
} encoder_layer;

enum { ENCODER_LAYERS_MAX = 4 };

typedef struct prompt_encoder {
    int64_t rows; /* n */
    int32_t n_layers;
    encoder_layer layers[ENCODER_LAYERS_MAX];
} prompt_encoder;

/* Adds a trained tensor "prompt_encoder.default.<name>". */
adapter_tensor *encoder_tensor(adapter *, const char *name, int64_t rows, int64_t cols,
                               graft_error *);
adapter_tensor *encoder_tensor_at(const adapter *, const char *name);
/* Adds the file's tensor [rows, cols], which is what the encoder makes. */
graft_status encoder_output_tensor(adapter *, int64_t rows, int64_t cols, graft_error *);

/* Adds weights, biases and derived arrays of all layers; find them after shape_finish. */
graft_status prompt_encoder_shape(adapter *, prompt_encoder *, graft_error *);
void prompt_encoder_find(const adapter *, prompt_encoder *);
/* As nn.Linear draws them: U(-1, 1) / sqrt(in). */
void prompt_encoder_init(const prompt_encoder *, backend *, rng *);
/* Returns the output, derived [rows, out of the last layer]. */
const derived_array *prompt_encoder_output(const adapter *, const prompt_encoder *);
void prompt_encoder_fwd(const adapter *, const prompt_encoder *, backend *, const device_array *x);
/* From the output's gradient: tensors' gradients and dx (NULL: nobody needs it) are added to. */
void prompt_encoder_bwd(const adapter *, const prompt_encoder *, backend *, const device_array *x,
                        device_array *dx);

/* After peft_load: whether the encoder's own tensors came with the file. */
bool prompt_encoder_is_loaded(const adapter *);
/* GRAFT_E_INPUT when gradients are laid out and they did not. */
graft_status prompt_encoder_check_training(const adapter *, graft_error *);

#endif
