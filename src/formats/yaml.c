#include "formats/yaml.h"

#include "base/file_map.h"
#include "base/memory.h"
#include "formats/utf8.h"

#include <libfyaml.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    YAML_BYTES_MAX = 1 << 20,
    YAML_DEPTH_MAX = 16,
    YAML_VALUES_MAX = 100000 /* aliases can name the same list many times over */
};

/* All values are gathered before the first is handed on, so that a file is refused whole or read
 * whole. */
typedef struct leaf {
    char *key, *value; /* owned; value NULL for null */
    int index, line;
    size_t entry; /* which key: value pair of the file it comes from */
} leaf;

typedef struct yaml_walk {
    const char *origin;
    leaf *leaves;
    size_t n, capacity, entries;
    graft_error *err;
} yaml_walk;

static int line_of(struct fy_node *node, int otherwise) {
    struct fy_token *token = fy_node_get_scalar_token(node);
    const struct fy_mark *mark = token ? fy_token_start_mark(token) : NULL;
    return mark ? mark->line + 1 : otherwise;
}

static graft_status refuse(const yaml_walk *walk, int line, const char *key, const char *expected,
                           const char *found) {
    return error_set(walk->err, GRAFT_E_INPUT, "%s:%d: \"%s\": expected %s, found %s", walk->origin,
                     line, key, expected, found);
}

/* The words that YAML 1.2's core schema reads as null; quoted they are text. */
static bool is_null(struct fy_node *node, const char *text, size_t n) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    struct fy_token *token = fy_node_get_scalar_token(node);
    if (token && fy_token_scalar_style(token) != FYSS_PLAIN)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i]) == n && !memcmp(words[i], text, n))
            return true;
    return false;
}

static graft_status add_leaf(yaml_walk *walk, struct fy_node *node, const char *key, int index,
                             int line) {
    size_t n = 0;
    const char *text = fy_node_get_scalar(node, &n);
    if (!text) {
        text = "";
        n = 0;
    }
    line = line_of(node, line);
    if (memchr(text, '\0', n))
        return refuse(walk, line, key, "text without NUL", "a NUL");
    if (walk->n == YAML_VALUES_MAX)
        return error_set(walk->err, GRAFT_E_INPUT, "%s:%d: expected at most %d values, found more",
                         walk->origin, line, (int)YAML_VALUES_MAX);
    if (!mem_reserve(&walk->leaves, &walk->capacity, walk->n + 1, sizeof *walk->leaves))
        return error_memory(walk->err, walk->n * sizeof *walk->leaves, walk->origin);
    bool null = is_null(node, text, n);
    leaf added = {.key = mem_text(key, strlen(key)),
                  .value = null ? NULL : mem_text(text, n),
                  .index = index,
                  .line = line,
                  .entry = walk->entries};
    walk->leaves[walk->n++] = added; /* freed with the others if it is incomplete */
    if (!added.key || (!added.value && !null))
        return error_memory(walk->err, n, walk->origin);
    return GRAFT_OK;
}

/* The node an alias stands for; NULL, with the error set, when it cannot be used. */
static struct fy_node *resolve(const yaml_walk *walk, struct fy_node *node, const char *key,
                               int line) {
    size_t length;
    if (fy_node_get_tag(node, &length)) {
        refuse(walk, line_of(node, line), key, "a plain value", "a tag (!...)");
        return NULL;
    }
    if (!fy_node_is_alias(node))
        return node;
    struct fy_node *target = fy_node_resolve_alias(node);
    if (!target)
        refuse(walk, line_of(node, line), key, "a value", "an alias (*...) of nothing");
    return target;
}

static graft_status walk_list(yaml_walk *walk, struct fy_node *list, const char *key, int line) {
    void *at = NULL;
    struct fy_node *element;
    int index = 0;
    while ((element = fy_node_sequence_iterate(list, &at))) {
        element = resolve(walk, element, key, line);
        if (!element)
            return GRAFT_E_INPUT;
        if (fy_node_get_type(element) != FYNT_SCALAR)
            return refuse(walk, line, key, "a list of plain values",
                          fy_node_get_type(element) == FYNT_MAPPING ? "a mapping in it"
                                                                    : "a list in it");
        graft_status status = add_leaf(walk, element, key, index++, line);
        if (status != GRAFT_OK)
            return status;
    }
    return index > 0
               ? GRAFT_OK
               : refuse(walk, line, key, "at least one value", "an empty list; use null for none");
}

static graft_status walk_mapping(yaml_walk *, struct fy_node *mapping, const char *prefix, int line,
                                 int depth);

