/* The template that comes with a model. */
#include "text/template/template.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 64 << 20 };

static graft_status parse_file(chat_template **out, const char *path, graft_error *err) {
    char *source = NULL;
    size_t n;
    graft_status status = file_read_all(&source, &n, path, TEMPLATE_SOURCE_MAX, err);
    if (status == GRAFT_OK)
        status = template_parse(out, source, n, path, err);
    free(source);
    return status;
}

/* additional_chat_templates/NAME.jinja, where a model has more than one. *out stays NULL when it is
 * not there. */
static graft_status parse_additional(chat_template **out, const char *folder, const char *name,
                                     graft_error *err) {
    strbuf path = {0};
    graft_status status = GRAFT_OK;
    strbuf_printf(&path, "%s/additional_chat_templates/%s.jinja", folder, name);
    if (path.failed)
        status = error_memory(err, 0, "a path");
    else if (!strchr(name, '/') && path_exists(path.data))
        status = parse_file(out, path.data, err);
    strbuf_free(&path);
    return status;
}

static graft_status parse_string(chat_template **out, const json_t *source, const char *path,
                                 const char *name, graft_error *err) {
    strbuf origin = {0};
    strbuf_printf(&origin, name ? "%s: chat_template \"%s\"" : "%s: chat_template", path,
                  name ? name : "");
    graft_status status = origin.failed
                              ? error_memory(err, 0, "a name")
                              : template_parse(out, json_string_value(source),
                                               json_string_length(source), origin.data, err);
    strbuf_free(&origin);
    return status;
}

static const json_t *find_named(const json_t *list, const char *name) {
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry) {
        const json_t *key = json_object_get(entry, "name"),
                     *source = json_object_get(entry, "template");
        if (json_is_string(key) && json_is_string(source) &&
            strcmp(json_string_value(key), name) == 0)
            return source;
    }
    return NULL;
}

static graft_status refuse_name(const json_t *list, const char *path, const char *name,
                                graft_error *err) {
    strbuf names = {0};
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry) {
        const json_t *key = json_object_get(entry, "name");
        if (json_is_string(key))
            strbuf_printf(&names, "%s\"%s\"", names.length ? ", " : "", json_string_value(key));
    }
    graft_status status =
        error_set(err, GRAFT_E_INPUT, "%s: chat_template has no template named \"%s\"; it has %s",
                  path, name, names.length ? strbuf_text(&names) : "none");
    strbuf_free(&names);
    return status;
}

static graft_status parse_config(chat_template **out, const char *path, const char *name,
                                 bool has_tools, graft_error *err) {
    json_t *config = NULL;
    graft_status status = json_read_file(&config, path, CONFIG_BYTES_MAX, err);
    if (status != GRAFT_OK)
        return status;
    const json_t *entry = json_object_get(config, "chat_template"), *source = NULL;
    if (json_is_string(entry)) {
        status = parse_string(out, entry, path, NULL, err);
    } else if (json_is_array(entry)) {
        const char *wanted = name ? name : "default";
        if (!name && has_tools && find_named(entry, "tool_use"))
            wanted = "tool_use";
        source = find_named(entry, wanted);
        status = source ? parse_string(out, source, path, wanted, err)
                        : refuse_name(entry, path, wanted, err);
    } else if (entry && !json_is_null(entry)) {
        status =
            error_set(err, GRAFT_E_INPUT,
                      "%s: chat_template must be a string or a list of {\"name\", \"template\"}, "
                      "found %s",
                      path, json_type_name(entry));
    }
    json_decref(config);
    return status;
}

graft_status template_load_model(chat_template **out, const char *folder, const char *name,
                                 bool has_tools, graft_error *err) {
    *out = NULL;
    graft_status status = GRAFT_OK;
    char *file = path_join(folder, "chat_template.jinja");
    char *config = path_join(folder, "tokenizer_config.json");
    if (!file || !config)
        status = error_memory(err, 0, "a path");
    else if (name || has_tools)
        status = parse_additional(out, folder, name ? name : "tool_use", err);
    if (status == GRAFT_OK && !*out && path_exists(file))
        status = parse_file(out, file, err);
    else if (status == GRAFT_OK && !*out && path_exists(config))
        status = parse_config(out, config, name, has_tools, err);
    free(file);
    free(config);
    return status;
}
