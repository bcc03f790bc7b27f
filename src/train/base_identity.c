#include "train/base_identity.h"

#include <string.h>
#include <xxhash.h>

/* Every word is folded into the running hash: no padding of structs is ever hashed. */
static uint64_t fold(uint64_t hash, const void *bytes, size_t n) {
    return XXH3_64bits_withSeed(bytes, n, hash);
}

static uint64_t fold_i64(uint64_t hash, int64_t value) {
    return fold(hash, &value, sizeof value);
}

static uint64_t fold_double(uint64_t hash, double value) {
    return fold(hash, &value, sizeof value);
}

static uint64_t fold_spec(uint64_t hash, const model_spec *s) {
    const rope_spec *rope = &s->rope;
    const int64_t integers[] = {
        s->n_layers,
        s->hidden,
        s->intermediate,
        s->vocab,
        s->n_heads,
        s->n_kv_heads,
        s->head_dim,
        s->window,
        s->has_norm[NORM_Q],
        s->is_head_tied,
        (int64_t)rope->kind,
        rope->truncate,
        rope->original_max_positions,
    };
    const double reals[] = {
        (double)s->norm_eps,    rope->theta,     rope->factor,    rope->low_freq_factor,
        rope->high_freq_factor, rope->beta_fast, rope->beta_slow, rope->attention_factor,
    };
    hash = fold(hash, s->model_type, strlen(s->model_type));
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        hash = fold_i64(hash, integers[i]);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        hash = fold_double(hash, reals[i]);
    for (int32_t i = 0; i < s->n_layers; i++)
        hash = fold_i64(hash, s->layer_slides ? s->layer_slides[i] : 0);
    return hash;
}

static uint64_t fold_tensor(uint64_t hash, const char *name, const tensor_view *view) {
    hash = fold(hash, name, strlen(name));
    hash = fold_i64(hash, (int64_t)view->type);
    for (int32_t i = 0; i < view->rank; i++)
        hash = fold_i64(hash, view->shape[i]);
    size_t bytes = tensor_bytes(view);
    const unsigned char *data = view->data;
    if (bytes <= (size_t)BASE_SAMPLES * BASE_SAMPLE_BYTES)
        return fold(hash, data ? (const void *)data : "", bytes);
    size_t last = bytes - BASE_SAMPLE_BYTES;
    for (size_t i = 0; i < BASE_SAMPLES; i++)
        hash = fold(hash, data + last / (BASE_SAMPLES - 1) * i, BASE_SAMPLE_BYTES);
    return fold(hash, data + last, BASE_SAMPLE_BYTES);
}

uint64_t base_identity(const model_spec *spec, const weight_source *weights) {
    const safetensors *files = weight_source_files(weights);
    uint64_t hash = fold_spec(0, spec);
    for (size_t i = 0; i < safetensors_count(files); i++) {
        tensor_view view = safetensors_at(files, i);
        hash = fold_tensor(hash, safetensors_name(files, i), &view);
    }
    return hash;
}
