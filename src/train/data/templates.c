#include "train/data/templates.h"

#include "base/file_map.h"

#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_FILE_MAX = 4 << 20 }; /* bytes */

void data_templates_free(data_templates *t) {
    template_destroy(&t->chat);
    template_destroy(&t->tools);
}

static graft_status load_model(data_templates *out, const char *folder, graft_error *err) {
    graft_status status = template_load_model(&out->chat, folder, NULL, false, err);
    if (status == GRAFT_OK && out->chat)
        status = template_load_model(&out->tools, folder, NULL, true, err);
    if (status == GRAFT_OK && out->tools &&
        !strcmp(template_source(out->tools), template_source(out->chat)))
        template_destroy(&out->tools);
    return status;
}

graft_status data_templates_load(data_templates *out, const char *model_folder, const char *choice,
                                 graft_error *err) {
    *out = (data_templates){0};
    graft_status status;
    if (!choice || !*choice) {
        status = load_model(out, model_folder, err);
    } else if (!strcmp(choice, "none")) {
        status = GRAFT_OK;
    } else if (template_builtin(choice)) {
        const char *source = template_builtin(choice);
        status = template_parse(&out->chat, source, strlen(source), choice, err);
    } else {
        char *source = NULL;
        size_t n = 0;
        status = file_read_all(&source, &n, choice, TEMPLATE_FILE_MAX, err);
        if (status == GRAFT_OK)
            status = template_parse(&out->chat, source, n, choice, err);
        free(source);
    }
    if (status != GRAFT_OK)
        data_templates_free(out);
    return status;
}
