#include "text/tokenizer/special_tokens.h"

graft_status special_tokens_json(json_t **out, const tokenizer *t, graft_error *err) {
    const char *name, *text;
    *out = json_object();
    for (size_t i = 0; *out && t && tokenizer_special_token(t, i, &name, &text); i++) {
        if (json_object_set_new(*out, name, json_string(text)) != 0) {
            json_decref(*out);
            *out = NULL;
        }
    }
    return *out ? GRAFT_OK : error_memory(err, 0, "the special tokens");
}
