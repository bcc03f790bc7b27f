/* tokenize and render: one JSON line in, one out. */
#include "api/open.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "formats/json.h"
#include "text/tokenizer/special_tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct graft_text_tool {
    opened opened;
    bool renders, decodes;
    json_t *variables; /* special tokens by name; bos_token and eos_token from options */
    int64_t now;
    int64_t line;     /* lines read */
    encoding encoded; /* reused over lines */
};

/* The model's special tokens, and what the options say instead. */
static graft_status collect_variables(graft_text_tool *tool, graft_error *err) {
    static const char *const options[] = {"bos_token", "eos_token"};
    graft_status status = special_tokens_json(&tool->variables, tool->opened.tokenizer, err);
    for (int i = 0; i < 2 && status == GRAFT_OK; i++) {
        const char *given = recipe_text(tool->opened.recipe, options[i]);
        if (given && json_object_set_new(tool->variables, options[i], json_string(given)) != 0)
            status = error_memory(err, strlen(given), "special tokens");
    }
    return status;
}

static graft_status open_renderer(graft_text_tool *tool, const graft_recipe *recipe,
                                  graft_error *err) {
    tool->renders = true;
    opened *o = &tool->opened;
    graft_status status = recipe_time(&tool->now, recipe, err);
    if (status == GRAFT_OK && recipe_text(recipe, "model")) {
        status = model_folder_find(&o->folder, recipe_text(recipe, "model"), err);
        if (status == GRAFT_OK)
            status = open_text(o, err);
    } else if (status == GRAFT_OK && recipe_text(recipe, "chat_template")) {
        status = open_templates(o, err);
    } else if (status == GRAFT_OK) {
        status = error_set(err, GRAFT_E_USAGE, "render needs --model DIR or --chat-template FILE");
    }
    if (status == GRAFT_OK && !o->templates.chat)
        status = error_set(err, GRAFT_E_INPUT,
                           "%s: the model has no chat template; give one with --chat-template",
                           o->folder ? o->folder : "render");
    return status == GRAFT_OK ? collect_variables(tool, err) : status;
}

static graft_status open_tokenizer_tool(graft_text_tool *tool, const graft_recipe *recipe,
                                        graft_error *err) {
    tool->decodes = recipe_flag(recipe, "decode");
    graft_status status = need_option(recipe, "model", err);
    if (status != GRAFT_OK)
        return status;
    const char *model = recipe_text(recipe, "model");
    if (path_exists(model) && !path_is_folder(model)) /* a tokenizer's own file */
        return tokenizer_load(&tool->opened.tokenizer, model, &tool->opened.messages, err);
    status = model_folder_find(&tool->opened.folder, model, err);
    if (status == GRAFT_OK)
        status = tokenizer_load(&tool->opened.tokenizer, tool->opened.folder,
                                &tool->opened.messages, err);
    return status;
}

graft_status graft_text_tool_open(graft_text_tool **out, const graft_recipe *recipe,
                                  graft_error *err) {
    *out = NULL;
    graft_text_tool *tool = mem_array(1, sizeof *tool);
    if (!tool)
        return error_memory(err, sizeof *tool, "the text tool");
    tool->opened = opened_begin(recipe, NULL);
    graft_status status = recipe_verb(recipe) == GRAFT_VERB_RENDER
                              ? open_renderer(tool, recipe, err)
                              : open_tokenizer_tool(tool, recipe, err);
    tool->opened.recipe = NULL; /* it may go: nothing reads it from here on */
    if (status != GRAFT_OK)
        graft_text_tool_close(&tool);
    *out = tool;
    return status;
}

void graft_text_tool_close(graft_text_tool **tool) {
    if (!*tool)
        return;
    encoding_free(&(*tool)->encoded);
    json_decref((*tool)->variables);
    opened_close(&(*tool)->opened);
    free(*tool);
    *tool = NULL;
}

/* ---- One line ---- */

/* Byte offsets, ascending in steps of tokens, to code points: counted on from where the last one
 * was. */
typedef struct code_points {
    const char *text;
    uint32_t bytes, points;
} code_points;

static uint32_t code_point_at(code_points *c, uint32_t byte) {
    if (byte < c->bytes)
        c->bytes = c->points = 0;
    for (; c->bytes < byte; c->bytes++)
        c->points += ((unsigned char)c->text[c->bytes] & 0xC0) != 0x80;
    return c->points;
}

static graft_status encode_line(graft_text_tool *tool, strbuf *out, const json_t *row,
                                const char *origin, graft_error *err) {
    const json_t *text = json_object_get(row, "text");
    if (!json_is_string(text))
        return error_set(err, GRAFT_E_INPUT, "%s: \"text\": expected a string, found %s", origin,
                         json_type_name(text));
    encode_options options = {0};
    graft_status status =
        json_get_bool(&options.add_special_tokens, row, "add_special_tokens", true, origin, err);
    if (status == GRAFT_OK)
        status = tokenizer_encode(tool->opened.tokenizer, &tool->encoded, json_string_value(text),
                                  json_string_length(text), options, err);
    if (status != GRAFT_OK) {
        error_prefix(err, "%s", origin);
        return status;
    }
    const encoding *e = &tool->encoded;
    strbuf_add_text(out, "{\"ids\": [");
    for (size_t i = 0; i < e->n; i++)
        strbuf_printf(out, "%s%d", i ? ", " : "", (int)e->ids[i]);
    strbuf_add_text(out, "], \"offsets\": [");
    code_points at = {.text = json_string_value(text)};
    for (size_t i = 0; i < e->n; i++) {
        uint32_t begin = code_point_at(&at, e->begin[i]);
        strbuf_printf(out, "%s[%u, %u]", i ? ", " : "", begin, code_point_at(&at, e->end[i]));
    }
    strbuf_add_text(out, "]}\n");
    return GRAFT_OK;
}

