/* CPT, context-aware prompt tuning (Blau et al., 2024; as PEFT's tuners/cpt): virtual tokens that
 * begin as a context's own embeddings, and move within a ball around them. Tokens have types
 * (cpt_tokens_type_mask, modulo 4): 1 and 3 templates, 2 input, 0 labels, which the loss counts,
 * too; the labels of earlier examples count less (opt_loss_decay_factor). */
#include "adapter/methods.h"
#include "adapter/prompt_encoder.h"
#include "adapter/virtual_tokens.h"
#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const config_key cpt_keys[] = {
    VIRTUAL_TOKEN_KEYS,
    {.name = "cpt_mask", .kind = KEY_ANY, .fallback = "null"},
    {.name = "cpt_token_ids", .kind = KEY_ANY, .fallback = "null"},
    {.name = "cpt_tokens_type_mask", .kind = KEY_ANY, .fallback = "null"},
    {.name = "opt_loss_decay_factor", .kind = KEY_NUMBER, .fallback = "1.0", .min = 0, .max = 1},
    {.name = "opt_projection_epsilon", .kind = KEY_NUMBER, .fallback = "0.1", .min = 0, .max = 1e6},
    {.name = "opt_projection_format_epsilon",
     .kind = KEY_NUMBER,
     .fallback = "0.1",
     .min = 0,
     .max = 1e6},
    {.name = "opt_weighted_loss_type",
     .kind = KEY_CHOICE,
     .fallback = "\"none\"",
     .choices = "none|decay"},
    {.name = "tokenizer_name_or_path", .kind = KEY_ANY, .fallback = "null"},
    {.name = NULL},
};

static const char delta_name[] = "delta_embedding.weight";

typedef struct cpt_state {
    int32_t n;
    int32_t *ids, *types, *targets; /* [n] */
    float *weights;                 /* [n] of their labels' loss */
    double *rows;                   /* [n, hidden]: the delta, on the host */
    size_t context, prompt;         /* derived: the tokens' own embeddings; what the model reads */
} cpt_state;

/* ---- Config ---- */

static graft_status read_list(int32_t *out, const adapter *a, const char *key, int32_t n,
                              int32_t below, graft_error *err) {
    const json_t *list = config_value(&a->config, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)n)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected a list of %d whole numbers (num_virtual_tokens), found %s "
                         "of %zu",
                         key, (int)n, json_type_name(list), json_array_size(list));
    for (int32_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        json_int_t value = json_is_integer(item) ? json_integer_value(item) : -1;
        if (value < 0 || value >= below)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: entry %d: expected a whole number from 0 to %d", key, (int)i,
                             (int)below - 1);
        out[i] = (int32_t)value;
    }
    return GRAFT_OK;
}

/* The text's own labels belong to a class behind the last: its type mask is 4 plus the largest
 * here, and only multiples of 4 are labels. */
static graft_status check_types(const cpt_state *s, graft_error *err) {
    int32_t most = 0;
    for (int32_t i = 0; i < s->n; i++)
        most = s->types[i] > most ? s->types[i] : most;
    if (most % 4)
        return error_set(
            err, GRAFT_E_INPUT,
            "cpt_tokens_type_mask: its largest entry must be a multiple of 4 (a label), "
            "found %d: PEFT then finds no label in the text, and its loss is NaN",
            (int)most);
    return GRAFT_OK;
}

/* Labels' weights: 1 for the text, and a factor less for every class of labels before it. */
static void weigh_labels(const adapter *a, cpt_state *s) {
    bool decays = !strcmp(config_text(&a->config, "opt_weighted_loss_type"), "decay");
    double factor = decays ? config_number(&a->config, "opt_loss_decay_factor") : 1;
    for (int32_t i = 0; i < s->n; i++) {
        bool is_labelled = i + 1 < s->n && s->types[i + 1] > 0 && s->types[i + 1] % 4 == 0;
        s->targets[i] = is_labelled ? s->ids[i + 1] : -1;
        int32_t after = 1; /* classes of labels from this one's to the text's */
        for (int32_t type = s->types[is_labelled ? i + 1 : i] + 1; type < (1 << 20); type++) {
            bool is_there = false, is_past = true;
            for (int32_t j = 1; j < s->n; j++) {
                is_there = is_there || s->types[j] == type;
                is_past = is_past && s->types[j] < type;
            }
            if (is_past)
                break;
            after += is_there && type % 4 == 0;
        }
        s->weights[i] = is_labelled ? (float)pow(factor, after) : 0;
    }
}

