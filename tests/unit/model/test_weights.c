/* Weights against the config, and models in the hub's cache. */
#include "tests/parity/model_case.h"

#include "base/atomic_file.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char tied_config[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 11, \"hidden_size\": 8, \"intermediate_size\": 6,"
    " \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    " \"tie_word_embeddings\": true}";

static int n_messages;
static char last_message[1024];

static void keep_message(void *context, message_level level, const char *text) {
    (void)context;
    (void)level;
    n_messages++;
    snprintf(last_message, sizeof last_message, "%s", text);
}

static const message_sink sink = {.emit = keep_message};

/* A written model whose tensors can be changed before it is opened. */
typedef struct edited {
    const char *folder;
    safetensors *files; /* of the first version; keeps the data alive */
    named_tensor tensors[64];
    size_t n;
} edited;

static void edit_begin(edited *e, const char *name, const char *config) {
    char path[4200];
    e->folder = model_case_write(name, config, 3);
    snprintf(path, sizeof path, "%s/model.safetensors", e->folder);
    assert_ok(safetensors_open(&e->files, path, &test_error));
    e->n = safetensors_count(e->files);
    for (size_t i = 0; i < e->n; i++)
        e->tensors[i] = (named_tensor){safetensors_name(e->files, i), safetensors_at(e->files, i)};
}

static named_tensor *edit_find(edited *e, const char *name) {
    for (size_t i = 0; i < e->n; i++)
        if (strcmp(e->tensors[i].name, name) == 0)
            return &e->tensors[i];
    fail_msg("no %s", name);
    return NULL;
}

/* Writes the tensors and opens the model; the source and spec are closed again when it opens. */
static graft_status edit_open(edited *e, bool *is_tied, dtype *norm_type) {
    char path[4200];
    model_spec spec;
    weight_source *source = NULL;
    backend *dev = test_backend(0);
    tensor_view view;
    snprintf(path, sizeof path, "%s/model.safetensors", e->folder);
    assert_ok(safetensors_write(path, e->tensors, e->n, &test_error));
    assert_ok(model_spec_read(&spec, e->folder, NULL, &test_error));
    n_messages = 0;
    graft_status status = weight_source_open(&source, dev, &spec, e->folder, &sink, &test_error);
    if (is_tied)
        *is_tied = spec.is_head_tied;
    if (norm_type && source && weight_source_tensor(&view, source, "model.norm.weight"))
        *norm_type = view.type;
    if (status == GRAFT_OK) {
        size_t planned;
        assert_ok(
            weight_source_plan_bytes(&planned, &spec, dev->element_bytes, &test_error));
        assert_int_equal(weight_source_uploaded_bytes(source), planned);
    }
    weight_source_close(&source);
    model_spec_free(&spec);
    backend_destroy(&dev);
    safetensors_close(&e->files);
    return status;
}

static void tied_head_with_an_equal_copy_on_disk(void **state) {
    (void)state;
    edited e;
    bool is_tied;
    edit_begin(&e, "equal_copy", tied_config);
    e.tensors[e.n++] =
        (named_tensor){"lm_head.weight", edit_find(&e, "model.embed_tokens.weight")->view};
    assert_ok(edit_open(&e, &is_tied, NULL));
    assert_true(is_tied);
    assert_int_equal(n_messages, 0);
}

static void tied_embeddings_yet_different_lm_head(void **state) {
    (void)state;
    edited e;
    bool is_tied;
    float head[11 * 8] = {1};
    edit_begin(&e, "different_head", tied_config);
    e.tensors[e.n++] = (named_tensor){
        "lm_head.weight", {.data = head, .type = DTYPE_F32, .rank = 2, .shape = {11, 8}}};
    assert_ok(edit_open(&e, &is_tied, NULL));
    assert_false(is_tied);
    assert_int_equal(n_messages, 1);
    assert_non_null(strstr(last_message, "lm_head.weight"));
}

