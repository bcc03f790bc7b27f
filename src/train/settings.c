#include "train/settings.h"

#include "train/optimizer_kind.h"
#include "train/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* ---- What is refused ---- */

static graft_status need_integer(const char *name, int64_t value, int64_t low, graft_error *err) {
    if (value >= low)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_USAGE, "%s: expected at least %" PRId64 ", found %" PRId64, name,
                     low, value);
}

static graft_status need_number(const char *name, double value, double low, double high,
                                graft_error *err) {
    if (isfinite(value) && value >= low && value <= high)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_USAGE, "%s: expected a number from %g to %g, found %g", name, low,
                     high, value);
}

static graft_status check_numbers(const train_config *c, graft_error *err) {
    const struct {
        const char *name;
        double value, low, high;
    } numbers[] = {
        {"learning_rate", c->learning_rate, 0, 1e6},
        {"weight_decay", c->weight_decay, 0, 1e6},
        {"adam_beta1", c->adam_beta1, 0, 0.9999999999},
        {"adam_beta2", c->adam_beta2, 0, 0.9999999999},
        {"adam_epsilon", c->adam_epsilon, 0, 1},
        {"max_grad_norm", c->max_grad_norm, 0, 1e30},
        {"loraplus_lr_ratio", c->loraplus_lr_ratio, 0, 1e6},
        {"warmup_ratio", c->warmup_ratio, 0, 1},
        {"num_train_epochs", c->max_steps > 0 ? 0 : c->num_train_epochs, 0, 1e9},
    };
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && status == GRAFT_OK; i++)
        status =
            need_number(numbers[i].name, numbers[i].value, numbers[i].low, numbers[i].high, err);
    return status;
}

graft_status settings_check(const train_config *c, graft_error *err) {
    const struct {
        const char *name;
        int64_t value, low;
    } integers[] = {
        {"per_device_train_batch_size", c->per_device_train_batch_size, 1},
        {"gradient_accumulation_steps", c->gradient_accumulation_steps, 1},
        {"max_steps", c->max_steps, INT64_MIN}, /* HF: -1 and 0 are off */
        {"warmup_steps", c->warmup_steps, 0},
        {"save_steps", c->save_steps, 0},
        {"eval_steps", c->eval_steps, 0},
        {"logging_steps", c->logging_steps, 0},
        {"save_total_limit", c->save_total_limit, 0},
        {"memory_limit", c->memory_limit_bytes, 0},
    };
    graft_status status = check_numbers(c, err);
    for (size_t i = 0; i < sizeof integers / sizeof *integers && status == GRAFT_OK; i++)
        status = need_integer(integers[i].name, integers[i].value, integers[i].low, err);
    if (status == GRAFT_OK && (!c->output_dir || !*c->output_dir))
        status = error_set(err, GRAFT_E_USAGE, "output_dir: expected a folder, found nothing");
    if (status == GRAFT_OK && c->max_steps <= 0 && c->num_train_epochs <= 0)
        status = error_set(err, GRAFT_E_USAGE,
                           "num_train_epochs: expected a number above 0 (or max_steps), found %g",
                           c->num_train_epochs);
    if (status == GRAFT_OK && c->schedule == SCHEDULE_POLYNOMIAL && c->learning_rate <= 1e-7)
        status = error_set(err, GRAFT_E_USAGE,
                           "learning_rate: the polynomial schedule ends at 1e-07: expected more, "
                           "found %g",
                           c->learning_rate);
    return status;
}

/* ---- What is remembered ---- */

/* Names of settings that must be equal at a resume. */
static const char *const fixed_names[] = {
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
    "shuffle",
    "shuffle_buffer",
    "adapter",
    "backend",
    "optim",
    "compute",
};

/* The adapter's config as PEFT writes it, hashed: alpha, dropout and the rest change every number.
 */
static json_t *adapter_json(const adapter *a) {
    strbuf text = {0};
    char hash[17] = "";
    if (adapter_config_write(&text, &a->config, "", NULL) == GRAFT_OK && !text.failed)
        snprintf(hash, sizeof hash, "%016" PRIx64,
                 (uint64_t)XXH3_64bits(strbuf_text(&text), text.length));
    strbuf_free(&text);
    return json_sprintf("%s %s", a->method->name, hash);
}

json_t *settings_json(const train_config *c, const adapter *a, const backend *dev) {
    json_t *json = json_pack(
        "{s:i, s:i, s:o, s:b, s:o, s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:I, "
        "s:f, "
        "s:I, s:f, s:I}",
        "per_device_train_batch_size", c->per_device_train_batch_size,
        "gradient_accumulation_steps", c->gradient_accumulation_steps, "seed",
        json_sprintf("%" PRIu64, c->seed), "shuffle", c->shuffle, "adapter", adapter_json(a),
        "backend", dev->name, "optim", optimizer_of(c)->name, "compute",
        compute_type_name(dev->compute), "learning_rate", c->learning_rate, "weight_decay",
        c->weight_decay, "adam_beta1", c->adam_beta1, "adam_beta2", c->adam_beta2, "adam_epsilon",
        c->adam_epsilon, "max_grad_norm", c->max_grad_norm, "loraplus_lr_ratio",
        c->loraplus_lr_ratio, "lr_scheduler_type", schedule_name(c->schedule), "warmup_steps",
        (json_int_t)c->warmup_steps, "warmup_ratio", c->warmup_ratio, "max_steps",
        (json_int_t)c->max_steps, "num_train_epochs", c->num_train_epochs, "shuffle_buffer",
        (json_int_t)c->shuffle_buffer);
    return json;
}

static bool is_fixed(const char *name) {
    for (size_t i = 0; i < sizeof fixed_names / sizeof *fixed_names; i++)
        if (strcmp(name, fixed_names[i]) == 0)
            return true;
    return false;
}

/* Numbers compare by value: 1 and 1.0 are the same setting. */
static bool is_equal(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static void write_value(strbuf *out, const json_t *value) {
    if (value)
        json_write(out, value, JSON_PYTHON, true);
    else
        strbuf_add_text(out, "nothing");
}

graft_status settings_compare(const json_t *then, const json_t *now, const char *path,
                              const message_sink *messages, graft_error *err) {
    graft_status status = GRAFT_OK;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)now, name, value) {
        const json_t *old = json_object_get(then, name);
        if (is_equal(old, value) || status != GRAFT_OK)
            continue;
        strbuf was = {0}, is = {0};
        write_value(&was, old);
        write_value(&is, value);
        if (is_fixed(name))
            status =
                error_set(err, GRAFT_E_INPUT,
                          "%s: %s: expected %s as when the checkpoint was made, found %s: the "
                          "resumed run would be another one; give the old value, or start anew "
                          "(from this adapter with --init-adapter)",
                          path, name, strbuf_text(&was), strbuf_text(&is));
        else
            message_emit(
                messages, MESSAGE_WARNING,
                "%s was %s when the checkpoint was made and is %s now: the run goes on with "
                "the new value",
                name, strbuf_text(&was), strbuf_text(&is));
        strbuf_free(&was);
        strbuf_free(&is);
    }
    return status;
}
