/* Starts of LoRA: at first the model is the base's, whatever the start took out of it; trained, an
 * adapter computes the same when it is loaded again, saved as plain LoRA of twice the rank or as
 * PEFT saves it without conversion. */
#include "tests/parity/adapter_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LORA(start, more)                                                                          \
    "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 6, \"target_modules\": [\"q_proj\", "     \
    "\"up_proj\", "                                                                                \
    "\"down_proj\", \"embed_tokens\"], \"init_lora_weights\": " start more "}"

static const adapter_kind kinds[] = {
    {"true", LORA("true", ""), NULL},
    {"gaussian", LORA("\"gaussian\"", ""), NULL},
    {"pissa", LORA("\"pissa\"", ""), NULL},
    {"pissa_patterns",
     LORA("\"pissa\"", ", \"rank_pattern\": {\"up_proj\": 3}, \"alpha_pattern\": {\"q_proj\": 5}"),
     NULL},
    {"pissa_rslora",
     LORA("\"pissa\"", ", \"use_rslora\": true, \"rank_pattern\": {\"up_proj\": 2}"), NULL},
    {"pissa_dora", LORA("\"pissa\"", ", \"use_dora\": true"), NULL},
    {"pissa_dora_dropout", LORA("\"pissa\"", ", \"use_dora\": true, \"lora_dropout\": 0.5"), NULL},
    {"pissa_niter", LORA("\"pissa_niter_4\"", ""), NULL},
    {"olora", LORA("\"olora\"", ""), NULL},
    {"mica", LORA("\"mica\"", ""), NULL},
    {"orthogonal", LORA("\"orthogonal\"", ""), NULL},
};

static void assert_same(const float *got, const float *expected, int32_t n, const char *what) {
    float largest = 0;
    for (int32_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(expected[i]));
    for (int32_t i = 0; i < n; i++)
        test_assert_near((double)got[i], (double)expected[i], 2e-6 * (double)largest, 0, what);
}

static int32_t count_of(const adapter_case *c) {
    return c->model.batch->tokens.n * c->model.spec.vocab;
}

static void starts_as_the_base(void **state) {
    const adapter_kind *kind = *state;
    static adapter_case c;
    static model_case base;
    bool drops =
        strstr(kind->config, "lora_dropout"); /* then A and B see another x than the base */
    for (int training = 0; training < (drops ? 1 : 2); training++) {
        adapter_case_open_new(&c, test_backend(0), kind, training);
        model_case_open(&base, test_backend(0), c.folder, "config.json");
        model_case_layout(&base, &adapter_case_limits);
        adapter_case_fill(&base, false);
        float *got = adapter_case_logits(&c.model), *expected = adapter_case_logits(&base);
        assert_same(got, expected, count_of(&c), kind->name);
        free(got);
        free(expected);
        model_case_close(&base);
        adapter_case_close(&c);
    }
}

/* The logits of the base with the adapter in `folder`. */
static float *logits_of_folder(const adapter_case *c, const char *folder) {
    static adapter_case loaded;
    adapter_config config;
    loaded = (adapter_case){0};
    model_case_open(&loaded.model, test_backend(0), c->folder, "config.json");
    assert_ok(adapter_config_read(&config, folder, NULL, &test_error));
    assert_ok(adapter_create(&loaded.adapter, &config, &loaded.model.spec, 0, NULL, &test_error));
    adapter_config_free(&config);
    adapter_case_lay_out(&loaded);
    adapter_bind(loaded.adapter, &loaded.model.hooks);
    assert_ok(
        adapter_load(loaded.adapter, loaded.model.dev, loaded.model.weights, folder, &test_error));
    adapter_case_prepare(&loaded);
    model_case_layout(&loaded.model, &adapter_case_limits);
    adapter_case_fill(&loaded.model, false);
    float *logits = adapter_case_logits(&loaded.model);
    adapter_case_close(&loaded);
    return logits;
}

static void loads_as_it_was_trained(void **state) {
    const adapter_kind *kind = *state;
    static adapter_case c;
    adapter_case_open(&c, test_backend(0), kind, false);
    float *expected = adapter_case_logits(&c.model);
    for (int portable = 0; portable < 2; portable++) {
        char folder[4096], what[160];
        snprintf(folder, sizeof folder, "%s/%s.%d", test_folder(), kind->name, portable);
        snprintf(what, sizeof what, "%s, portable %d", kind->name, portable);
        c.adapter->is_portable = portable;
        assert_ok(
            adapter_save(c.adapter, c.model.dev, c.model.weights, folder, "base", &test_error));
        float *got = logits_of_folder(&c, folder);
        assert_same(got, expected, count_of(&c), what);
        free(got);
    }
    free(expected);
    adapter_case_close(&c);
}

int main(void) {
    enum { N = sizeof kinds / sizeof *kinds };
    struct CMUnitTest tests[2 * N];
    for (size_t i = 0; i < N; i++) {
        tests[2 * i] = (struct CMUnitTest){.name = kinds[i].name,
                                           .test_func = starts_as_the_base,
                                           .initial_state = (void *)&kinds[i]};
        tests[2 * i + 1] = (struct CMUnitTest){.name = kinds[i].name,
                                               .test_func = loads_as_it_was_trained,
                                               .initial_state = (void *)&kinds[i]};
    }
    return _cmocka_run_group_tests("parity_lora_starts", tests, 2 * N, NULL, NULL);
}