static void config_disagrees_with_tensor_shapes(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "shapes", tied_config);
    named_tensor *q = edit_find(&e, "model.layers.0.self_attn.q_proj.weight");
    q->view.shape[0] = 4;
    q->view.shape[1] = 16;
    assert_refused(edit_open(&e, NULL, NULL), GRAFT_E_INPUT, "[8, 8]");
    assert_non_null(strstr(test_error.message, "q_proj.weight"));
    assert_non_null(strstr(test_error.message, "[4, 16]"));
    assert_non_null(strstr(test_error.message, "model.safetensors"));
}

static void tensor_of_a_type_that_is_no_weight(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "types", tied_config);
    edit_find(&e, "model.norm.weight")->view.type = DTYPE_I32;
    assert_refused(edit_open(&e, NULL, NULL), GRAFT_E_UNSUPPORTED, "I32");
}

static void tensor_missing(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "missing", tied_config);
    *edit_find(&e, "model.layers.0.mlp.up_proj.weight") = e.tensors[--e.n];
    assert_refused(edit_open(&e, NULL, NULL), GRAFT_E_INPUT, "model.layers.0.mlp.up_proj.weight");
}

static void head_missing_though_untied(void **state) {
    (void)state;
    edited e;
    char path[4200], config[512];
    edit_begin(&e, "no_head", tied_config);
    snprintf(config, sizeof config, "%s", tied_config);
    memcpy(strstr(config, "true}"), "false}", 7);
    snprintf(path, sizeof path, "%s/config.json", e.folder);
    assert_ok(file_write_atomic(path, config, strlen(config), &test_error));
    assert_refused(edit_open(&e, NULL, NULL), GRAFT_E_INPUT, "tie_word_embeddings");
}

static void tensors_left_over(void **state) {
    (void)state;
    edited e;
    float values[8] = {0};
    tensor_view eight = {.data = values, .type = DTYPE_F32, .rank = 1, .shape = {8}};
    edit_begin(&e, "buffers", tied_config);
    e.tensors[e.n++] = (named_tensor){"model.layers.0.self_attn.rotary_emb.inv_freq", eight};
    assert_ok(edit_open(&e, NULL, NULL));
    assert_int_equal(n_messages, 0);

    edit_begin(&e, "reward", tied_config);
    e.tensors[e.n++] = (named_tensor){"score.weight", eight};
    assert_ok(edit_open(&e, NULL, NULL));
    assert_int_equal(n_messages, 1);
    assert_non_null(strstr(last_message, "score.weight"));

    edit_begin(&e, "deeper", tied_config);
    e.tensors[e.n++] = (named_tensor){"model.layers.1.input_layernorm.weight", eight};
    assert_refused(edit_open(&e, NULL, NULL), GRAFT_E_INPUT,
                   "model.layers.1.input_layernorm.weight");

    edit_begin(&e, "bias", tied_config);
    e.tensors[e.n++] = (named_tensor){"model.layers.0.self_attn.q_proj.bias", eight};
    assert_refused(edit_open(&e, NULL, NULL), GRAFT_E_INPUT, "q_proj.bias");
}

static void tensors_of_mixed_types(void **state) {
    (void)state;
    edited e;
    dtype norm_type = DTYPE_F32;
    uint16_t norm[8];
    edit_begin(&e, "mixed", tied_config);
    for (int i = 0; i < 8; i++)
        norm[i] = f32_to_bf16(1);
    edit_find(&e, "model.norm.weight")->view =
        (tensor_view){.data = norm, .type = DTYPE_BF16, .rank = 1, .shape = {8}};
    assert_ok(edit_open(&e, NULL, &norm_type));
    assert_int_equal(norm_type, DTYPE_BF16);
}

/* ---- Sharded checkpoints ---- */

/* Splits the model in two shards with an index whose weight_map is `map`, or the right one for
 * NULL. */