static graft_status walk_value(yaml_walk *walk, struct fy_node *node, const char *key, int line,
                               int depth) {
    if (!node) { /* "key:" and nothing */
        walk->entries++;
        return add_leaf(walk, NULL, key, -1, line);
    }
    node = resolve(walk, node, key, line);
    if (!node)
        return GRAFT_E_INPUT;
    if (fy_node_get_type(node) == FYNT_MAPPING)
        return walk_mapping(walk, node, key, line, depth + 1);
    walk->entries++;
    if (fy_node_get_type(node) == FYNT_SEQUENCE)
        return walk_list(walk, node, key, line);
    return add_leaf(walk, node, key, -1, line);
}

static graft_status walk_pair(yaml_walk *walk, struct fy_node_pair *pair, const char *prefix,
                              int line, int depth) {
    const char *shown = *prefix ? prefix : "(top)";
    struct fy_node *key_node = fy_node_pair_key(pair);
    if (key_node)
        line = line_of(key_node, line);
    size_t n = 0;
    const char *name =
        key_node && fy_node_get_type(key_node) == FYNT_SCALAR && !fy_node_is_alias(key_node)
            ? fy_node_get_scalar(key_node, &n)
            : NULL;
    if (!name || n == 0 || memchr(name, '\0', n))
        return refuse(walk, line, shown, "option names as keys", "another kind of key");
    if (n == 2 && !memcmp(name, "<<", 2))
        return refuse(walk, line, shown, "option names as keys",
                      "a merge (<<); write the options out");
    strbuf key = {0};
    if (*prefix)
        strbuf_printf(&key, "%s.", prefix);
    strbuf_add(&key, name, n);
    graft_status status = key.failed
                              ? error_memory(walk->err, n, walk->origin)
                              : walk_value(walk, fy_node_pair_value(pair), key.data, line, depth);
    strbuf_free(&key);
    return status;
}

static graft_status walk_mapping(yaml_walk *walk, struct fy_node *mapping, const char *prefix,
                                 int line, int depth) {
    if (depth > YAML_DEPTH_MAX)
        return refuse(walk, line, prefix, "fewer nested mappings", "a mapping that nests too deep");
    void *at = NULL;
    struct fy_node_pair *pair;
    bool any = false;
    while ((pair = fy_node_mapping_iterate(mapping, &at))) {
        any = true;
        graft_status status = walk_pair(walk, pair, prefix, line, depth);
        if (status != GRAFT_OK)
            return status;
    }
    if (!any && depth > 0)
        return refuse(walk, line, prefix, "at least one option",
                      "an empty mapping; use null for none");
    return GRAFT_OK;
}

static int compare_leaves(const void *a, const void *b) {
    const leaf *left = *(const leaf *const *)a, *right = *(const leaf *const *)b;
    int by_key = strcmp(left->key, right->key);
    return by_key ? by_key : (left->entry > right->entry) - (left->entry < right->entry);
}

/* "lora.r: 8" and "lora: {r: 16}" name the same option: libfyaml sees only equal keys of one
 * mapping. */
static graft_status check_duplicates(const yaml_walk *walk) {
    const leaf **sorted = mem_array(walk->n, sizeof *sorted);
    if (!sorted)
        return error_memory(walk->err, walk->n * sizeof *sorted, walk->origin);
    for (size_t i = 0; i < walk->n; i++)
        sorted[i] = &walk->leaves[i];
    qsort(sorted, walk->n, sizeof *sorted, compare_leaves);
    graft_status status = GRAFT_OK;
    for (size_t i = 1; i < walk->n && status == GRAFT_OK; i++)
        if (!strcmp(sorted[i - 1]->key, sorted[i]->key) && sorted[i - 1]->entry != sorted[i]->entry)
            status =
                error_set(walk->err, GRAFT_E_INPUT,
                          "%s:%d: \"%s\": expected each option once, found it on line %d already",
                          walk->origin, sorted[i]->line, sorted[i]->key, sorted[i - 1]->line);
    free(sorted);
    return status;
}

static graft_status read_document(yaml_walk *walk, struct fy_document *document) {
    struct fy_node *root = fy_document_root(document);
    if (!root || fy_node_is_null(root))
        return GRAFT_OK;
    root = resolve(walk, root, "(top)", 1);
    if (!root)
        return GRAFT_E_INPUT;
    if (fy_node_get_type(root) != FYNT_MAPPING)
        return refuse(walk, line_of(root, 1), "(top)", "a mapping of option names to values",
                      fy_node_get_type(root) == FYNT_SEQUENCE ? "a list" : "a plain value");
    graft_status status = walk_mapping(walk, root, "", 1, 0);
    return status == GRAFT_OK ? check_duplicates(walk) : status;
}