static graft_status decode_line(graft_text_tool *tool, strbuf *out, const json_t *row,
                                const char *origin, graft_error *err) {
    const json_t *ids = json_object_get(row, "ids");
    if (!json_is_array(ids))
        return error_set(err, GRAFT_E_INPUT, "%s: \"ids\": expected an array, found %s", origin,
                         json_type_name(ids));
    bool skips;
    graft_status status = json_get_bool(&skips, row, "skip_special_tokens", false, origin, err);
    if (status != GRAFT_OK)
        return status;
    size_t n = json_array_size(ids);
    strbuf text = {0};
    int32_t *values = mem_array(n, sizeof *values);
    if (!values)
        return error_memory(err, n * sizeof *values, "token ids");
    for (size_t i = 0; i < n && status == GRAFT_OK; i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        if (!json_is_integer(json_array_get(ids, i)) || id < 0 || id > INT32_MAX)
            status = error_set(err, GRAFT_E_INPUT, "%s: ids[%zu]: expected a token id", origin, i);
        else
            values[i] = (int32_t)id;
    }
    if (status == GRAFT_OK)
        if ((status = tokenizer_decode(tool->opened.tokenizer, &text, values, n, skips, err)) !=
            GRAFT_OK)
            error_prefix(err, "%s", origin);
    if (status == GRAFT_OK) {
        strbuf_add_text(out, "{\"text\": ");
        json_write_string(out, strbuf_text(&text), text.length);
        strbuf_add_text(out, "}\n");
    }
    strbuf_free(&text);
    free(values);
    return status;
}

/* Keys of a render line that are not template variables. */
static bool is_render_key(const char *key) {
    static const char *const keys[] = {"messages", "tools", "documents", "add_generation_prompt",
                                       "continue_final_message"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i]))
            return true;
    return false;
}

static const json_t *array_or_null(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    return json_is_null(value) ? NULL : value;
}

/* The special tokens and the line's own variables; NULL when out of memory. */
static json_t *line_variables(const graft_text_tool *tool, json_t *row) {
    json_t *variables = json_copy(tool->variables), *value;
    const char *key;
    json_object_foreach(row, key, value) {
        if (!is_render_key(key) && json_object_set(variables, key, value) != 0) {
            json_decref(variables);
            return NULL;
        }
    }
    return variables;
}

/* What a template refuses is a result, as raise_exception means it; a failing machine is not. */
static graft_status render_line(graft_text_tool *tool, strbuf *out, json_t *row, const char *origin,
                                graft_error *err) {
    template_input input = {.messages = json_object_get(row, "messages"),
                            .tools = array_or_null(row, "tools"),
                            .documents = array_or_null(row, "documents"),
                            .now = tool->now};
    graft_status status = json_get_bool(&input.add_generation_prompt, row, "add_generation_prompt",
                                        false, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&input.continue_final_message, row, "continue_final_message", false,
                               origin, err);
    if (status != GRAFT_OK)
        return status;
    json_t *variables = line_variables(tool, row);
    if (!variables)
        return error_memory(err, 0, "a template's variables");
    input.variables = variables;
    template_result result = {0};
    graft_error refused = {0};
    const data_templates *own = &tool->opened.templates;
    const chat_template *chat = input.tools && own->tools ? own->tools : own->chat;
    status = template_render(chat, &result, &input, &refused);
    if (status == GRAFT_OK) {
        strbuf_add_text(out, "{\"text\": ");
        json_write_string(out, strbuf_text(&result.text), result.text.length);
    } else if (graft_exit_status(status) == 2) {
        strbuf_add_text(out, "{\"error\": ");
        json_write_string(out, refused.message, strlen(refused.message));
        status = GRAFT_OK;
    } else if (err) {
        *err = refused;
    }
    strbuf_add_text(out, "}\n");
    template_result_free(&result);
    json_decref(variables);
    return status;
}

static bool is_blank(const char *line, size_t n) {
    while (n && strchr(" \t\r\n", line[n - 1]) && line[n - 1])
        n--;
    return n == 0;
}

graft_status graft_text_tool_line(graft_text_tool *tool, const graft_sink *sink, const char *line,
                                  size_t n, graft_error *err) {
    json_t *row = NULL;
    strbuf out = {0};
    char origin[32];
    snprintf(origin, sizeof origin, "line %lld", (long long)++tool->line);
    if (is_blank(line, n))
        return GRAFT_OK;
    graft_status status = json_parse(&row, line, n, origin, err);
    if (status == GRAFT_OK && !json_is_object(row))
        status = error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", origin,
                           json_type_name(row));
    if (status == GRAFT_OK)
        status = tool->renders   ? render_line(tool, &out, row, origin, err)
                 : tool->decodes ? decode_line(tool, &out, row, origin, err)
                                 : encode_line(tool, &out, row, origin, err);
    if (status == GRAFT_OK && out.failed)
        status = error_memory(err, out.length, "a line of output");
    if (status == GRAFT_OK)
        sink->write(sink->context, strbuf_text(&out), out.length);
    strbuf_free(&out);
    json_decref(row);
    return status;
}
