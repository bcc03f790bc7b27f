#include "adapter/methods.h"

#include <strings.h>

/* The methods there are: one line each. */
static const adapter_method *const methods[] = {&lora_method, &full_method};

enum { N_METHODS = sizeof methods / sizeof *methods };

const adapter_method *adapter_method_find(const char *name) {
    for (size_t i = 0; i < N_METHODS; i++)
        if (!strcasecmp(methods[i]->name, name) || !strcasecmp(methods[i]->peft_type, name))
            return methods[i];
    return NULL;
}

const adapter_method *adapter_method_at(size_t i) {
    return i < N_METHODS ? methods[i] : NULL;
}
