#include "adapter/config_keys.h"

#include "adapter/adapter.h"

#include <string.h>

static const config_key common[] = {
    {.name = "auto_mapping", .kind = KEY_STATED, .fallback = "null"},
    {.name = "base_model_name_or_path", .kind = KEY_OURS},
    {.name = "inference_mode", .kind = KEY_STATED, .fallback = "true"},
    {.name = "peft_type", .kind = KEY_OURS},
    {.name = "peft_version", .kind = KEY_STATED, .fallback = "\"" PEFT_FORMAT_VERSION "\""},
    {.name = "revision", .kind = KEY_OURS},
    {.name = "task_type", .kind = KEY_OURS},
};

enum { N_COMMON = sizeof common / sizeof *common };

const config_key *config_key_find(const adapter_method *method, const char *name) {
    for (size_t i = 0; i < N_COMMON; i++)
        if (!strcmp(common[i].name, name))
            return &common[i];
    for (const config_key *key = method->keys; key && key->name; key++)
        if (!strcmp(key->name, name))
            return key;
    return NULL;
}

const config_key *config_key_at(const adapter_method *method, size_t i) {
    if (i < N_COMMON)
        return &common[i];
    i -= N_COMMON;
    for (const config_key *key = method->keys; key && key->name; key++)
        if (i-- == 0)
            return key;
    return NULL;
}
