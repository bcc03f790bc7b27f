/* Templates for models that bring none. */
#include "text/template/template.h"

#include <string.h>

static const struct {
    const char *name, *source;
} templates[] = {
    {"chatml",
     "{%- for message in messages %}\n"
     "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
     "{%- endfor %}\n"
     "{%- if add_generation_prompt %}\n"
     "    {{- '<|im_start|>assistant\\n' }}\n"
     "{%- endif %}\n"},
    {"llama3", "{{- bos_token }}\n"
               "{%- for message in messages %}\n"
               "    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}\n"
               "    {{- message.content | trim + '<|eot_id|>' }}\n"
               "{%- endfor %}\n"
               "{%- if add_generation_prompt %}\n"
               "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n"
               "{%- endif %}\n"},
    {"gemma", "{{- bos_token }}\n"
              "{%- for message in messages %}\n"
              "    {%- set role = 'model' if message.role == 'assistant' else message.role %}\n"
              "    {{- '<start_of_turn>' + role + '\\n' + message.content | trim }}\n"
              "    {{- '<end_of_turn>\\n' }}\n"
              "{%- endfor %}\n"
              "{%- if add_generation_prompt %}\n"
              "    {{- '<start_of_turn>model\\n' }}\n"
              "{%- endif %}\n"},
    {"zephyr", "{%- for message in messages %}\n"
               "    {{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}\n"
               "{%- endfor %}\n"
               "{%- if add_generation_prompt %}\n"
               "    {{- '<|assistant|>\\n' }}\n"
               "{%- endif %}\n"},
};

const char *template_builtin(const char *name) {
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].name, name) == 0)
            return templates[i].source;
    return NULL;
}

const char *template_builtin_name(size_t i) {
    return i < sizeof templates / sizeof *templates ? templates[i].name : NULL;
}
