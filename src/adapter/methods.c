#include "adapter/methods.h"

#include <string.h>
#include <strings.h>

/* The methods there are: one line each. */
static const adapter_method *const methods[] = {
    &lora_method,                    //
    &full_method,                    //
    &ia3_method,                     //
    &loha_method,                    //
    &prefix_tuning_method,           //
    &prompt_tuning_method,           //
    &p_tuning_method,                //
    &cartridge_method,               //
    &cpt_method,                     //
    &multitask_prompt_tuning_method, //
    &trainable_tokens_method,        //
    &hira_method,                    //
    &lokr_method,                    //
    &glora_method,                   //
    &miss_method,                    //
    &delora_method,                  //
    &gralora_method,                 //
    &vera_method,                    //
    &pvera_method,                   //
    &randlora_method,                //
    &vblora_method,                  //
    &unilora_method,                 //
    &tinylora_method,                //
    &deft_method,                    //
    &adalora_method,                 //
    &oft_method,                     //
    &boft_method,                    //
    &hra_method,                     //
    &road_method,                    //
    &fourierft_method,               //
    &waveft_method,                  //
    &c3a_method,                     //
    &peanut_method,                  //
    &psoft_method,                   //
    &osf_method,                     //
    &frod_method,                    //
    &ln_tuning_method,               //
    &beft_method,                    //
    &shira_method,                   //
    &supertuning_method,             //
};

enum { N_METHODS = sizeof methods / sizeof *methods };

const adapter_method *adapter_method_find(const char *name) {
    for (size_t i = 0; i < N_METHODS; i++)
        if (!strcasecmp(methods[i]->name, name) || !strcasecmp(methods[i]->peft_type, name))
            return methods[i];
    return NULL;
}

const adapter_method *adapter_method_of_type(const char *peft_type) {
    for (size_t i = 0; i < N_METHODS; i++)
        if (methods[i]->keys && !strcmp(methods[i]->peft_type, peft_type))
            return methods[i];
    return NULL;
}

const adapter_method *adapter_method_at(size_t i) {
    return i < N_METHODS ? methods[i] : NULL;
}