static graft_status read_config(adapter *a, cpt_state *s, graft_error *err) {
    const size_t n = (size_t)s->n;
    s->ids = mem_array(n, sizeof *s->ids);
    s->types = mem_array(n, sizeof *s->types);
    s->targets = mem_array(n, sizeof *s->targets);
    s->weights = mem_array(n, sizeof *s->weights);
    s->rows = mem_array(n * (size_t)a->spec->hidden, sizeof *s->rows);
    if (!s->ids || !s->types || !s->targets || !s->weights || !s->rows)
        return error_memory(err, n * (size_t)a->spec->hidden * sizeof *s->rows, "the context");
    graft_status status = read_list(s->ids, a, "cpt_token_ids", s->n, a->spec->vocab, err);
    if (status == GRAFT_OK)
        status = read_list(s->types, a, "cpt_tokens_type_mask", s->n, 1 << 20, err);
    if (status == GRAFT_OK)
        status = check_types(s, err);
    if (status == GRAFT_OK)
        weigh_labels(a, s);
    return status;
}

/* ---- Shape ---- */

/* num_virtual_tokens is the length of the context, whatever the config says. */
static graft_status settle_count(adapter *a, cpt_state *s, graft_error *err) {
    const json_t *ids = config_value(&a->config, "cpt_token_ids");
    size_t n = json_array_size(ids);
    if (n == 0 || n > 65536)
        return error_set(err, GRAFT_E_INPUT,
                         "cpt_token_ids: expected the ids of a context's tokens, found %s",
                         json_type_name(ids));
    s->n = (int32_t)n;
    return json_object_set_new(a->config.fields, "num_virtual_tokens",
                               json_integer((json_int_t)n)) == 0
               ? GRAFT_OK
               : error_memory(err, 64, "num_virtual_tokens");
}

static graft_status cpt_shape(adapter *a, const message_sink *sink, graft_error *err) {
    cpt_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the context");
    graft_status status = settle_count(a, s, err);
    if (status == GRAFT_OK)
        status = virtual_tokens_settle(a, a->spec->hidden, a->spec->n_heads, err);
    if (status == GRAFT_OK)
        status = read_config(a, s, err);
    if (status != GRAFT_OK)
        return status;
    const int64_t count = (int64_t)s->n * a->spec->hidden;
    s->context = shape_derived(a, count, false, err);
    s->prompt = shape_derived(a, count, true, err);
    if (s->context == SIZE_MAX || s->prompt == SIZE_MAX ||
        !encoder_tensor(a, delta_name, s->n, a->spec->hidden, err))
        return GRAFT_E_MEMORY;
    status = encoder_output_tensor(a, s->n, a->spec->hidden, err);
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static void cpt_destroy(adapter *a) {
    cpt_state *s = a->state;
    if (!s)
        return;
    free(s->ids);
    free(s->types);
    free(s->targets);
    free(s->weights);
    free(s->rows);
    free(s);
    a->state = NULL;
}

static graft_status cpt_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                             graft_error *err) {
    (void)weights;
    (void)err;
    shape_fill(encoder_tensor_at(a, delta_name), dev, DRAW_CONSTANT, 0, random);
    return GRAFT_OK;
}

static void cpt_bind(adapter *a, model_hooks *hooks) {
    const cpt_state *s = a->state;
    hooks->sequence = (sequence_hook){.n_virtual = s->n,
                                      .n_tasks = 1,
                                      .virtual_rows = a->derived[s->prompt].value,
                                      .d_virtual_rows = a->derived[s->prompt].gradient,
                                      .virtual_targets = s->targets,
                                      .virtual_weights = s->weights};
    for (int32_t i = 0; i < s->n; i++)
        hooks->sequence.n_labelled += s->targets[i] >= 0;
}

