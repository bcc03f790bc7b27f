/* Any adapter_config.json is read or refused; what is read either has its place on a small model or
 * is refused there, can be written, and the written text is read again. */
#include "tests/fuzz/fuzz.h"

#include "adapter/adapter.h"

#include <stdlib.h>
#include <string.h>

static const char model[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 24, \"hidden_size\": 8, \"intermediate_size\": "
    "12, "
    "\"num_hidden_layers\": 3, \"num_attention_heads\": 2, \"tie_word_embeddings\": true, "
    "\"attention_bias\": true}";

static void check_written(const adapter_config *config) {
    strbuf text = {0};
    json_t *parsed = NULL;
    adapter_config again;
    graft_error err;
    if (adapter_config_write(&text, config, config->base_model, &err) != GRAFT_OK ||
        json_parse(&parsed, text.data, text.length, "written", &err) != GRAFT_OK ||
        adapter_config_parse(&again, parsed, "written", NULL, &err) != GRAFT_OK)
        abort();
    json_decref(parsed);
    adapter_config_free(&again);
    strbuf_free(&text);
}

static void check_shape(const adapter_config *config) {
    model_spec spec;
    json_t *parsed = NULL;
    adapter *a = NULL;
    graft_error err;
    if (json_parse(&parsed, model, strlen(model), "model", &err) != GRAFT_OK ||
        model_spec_parse(&spec, parsed, "model", NULL, &err) != GRAFT_OK)
        abort();
    json_decref(parsed);
    if (adapter_create(&a, config, &spec, 0, NULL, &err) == GRAFT_OK) {
        layout counted = layout_counting();
        adapter_layout(a, &counted, 8, true);
        if (adapter_trained_count(a) <= 0 || counted.overflow)
            abort();
    }
    adapter_destroy(&a);
    model_spec_free(&spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *parsed = NULL;
    adapter_config config;
    graft_error err;
    if (json_parse(&parsed, (const char *)data, size, "adapter_config.json", &err) != GRAFT_OK)
        return 0;
    graft_status status = adapter_config_parse(&config, parsed, "adapter_config.json", NULL, &err);
    json_decref(parsed);
    if (status != GRAFT_OK)
        return 0;
    check_written(&config);
    check_shape(&config);
    adapter_config_free(&config);
    return 0;
}
