/* The method descriptions, for the table in methods.c; and what methods that save as PEFT
 * directories share. */
#ifndef GRAFT_ADAPTER_METHODS_H
#define GRAFT_ADAPTER_METHODS_H

#include "adapter/adapter.h"
#include "adapter/config_keys.h"

extern const config_key lora_keys[];

extern const adapter_method lora_method;
extern const adapter_method adalora_method;
extern const adapter_method full_method;
extern const adapter_method ia3_method;
extern const adapter_method loha_method;
extern const adapter_method hira_method;
extern const adapter_method lokr_method;
extern const adapter_method glora_method;
extern const adapter_method miss_method;
extern const adapter_method delora_method;
extern const adapter_method gralora_method;
extern const adapter_method vera_method;
extern const adapter_method pvera_method;
extern const adapter_method randlora_method;
extern const adapter_method vblora_method;
extern const adapter_method unilora_method;
extern const adapter_method tinylora_method;
extern const adapter_method deft_method;
extern const adapter_method oft_method;
extern const adapter_method boft_method;
extern const adapter_method hra_method;
extern const adapter_method road_method;
extern const adapter_method fourierft_method;
extern const adapter_method waveft_method;
extern const adapter_method c3a_method;
extern const adapter_method peanut_method;
extern const adapter_method psoft_method;
extern const adapter_method osf_method;
extern const adapter_method frod_method;
extern const adapter_method ln_tuning_method;
extern const adapter_method beft_method;
extern const adapter_method shira_method;
extern const adapter_method supertuning_method;
extern const adapter_method prompt_tuning_method;
extern const adapter_method prefix_tuning_method;
extern const adapter_method p_tuning_method;
extern const adapter_method cartridge_method;
extern const adapter_method cpt_method;
extern const adapter_method multitask_prompt_tuning_method;
extern const adapter_method trainable_tokens_method;

/* adapter_model.safetensors and adapter_config.json, in and out. */
graft_status peft_load(adapter *, backend *, const weight_source *, const char *folder,
                       graft_error *);
graft_status peft_save(const adapter *, backend *, const weight_source *, const char *folder,
                       const char *base_name, graft_error *);

#endif
