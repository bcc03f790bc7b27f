#include "adapter/config_keys.h"

#include <string.h>

/* Sorted: the order in which they are written. */
static const config_key keys[] = {
    {"alora_invocation_tokens", KEY_LACKED, "null", "activated LoRA", true},
    {"alpha_pattern", KEY_OURS, NULL, NULL, true},
    {"arrow_config", KEY_LACKED, "null", "Arrow routing", true},
    {"auto_mapping", KEY_STATED, "null", NULL, true},
    {"base_model_name_or_path", KEY_OURS, NULL, NULL, true},
    {"bias", KEY_OURS, NULL, NULL, true},
    {"corda_config", KEY_LACKED, "null", "CorDA initialisation", true},
    {"ensure_weight_tying", KEY_OURS, NULL, NULL, true},
    {"eva_config", KEY_LACKED, "null", "EVA initialisation", true},
    {"exclude_modules", KEY_OURS, NULL, NULL, true},
    {"fan_in_fan_out", KEY_LACKED, "false", "the transposed weights of GPT-2's Conv1D", true},
    {"inference_mode", KEY_STATED, "true", NULL, true},
    {"init_lora_weights", KEY_OURS, NULL, NULL, true},
    {"kasa_config", KEY_LACKED, "null", "KaSA", true},
    {"layer_replication", KEY_LACKED, "null", "layer replication", true},
    {"layers_pattern", KEY_OURS, NULL, NULL, true},
    {"layers_to_transform", KEY_OURS, NULL, NULL, true},
    {"loftq_config", KEY_LACKED, "{}", "LoftQ initialisation", true},
    {"lora_alpha", KEY_OURS, NULL, NULL, true},
    {"lora_bias", KEY_OURS, NULL, NULL, true},
    {"lora_dropout", KEY_OURS, NULL, NULL, true},
    {"lora_ga_config", KEY_LACKED, "null", "LoRA-GA initialisation", true},
    {"megatron_config", KEY_LACKED, "null", "Megatron's parallel layers", true},
    {"megatron_core", KEY_STATED, "\"megatron.core\"", NULL, true},
    {"modules_to_save", KEY_OURS, NULL, NULL, true},
    {"monteclora_config", KEY_LACKED, "null", "MonteCLoRA", true},
    {"peft_type", KEY_OURS, NULL, NULL, true},
    {"peft_version", KEY_STATED, "\"" PEFT_FORMAT_VERSION "\"", NULL, true},
    /* Counts only where use_qalora is set, and that is refused. */
    {"qalora_group_size", KEY_STATED, "16", NULL, true},
    {"r", KEY_OURS, NULL, NULL, true},
    {"rank_pattern", KEY_OURS, NULL, NULL, true},
    {"revision", KEY_OURS, NULL, NULL, true},
    {"runtime_config", KEY_STATED, "null", NULL, false},
    {"target_modules", KEY_OURS, NULL, NULL, true},
    {"target_parameters", KEY_LACKED, "null", "LoRA on bare parameters (stacked experts)", true},
    {"task_type", KEY_OURS, NULL, NULL, true},
    {"trainable_token_indices", KEY_LACKED, "null", "trainable token rows", true},
    {"use_bdlora", KEY_LACKED, "null", "block-diagonal LoRA", true},
    {"use_dora", KEY_LACKED, "false", "DoRA", true},
    {"use_qalora", KEY_LACKED, "false", "QALoRA", true},
    {"use_rslora", KEY_OURS, NULL, NULL, true},
    {"velora_config", KEY_LACKED, "null", "VeLoRA", true},
};

const config_key *config_key_find(const char *name) {
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(keys[i].name, name))
            return &keys[i];
    return NULL;
}

const config_key *config_key_at(size_t i) {
    return i < sizeof keys / sizeof *keys ? &keys[i] : NULL;
}
