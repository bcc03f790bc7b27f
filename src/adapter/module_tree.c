#include "adapter/module_tree.h"

#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = sizeof((model_module *)0)->name };

bool module_is_within(const char *name, const char *module) {
    size_t n = strlen(module);
    return !strncmp(name, module, n) && (name[n] == '\0' || name[n] == '.');
}

const char *module_last_part(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

bool module_ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end) && (n == m || name[n - m - 1] == '.');
}

/* Weightless modules that stand in this container. */
static graft_status visit_weightless(const model_spec *spec, const char *container,
                                     module_name_fn visit, void *context, graft_error *err) {
    const model_family *family = spec->family;
    char name[NAME_BYTES + 16];
    size_t outer = (size_t)(module_last_part(family->layers_path) - family->layers_path);
    if (outer && strlen(container) == outer - 1 &&
        !strncmp(container, family->layers_path, outer - 1)) {
        snprintf(name, sizeof name, "%s.rotary_emb", container);
        return visit(context, name, err);
    }
    const char *gate = family->linear_names[LINEAR_GATE];
    if (!gate) /* families without one call their activation many names, and nobody targets it */
        return GRAFT_OK;
    const char *mlp = module_last_part(container);
    size_t mlp_length = (size_t)(module_last_part(gate) - gate);
    if (strlen(mlp) + 1 == mlp_length && !strncmp(mlp, gate, mlp_length - 1)) {
        snprintf(name, sizeof name, "%s.act_fn", container);
        return visit(context, name, err);
    }
    return GRAFT_OK;
}

/* Containers of `name` that the module before it was not in. Modules come in the tree's order, so
 * each is seen once. */
static graft_status visit_containers(const model_spec *spec, const char *name, const char *before,
                                     module_name_fn visit, void *context, graft_error *err) {
    char container[NAME_BYTES];
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        snprintf(container, sizeof container, "%.*s", (int)(dot - name), name);
        if (module_is_within(before, container))
            continue;
        graft_status status = visit(context, container, err);
        if (status == GRAFT_OK)
            status = visit_weightless(spec, container, visit, context, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

graft_status module_tree_visit(const model_spec *spec, const model_module *modules, size_t n,
                               module_name_fn visit, void *context, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < n && status == GRAFT_OK; i++)
        status = visit_containers(spec, modules[i].name, i ? modules[i - 1].name : "", visit,
                                  context, err);
    return status;
}