static graft_status refuse_syntax(const yaml_walk *walk, struct fy_diag *diag) {
    void *at = NULL;
    const struct fy_diag_error *error = fy_diag_errors_iterate(diag, &at);
    if (!error)
        return error_set(walk->err, GRAFT_E_INPUT, "%s: expected YAML, found something else",
                         walk->origin);
    return error_set(walk->err, GRAFT_E_INPUT, "%s:%d: column %d: not valid YAML: %s", walk->origin,
                     error->line, error->column, error->msg);
}

/* Reads the one document there may be. */
static graft_status parse_stream(yaml_walk *walk, struct fy_parser *parser, struct fy_diag *diag) {
    struct fy_document *document = fy_parse_load_document(parser);
    if (!document)
        return fy_parser_get_stream_error(parser) ? refuse_syntax(walk, diag) : GRAFT_OK;
    graft_status status = read_document(walk, document);
    fy_parse_document_destroy(parser, document);
    if (status != GRAFT_OK)
        return status;
    document = fy_parse_load_document(parser);
    fy_parse_document_destroy(parser, document);
    if (document)
        return error_set(walk->err, GRAFT_E_INPUT,
                         "%s: expected one YAML document, found a second one (after \"---\")",
                         walk->origin);
    return fy_parser_get_stream_error(parser) ? refuse_syntax(walk, diag) : GRAFT_OK;
}

static graft_status parse_text(yaml_walk *walk, const char *text, size_t n) {
    const struct fy_diag_cfg silent = {.level = FYET_ERROR, .module_mask = ~0u};
    struct fy_diag *diag = fy_diag_create(&silent);
    if (!diag)
        return error_memory(walk->err, n, walk->origin);
    fy_diag_set_collect_errors(diag, true);
    const struct fy_parse_cfg options = {
        .flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_JSON_NONE, .diag = diag};
    struct fy_parser *parser = fy_parser_create(&options);
    graft_status status;
    if (!parser || fy_parser_set_string(parser, text, n) != 0)
        status = error_memory(walk->err, n, walk->origin);
    else
        status = parse_stream(walk, parser, diag);
    fy_parser_destroy(parser);
    fy_diag_destroy(diag);
    return status;
}

static int count_lines(const char *text, size_t n) {
    int lines = 1;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    return lines;
}

graft_status yaml_read_text(const char *text, size_t n, const char *origin, yaml_scalar_fn take,
                            void *context, graft_error *err) {
    size_t valid = utf8_valid_length(text, n);
    const char *nul = memchr(text, '\0', n);
    if (nul && (size_t)(nul - text) < valid)
        valid = (size_t)(nul - text);
    if (valid < n)
        return error_set(err, GRAFT_E_INPUT,
                         "%s:%d: expected UTF-8 text, found byte 0x%02x; save the file as UTF-8",
                         origin, count_lines(text, valid), (unsigned)(unsigned char)text[valid]);
    yaml_walk walk = {.origin = origin, .err = err};
    graft_status status = parse_text(&walk, text, n);
    for (size_t i = 0; i < walk.n && status == GRAFT_OK; i++) {
        const leaf *l = &walk.leaves[i];
        status = take(context, l->key, l->index, l->value, l->line, err);
    }
    for (size_t i = 0; i < walk.n; i++) {
        free(walk.leaves[i].key);
        free(walk.leaves[i].value);
    }
    free(walk.leaves);
    return status;
}

graft_status yaml_read_file(const char *path, yaml_scalar_fn take, void *context,
                            graft_error *err) {
    char *text = NULL;
    size_t n;
    graft_status status = file_read_all(&text, &n, path, YAML_BYTES_MAX, err);
    if (status == GRAFT_OK)
        status = yaml_read_text(text, n, path, take, context, err);
    free(text);
    return status;
}

/* Whether a reader may take the plain text for what it is not: anything but the text itself. */
static bool needs_quotes(const char *value) {
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "~"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strcasecmp(value, words[i]))
            return true;
    size_t n = strlen(value);
    if (n == 0 || strchr(" ,[]{}#&*!|>'\"%@`<", value[0]) || strchr(" :", value[n - 1]))
        return true;
    if (strchr("-?:", value[0]) && (n == 1 || strchr("- ", value[1])))
        return true;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)value[i] < 0x20 || value[i] == 0x7F || strchr(",[]{}", value[i]))
            return true;
    return strstr(value, ": ") || strstr(value, " #");
}

void yaml_write_scalar(strbuf *out, const char *value) {
    if (!needs_quotes(value)) {
        strbuf_add_text(out, value);
        return;
    }
    strbuf_add_char(out, '"');
    for (const char *at = value; *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7F)
            strbuf_printf(out, "\\x%02x", (unsigned)(unsigned char)*at);
        else if (*at == '"' || *at == '\\')
            strbuf_printf(out, "\\%c", *at);
        else
            strbuf_add_char(out, *at);
    }
    strbuf_add_char(out, '"');
}