static const char *shard(const char *name, const char *map) {
    edited e;
    char path[4200];
    strbuf index = {0};
    edit_begin(&e, name, tied_config);
    size_t half = e.n / 2;
    snprintf(path, sizeof path, "%s/model-00001-of-00002.safetensors", e.folder);
    assert_ok(safetensors_write(path, e.tensors, half, &test_error));
    snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", e.folder);
    assert_ok(safetensors_write(path, e.tensors + half, e.n - half, &test_error));
    strbuf_add_text(&index, "{\"weight_map\": ");
    if (map) {
        strbuf_add_text(&index, map);
    } else {
        safetensors_close(&e.files);
        edit_begin(&e, name, tied_config);
        for (size_t i = 0; i < e.n; i++)
            strbuf_printf(&index, "%s\"%s\": \"model-0000%d-of-00002.safetensors\"", i ? ", " : "{",
                          safetensors_name(e.files, i), 1 + (i >= half));
        strbuf_add_text(&index, "}");
    }
    strbuf_add_text(&index, "}");
    safetensors_close(&e.files);
    snprintf(path, sizeof path, "%s/model.safetensors", e.folder);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", e.folder);
    assert_ok(file_write_atomic(path, index.data, index.length, &test_error));
    strbuf_free(&index);
    return e.folder;
}

static graft_status open_folder(const char *folder) {
    model_spec spec;
    weight_source *source = NULL;
    backend *dev = test_backend(0);
    assert_ok(model_spec_read(&spec, folder, NULL, &test_error));
    graft_status status = weight_source_open(&source, dev, &spec, folder, &sink, &test_error);
    weight_source_close(&source);
    model_spec_free(&spec);
    backend_destroy(&dev);
    return status;
}

static void sharded_model(void **state) {
    (void)state;
    assert_ok(open_folder(shard("sharded", NULL)));
}

static void index_rows_that_are_refused(void **state) {
    (void)state;
    assert_refused(open_folder(shard("parent", "{\"a\": \"../x.safetensors\"}")), GRAFT_E_INPUT,
                   "..");
    assert_refused(open_folder(shard("absolute", "{\"a\": \"/etc/x.safetensors\"}")), GRAFT_E_INPUT,
                   "/etc");
    assert_refused(open_folder(shard("backslash", "{\"a\": \"a\\\\x.safetensors\"}")),
                   GRAFT_E_INPUT, "");
    assert_refused(open_folder(shard("shard_missing", "{\"a\": \"model-9.safetensors\"}")),
                   GRAFT_E_INPUT, "model-9.safetensors");
    assert_refused(open_folder(shard("absent", "{\"a\": \"model-00001-of-00002.safetensors\"}")),
                   GRAFT_E_INPUT, "a");
    assert_refused(open_folder(shard("empty_map", "{}")), GRAFT_E_INPUT, "weight_map");
    assert_refused(open_folder(shard("list_map", "[]")), GRAFT_E_INPUT, "weight_map");
}

static void only_pytorch_model_bin(void **state) {
    (void)state;
    char path[4200];
    const char *folder = model_case_write("pickle", tied_config, 1);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/pytorch_model.bin", folder);
    assert_ok(file_write_atomic(path, "PK", 2, &test_error));
    assert_refused(open_folder(folder), GRAFT_E_INPUT, "pytorch_model.bin");
}

/* ---- The hub's cache ---- */