/* ---- Values ---- */

static void load_context(const adapter *a, backend *dev, const weight_source *weights) {
    const cpt_state *s = a->state;
    device_array *context = a->derived[s->context].value;
    for (int32_t i = 0; i < s->n; i++)
        virtual_tokens_embed(a, dev, array_at(dev, context, i * (int64_t)a->spec->hidden), weights,
                             s->ids[i]);
}

/* How far a token may move: less for models with narrow embeddings. */
static double radius_of(const adapter *a, int32_t type) {
    static const double still = 1e-10, usual_width = 2048;
    double narrow = sqrt(a->spec->hidden / usual_width);
    if (type <= 0 || type % 4 == 0)
        return still;
    return narrow * config_number(&a->config, type % 4 == 2 ? "opt_projection_epsilon"
                                                            : "opt_projection_format_epsilon");
}

/* The delta is drawn back into its ball, as PEFT does it before every pass: delta * radius /
 * max(norm, radius). */
static void project(const adapter *a, backend *dev, const adapter_tensor *delta) {
    const cpt_state *s = a->state;
    const int64_t hidden = a->spec->hidden;
    dev->ops->download_f64(dev, s->rows, delta->value, delta->count);
    for (int32_t i = 0; i < s->n; i++) {
        double *row = s->rows + i * hidden, norm = 0;
        for (int64_t j = 0; j < hidden; j++)
            norm += row[j] * row[j];
        norm = sqrt(norm);
        double radius = radius_of(a, s->types[i]);
        if (norm > 0)
            for (int64_t j = 0; j < hidden; j++)
                row[j] *= radius / fmax(norm, radius);
    }
    dev->ops->upload(dev, delta->value, s->rows, DTYPE_F64, delta->count);
}

static graft_status cpt_prepare(adapter *a, backend *dev, weight_source *weights,
                                graft_error *err) {
    const cpt_state *s = a->state;
    const adapter_tensor *delta = encoder_tensor_at(a, delta_name);
    const adapter_tensor *saved = adapter_tensor_at(a, (size_t)MODULE_NONE, PROMPT_EMBEDDINGS);
    device_array *prompt = a->derived[s->prompt].value;
    (void)err;
    load_context(a, dev, weights);
    if (a->lacks_unsaved) { /* PEFT's file has the sum alone */
        dev->ops->copy(dev, delta->value, saved->value, saved->count);
        dev->ops->add_scaled(dev, delta->value, a->derived[s->context].value, -1, saved->count);
        a->lacks_unsaved = false;
    } else {
        project(a, dev, delta);
    }
    dev->ops->copy(dev, prompt, a->derived[s->context].value, saved->count);
    dev->ops->add(dev, prompt, delta->value, saved->count);
    dev->ops->copy(dev, saved->value, prompt, saved->count);
    return GRAFT_OK;
}

/* Labels stay where they are. */
static double cpt_chain(adapter *a, backend *dev) {
    const cpt_state *s = a->state;
    const adapter_tensor *delta = encoder_tensor_at(a, delta_name);
    const int64_t hidden = a->spec->hidden;
    for (int32_t i = 0; i < s->n; i++)
        if (s->types[i] % 4 != 0)
            dev->ops->add(dev, array_at(dev, delta->gradient, i * hidden),
                          array_at_const(dev, a->derived[s->prompt].gradient, i * hidden), hidden);
    return 0;
}

const adapter_method cpt_method = {
    .peft_type = "CPT",
    .name = "cpt",
    .summary = "a context's tokens, moved within a small ball around them",
    .family = "virtual tokens",
    .paper = "Blau et al. 2024, arXiv:2410.17222",
    .keys = cpt_keys,
    .shape = cpt_shape,
    .destroy = cpt_destroy,
    .init = cpt_init,
    .bind = cpt_bind,
    .prepare = cpt_prepare,
    .chain = cpt_chain,
    .load = peft_load,
    .save = peft_save,
};
