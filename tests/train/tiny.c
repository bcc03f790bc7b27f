#include "tests/train/tiny.h"

#include "train/memory_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char TINY_RUN_A[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const char TINY_RUN_B[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

static const adapter_method method = {.peft_type = "FULL", .name = "full"};

static device_array *part(const tiny_run *t, int tensor, int which) {
    return array_at(t->dev, t->memory, (TINY_PARTS * tensor + which) * TINY_ELEMENTS);
}

void tiny_open(tiny_run *t) {
    *t = (tiny_run){0};
    assert_ok(backend_create_reference(&t->dev, &test_error));
    t->memory = t->dev->ops->alloc(t->dev, TINY_TENSORS * TINY_PARTS * TINY_ELEMENTS *
                                               t->dev->element_bytes);
    t->staging = malloc(STAGING_ELEMENTS * t->dev->element_bytes);
    t->adapter = (adapter){.method = &method, .tensors = t->tensors, .n_tensors = TINY_TENSORS};
    for (int i = 0; i < TINY_TENSORS; i++) {
        t->tensors[i] = (adapter_tensor){.rank = i == 0 ? 2 : 1,
                                         .shape = {4, i == 0 ? 3 : 0},
                                         .count = i == 0 ? 12 : 4,
                                         .value = part(t, i, 0),
                                         .gradient = part(t, i, 1),
                                         .moment1 = part(t, i, 2),
                                         .moment2 = part(t, i, 3)};
        snprintf(t->tensors[i].key, sizeof t->tensors[i].key, "model.part%d.weight", i);
    }
}

void tiny_close(tiny_run *t) {
    t->dev->ops->release(t->dev, t->memory);
    backend_destroy(&t->dev);
    free(t->staging);
}

void tiny_fill(tiny_run *t, double first) {
    enum { ALL = TINY_TENSORS * TINY_PARTS * TINY_ELEMENTS };
    double values[ALL];
    for (int i = 0; i < ALL; i++)
        values[i] = first + 0.1 * i;
    t->dev->ops->upload(t->dev, t->memory, values, DTYPE_F64, ALL);
}

graft_status tiny_save(tiny_run *t, const char *output, const char *run_id, int64_t step,
                       graft_error *err) {
    const checkpoint_source source = {.adapter = &t->adapter,
                                      .dev = t->dev,
                                      .recipe = "learning_rate: 1\n",
                                      .staging = t->staging};
    checkpoint_state state = {
        .progress = {step, step - 1, 1, 0, 100 * step, 60 * step, {step / 3, step % 3}},
        .total_steps = 99,
        .seed = 0xfedcba9876543210u,
        .data_hash = 0x8000000000000001u,
        .base_hash = 7,
        .settings = json_pack("{s:i}", "seed", 3),
    };
    memcpy(state.run_id, run_id, RUN_ID_BYTES);
    char *path = NULL;
    graft_status status = checkpoint_save(&path, output, &state, &source, err);
    free(path);
    checkpoint_state_free(&state);
    return status;
}
