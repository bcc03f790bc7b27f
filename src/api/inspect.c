/* graft_inspect: what a file or folder is. */
#include "api/open.h"
#include "api/report.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "formats/jsonl.h"
#include "formats/safetensors.h"
#include "train/checkpoint.h"

#include <stdlib.h>
#include <string.h>

/* One report, built both ways at once: facts go into a JSON object and a text. */
typedef struct facts {
    json_t *json;
    strbuf text;
} facts;

static void fact_text(facts *f, const char *key, const char *label, const char *value) {
    report_set(&f->json, key, report_string(value, strlen(value)));
    strbuf_printf(&f->text, "  %-18s %s\n", label, value);
}

static void fact_count(facts *f, const char *key, const char *label, int64_t value) {
    report_set(&f->json, key, json_integer((json_int_t)value));
    report_line(&f->text, label, "%s", count_text(value));
}

static void fact_bytes(facts *f, const char *key, const char *label, size_t value) {
    report_set(&f->json, key, json_integer((json_int_t)value));
    report_line(&f->text, label, "%s", size_text((double)value));
}

/* ---- Tensors ---- */

static json_t *tensor_json(const char *name, const tensor_view *view) {
    json_t *object = json_object(), *shape = json_array();
    for (int d = 0; d < view->rank; d++)
        report_add(&shape, json_integer((json_int_t)view->shape[d]));
    report_set(&object, "name", report_string(name, strlen(name)));
    report_set(&object, "dtype", json_string(dtype_name(view->type)));
    report_set(&object, "shape", shape);
    return object;
}

static void add_tensors(facts *f, const safetensors *file) {
    enum { LISTED = 400 };
    json_t *list = json_array();
    int64_t elements = 0;
    size_t n = safetensors_count(file);
    strbuf_add_text(&f->text, "\n");
    for (size_t i = 0; i < n; i++) {
        tensor_view view = safetensors_at(file, i);
        elements += (int64_t)tensor_count(&view);
        report_add(&list, tensor_json(safetensors_name(file, i), &view));
        if (i >= LISTED)
            continue;
        char shape[128];
        tensor_shape_text(&view, shape, sizeof shape);
        strbuf_printf(&f->text, "  %-5s %-18s %s\n", dtype_name(view.type), shape,
                      safetensors_name(file, i));
    }
    if (n > LISTED)
        strbuf_printf(&f->text, "  ... and %zu more (--json lists all)\n", n - LISTED);
    report_set(&f->json, "elements", json_integer((json_int_t)elements));
    report_set(&f->json, "tensors", list);
}

static graft_status inspect_tensors(facts *f, const char *path, graft_error *err) {
    safetensors *file = NULL;
    graft_status status = strstr(path, ".index.json") ? safetensors_open_index(&file, path, err)
                                                      : safetensors_open(&file, path, err);
    if (status != GRAFT_OK)
        return status;
    fact_text(f, "kind", "kind", "safetensors");
    fact_count(f, "count", "tensors", (int64_t)safetensors_count(file));
    fact_bytes(f, "bytes", "size", safetensors_bytes(file));
    add_tensors(f, file);
    safetensors_close(&file);
    return GRAFT_OK;
}

/* ---- Directories ---- */

static void model_facts(facts *f, const model_spec *s) {
    fact_text(f, "kind", "kind", "model");
    fact_text(f, "model_type", "family", s->model_type);
    fact_count(f, "parameters", "parameters", model_parameters(s));
    fact_text(f, "dtype", "stored as", dtype_name(s->stored));
    fact_count(f, "num_hidden_layers", "layers", s->n_layers);
    fact_count(f, "hidden_size", "hidden", s->hidden);
    fact_count(f, "intermediate_size", "MLP", s->intermediate);
    fact_count(f, "num_attention_heads", "heads", s->n_heads);
    fact_count(f, "num_key_value_heads", "key/value heads", s->n_kv_heads);
    fact_count(f, "head_dim", "head size", s->head_dim);
    fact_count(f, "vocab_size", "vocabulary", s->vocab);
    fact_count(f, "max_position_embeddings", "context", s->max_positions);
    if (s->window)
        fact_count(f, "sliding_window", "sliding window", s->window);
    fact_text(f, "head", "head", s->is_head_tied ? "tied to the embedding" : "its own");
}

