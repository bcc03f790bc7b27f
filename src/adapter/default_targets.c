#include "adapter/default_targets.h"

#include "model/spec.h"

#include <string.h>

const char *const *default_targets_of_older_models(const char *model_type) {
    static const char *const opt[] = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", NULL};
    static const char *const as_lora[] = {"gpt2",   "bloom",       "gpt_neox", "llama", "gemma",
                                          "gemma2", "gemma3_text", "qwen2",    "qwen3"};
    const model_family *family = model_family_find(model_type);
    if (!strcmp(model_type, "opt"))
        return opt;
    for (size_t i = 0; i < sizeof as_lora / sizeof *as_lora; i++)
        if (!strcmp(model_type, as_lora[i]))
            return family ? family->lora_default_targets : NULL;
    return NULL;
}