static void write_text(const char *folder, const char *name, const char *text) {
    char path[4200], parent[4200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    assert_ok(folder_create(parent, &test_error));
    assert_ok(file_write_atomic(path, text, strlen(text), &test_error));
}

static void set_cache(char *root, size_t capacity) {
    snprintf(root, capacity, "%s/cache", test_folder());
    assert_ok(folder_create(root, &test_error));
    setenv("HF_HUB_CACHE", root, 1);
    write_text(root, "models--org--name/refs/main", "abc123\n");
    write_text(root, "models--org--name/refs/refs/pr/1", "def456");
    write_text(root, "models--org--name/blobs/b1", "{}");
    write_text(root, "models--org--name/snapshots/abc123/README.md", "");
    write_text(root, "models--org--name/snapshots/def456/README.md", "");
    write_text(root, "models--gpt2/refs/main", "abc123");
    write_text(root, "models--gpt2/snapshots/abc123/README.md", "");
    write_text(root, "models--org--bad/refs/main", "../../../etc");
}

static void expect_folder(const char *model, const char *end) {
    char *folder = NULL;
    assert_ok(model_folder_find(&folder, model, &test_error));
    size_t length = strlen(folder), end_length = strlen(end);
    if (length < end_length || strcmp(folder + length - end_length, end) != 0)
        fail_msg("%s is %s, not ...%s", model, folder, end);
    free(folder);
}

static void models_in_the_hub_cache(void **state) {
    (void)state;
    char root[4096];
    set_cache(root, sizeof root);
    expect_folder("org/name", "models--org--name/snapshots/abc123");
    expect_folder("org/name@main", "models--org--name/snapshots/abc123");
    expect_folder("org/name@refs/pr/1", "models--org--name/snapshots/def456");
    expect_folder("org/name@def456", "models--org--name/snapshots/def456");
    expect_folder("gpt2", "models--gpt2/snapshots/abc123");
    expect_folder(root, "cache");
}

static void models_that_are_nowhere(void **state) {
    (void)state;
    char root[4096], *folder = NULL;
    set_cache(root, sizeof root);
    assert_refused(model_folder_find(&folder, "org/other", &test_error), GRAFT_E_INPUT,
                   "hf download org/other");
    assert_refused(model_folder_find(&folder, "org/name@v9", &test_error), GRAFT_E_INPUT, "v9");
    assert_refused(model_folder_find(&folder, "org/bad", &test_error), GRAFT_E_INPUT, "commit");
    assert_refused(model_folder_find(&folder, "../org/name", &test_error), GRAFT_E_INPUT,
                   "ORG/NAME");
    assert_refused(model_folder_find(&folder, "a/b/c", &test_error), GRAFT_E_INPUT, "ORG/NAME");
    assert_refused(model_folder_find(&folder, "org/name@../x", &test_error), GRAFT_E_INPUT,
                   "ORG/NAME");
    assert_refused(model_folder_find(&folder, "", &test_error), GRAFT_E_INPUT, "ORG/NAME");
    const char *file = test_file("plain", "x", 1);
    assert_refused(model_folder_find(&folder, file, &test_error), GRAFT_E_INPUT, "found a file");
    assert_null(folder);
}

/* snapshots/COMMIT/config.json -> ../../blobs/... as huggingface_hub lays files. */
static void snapshots_are_links_to_blobs(void **state) {
    (void)state;
    char root[4096], path[4200], *folder = NULL;
    model_spec spec;
    set_cache(root, sizeof root);
    write_text(root, "models--org--name/blobs/b2", tied_config);
    snprintf(path, sizeof path, "%s/models--org--name/snapshots/abc123/config.json", root);
    assert_int_equal(symlink("../../blobs/b2", path), 0);
    assert_ok(model_folder_find(&folder, "org/name", &test_error));
    assert_ok(model_spec_read(&spec, folder, NULL, &test_error));
    model_spec_free(&spec);
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tied_head_with_an_equal_copy_on_disk),
        cmocka_unit_test(tied_embeddings_yet_different_lm_head),
        cmocka_unit_test(config_disagrees_with_tensor_shapes),
        cmocka_unit_test(tensor_of_a_type_that_is_no_weight),
        cmocka_unit_test(tensor_missing),
        cmocka_unit_test(head_missing_though_untied),
        cmocka_unit_test(tensors_left_over),
        cmocka_unit_test(tensors_of_mixed_types),
        cmocka_unit_test(sharded_model),
        cmocka_unit_test(index_rows_that_are_refused),
        cmocka_unit_test(only_pytorch_model_bin),
        cmocka_unit_test(models_in_the_hub_cache),
        cmocka_unit_test(models_that_are_nowhere),
        cmocka_unit_test(snapshots_are_links_to_blobs),
    };
    return cmocka_run_group_tests_name("model_weights", tests, NULL, NULL);
}