/* A damaged tokenizer or template is something to show; a failing machine is not. */
static graft_status text_facts(facts *f, const char *folder, graft_error *err) {
    tokenizer *tok = NULL;
    chat_template *chat = NULL;
    graft_error reason = {0};
    graft_status status = tokenizer_load(&tok, folder, NULL, &reason);
    bool goes_on = graft_exit_status(status) != 1;
    if (goes_on) {
        fact_text(f, "tokenizer", "tokenizer", status == GRAFT_OK ? "yes" : reason.message);
        if (tok)
            fact_count(f, "tokenizer_vocab_size", "tokens", tokenizer_vocab_size(tok));
        status = template_load_model(&chat, folder, NULL, false, &reason);
        goes_on = graft_exit_status(status) != 1;
    }
    if (goes_on)
        fact_text(f, "chat_template", "chat template",
                  status != GRAFT_OK ? reason.message
                  : chat             ? "yes"
                                     : "none");
    else if (err)
        *err = reason;
    template_destroy(&chat);
    tokenizer_destroy(&tok);
    return goes_on ? GRAFT_OK : status;
}

static graft_status inspect_model(facts *f, const char *folder, graft_error *err) {
    model_spec spec = {0};
    safetensors *file = NULL;
    graft_status status = model_spec_read(&spec, folder, NULL, err);
    if (status == GRAFT_OK)
        status = safetensors_open_model(&file, folder, NULL, err);
    if (status == GRAFT_OK) {
        model_facts(f, &spec);
        fact_bytes(f, "bytes", "weight files", safetensors_bytes(file));
        status = text_facts(f, folder, err);
    }
    safetensors_close(&file);
    model_spec_free(&spec);
    return status;
}

static graft_status inspect_adapter(facts *f, const char *folder, graft_error *err) {
    adapter_config config = {0};
    graft_status status = adapter_config_read(&config, folder, NULL, err);
    if (status != GRAFT_OK)
        return status;
    fact_text(f, "kind", "kind", "adapter");
    fact_text(f, "method", "method", config.method);
    if (config.base_model)
        fact_text(f, "base_model", "base model", config.base_model);
    fact_count(f, "r", "rank", config.r);
    report_set(&f->json, "lora_alpha", report_number(config.lora_alpha));
    report_set(&f->json, "use_rslora", json_boolean(config.use_rslora));
    report_line(&f->text, "alpha", "%g%s", config.lora_alpha, config.use_rslora ? " (rsLoRA)" : "");
    adapter_config_free(&config);
    char *path = path_join(folder, "adapter_model.safetensors");
    safetensors *file = NULL;
    status = path ? safetensors_open(&file, path, err) : error_memory(err, 0, "a path");
    if (status == GRAFT_OK) {
        fact_count(f, "count", "tensors", (int64_t)safetensors_count(file));
        fact_bytes(f, "bytes", "size", safetensors_bytes(file));
        add_tensors(f, file);
    }
    safetensors_close(&file);
    free(path);
    return status;
}

static graft_status inspect_checkpoint(facts *f, const char *folder, graft_error *err) {
    checkpoint_state state = {0};
    char run_id[RUN_ID_BYTES];
    graft_status status = manifest_verify(run_id, folder, err);
    if (status == GRAFT_OK)
        status = checkpoint_read(&state, folder, err);
    if (status == GRAFT_OK) {
        report_set(&f->json, "kind", json_string("checkpoint"));
        report_set(&f->json, "verified", json_true());
        report_line(&f->text, "kind", "checkpoint (every file verified)");
        fact_text(f, "run_id", "run", run_id);
        fact_count(f, "step", "step", state.progress.step);
        fact_count(f, "total_steps", "of", state.total_steps);
        fact_count(f, "tokens", "tokens seen", state.progress.tokens);
        fact_count(f, "epoch", "epoch (from 0)", state.progress.cursor.epoch);
    }
    checkpoint_state_free(&state);
    return status;
}

/* Keys come from the file: on a terminal they must not act. */
static void add_escaped(strbuf *text, const char *name) {
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        if (c < 0x20 || c == 0x7F)
            strbuf_printf(text, "\\x%02x", c);
        else
            strbuf_add_char(text, *name);
    }
}

static void data_facts(facts *f, const json_t *row) {
    const char *key;
    json_t *value, *keys = json_array();
    fact_text(f, "kind", "kind", "data");
    strbuf_printf(&f->text, "  %-18s", "keys");
    json_object_foreach((json_t *)row, key, value) {
        report_add(&keys, json_string(key));
        strbuf_add_char(&f->text, ' ');
        add_escaped(&f->text, key);
    }
    strbuf_add_char(&f->text, '\n');
    report_set(&f->json, "keys", keys);
}

static graft_status inspect_data(facts *f, const char *path, graft_error *err) {
    row_reader *reader = NULL;
    json_t *row = NULL;
    int64_t line, n = 0;
    graft_status status = row_reader_open(&reader, path, err);
    while (status == GRAFT_OK && (status = row_reader_next(reader, &row, &line, err)) == GRAFT_OK &&
           row) {
        if (n++ == 0)
            data_facts(f, row);
        json_decref(row);
    }
    row_reader_close(&reader);
    if (status == GRAFT_OK)
        fact_count(f, "rows", "rows", n);
    return status;
}

static graft_status inspect_tokenizer(facts *f, const char *path, graft_error *err) {
    tokenizer *tok = NULL;
    graft_status status = tokenizer_load(&tok, path, NULL, err);
    if (status != GRAFT_OK)
        return status;
    fact_text(f, "kind", "kind", "tokenizer");
    fact_count(f, "tokenizer_vocab_size", "tokens", tokenizer_vocab_size(tok));
    const char *name, *text;
    for (size_t i = 0; tokenizer_special_token(tok, i, &name, &text); i++)
        fact_text(f, name, name, text);
    tokenizer_destroy(&tok);
    return GRAFT_OK;
}

/* ---- What is it? ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static graft_status inspect_folder(facts *f, const char *path, graft_error *err) {
    if (folder_has(path, "state.json") && folder_has(path, "manifest.json"))
        return inspect_checkpoint(f, path, err);
    if (folder_has(path, "adapter_config.json"))
        return inspect_adapter(f, path, err);
    if (folder_has(path, "config.json"))
        return inspect_model(f, path, err);
    return error_set(err, GRAFT_E_INPUT,
                     "%s: neither a model (config.json), an adapter (adapter_config.json) nor a "
                     "checkpoint (state.json, "
                     "manifest.json)",
                     path);
}

/* Files that speak for the folder they lie in. */
static bool stands_for_folder(const char *name) {
    static const char *const names[] = {"config.json", "adapter_config.json", "state.json",
                                        "manifest.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

static graft_status inspect_file(facts *f, const char *path, graft_error *err) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (stands_for_folder(name)) {
        char *folder = slash ? mem_text(path, (size_t)(slash + 1 - path)) : mem_text(".", 1);
        graft_status status = folder ? inspect_folder(f, folder, err)
                                     : error_memory(err, strlen(path), "a file name");
        free(folder);
        return status;
    }
    if (ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json"))
        return inspect_tensors(f, path, err);
    if (!strcmp(name, "tokenizer.json") || ends_with(name, ".tiktoken") ||
        !strcmp(name, "tokenizer.model"))
        return inspect_tokenizer(f, path, err);
    if (ends_with(name, ".gguf"))
        return error_set(err, GRAFT_E_UNSUPPORTED, "%s: GGUF files are not supported", path);
    return inspect_data(f, path, err);
}

graft_status graft_inspect(const graft_sink *sink, graft_format format, const char *path,
                           graft_error *err) {
    facts f = {.json = json_object()};
    if (!f.json)
        return error_memory(err, 0, "a report");
    strbuf_printf(&f.text, "%s\n", path);
    graft_status status;
    if (!path_exists(path))
        status = error_set(err, GRAFT_E_INPUT, "%s: no such file or directory", path);
    else
        status = path_is_folder(path) ? inspect_folder(&f, path, err) : inspect_file(&f, path, err);
    if (status == GRAFT_OK && format.json)
        status = report_finish_json(sink, json_incref(f.json), err);
    else if (status == GRAFT_OK)
        status = report_finish(sink, &f.text, err);
    strbuf_free(&f.text);
    json_decref(f.json);
    return status;
}
