#include "train/data/conversation.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static graft_status out_of_memory(graft_error *err) {
    return error_memory(err, 0, "a conversation");
}

void conversation_free(conversation *c) {
    json_decref(c->messages);
    json_decref(c->tools);
    free(c->untrained);
    *c = (conversation){0};
}

/* Takes the reference to message in every case. */
static graft_status push_message(conversation *c, json_t *message, bool untrained,
                                 graft_error *err) {
    if (!c->messages)
        c->messages = json_array();
    size_t n = json_array_size(c->messages);
    if (!c->messages || !mem_reserve(&c->untrained, &c->untrained_capacity, n + 1, 1)) {
        json_decref(message);
        return out_of_memory(err);
    }
    c->untrained[n] = untrained;
    return json_array_append_new(c->messages, message) ? out_of_memory(err) : GRAFT_OK;
}

graft_status conversation_add(conversation *c, const char *role, const char *text, size_t n,
                              graft_error *err) {
    json_t *message = json_object();
    if (!message || json_object_set_new(message, "role", json_string(role)) ||
        json_object_set_new(message, "content", json_stringn(text, n))) {
        json_decref(message);
        return out_of_memory(err);
    }
    return push_message(c, message, false, err);
}

/* A shallow copy. json_copy passes over members that it has no memory for. */
static json_t *copy_object(json_t *object) {
    json_t *copy = json_copy(object);
    if (copy && json_object_size(copy) == json_object_size(object))
        return copy;
    json_decref(copy);
    return NULL;
}

/* ---- One turn ---------------------------------------------------------------------------------
 */

/* Where a turn stands, for messages. */
typedef struct turn_place {
    const char *origin, *key;
    size_t index;
} turn_place;

static graft_status refuse(const turn_place *at, graft_error *err, const char *what,
                           const char *expected) {
    return error_set(err, GRAFT_E_INPUT, "%s: %s[%zu]%s; expected %s", at->origin, at->key,
                     at->index, what, expected);
}

typedef struct role_name {
    const char *from, *role;
} role_name;

/* ShareGPT's names. function_call is an assistant's turn whose value is the call. */
static const role_name sharegpt_roles[] = {
    {"human", "user"},          {"user", "user"},     {"gpt", "assistant"},
    {"assistant", "assistant"}, {"system", "system"}, {"function_call", "assistant"},
    {"observation", "tool"},    {"tool", "tool"},
};

/* The roles that the chat templates of supported models print. */
static const char *const known_roles[] = {"system",   "developer", "user",    "assistant", "tool",
                                          "function", "ipython",   "control", "document"};

static const char *sharegpt_role(const char *from) {
    for (size_t i = 0; i < sizeof sharegpt_roles / sizeof *sharegpt_roles; i++)
        if (!strcmp(sharegpt_roles[i].from, from))
            return sharegpt_roles[i].role;
    return NULL;
}

static bool role_is_known(const char *role) {
    for (size_t i = 0; i < sizeof known_roles / sizeof *known_roles; i++)
        if (!strcmp(known_roles[i], role))
            return true;
    return false;
}

/* Sets message["role"] and says whether the turn is ShareGPT's. */
static graft_status read_role(json_t *message, bool *is_sharegpt, const json_t *turn,
                              const turn_place *at, graft_error *err) {
    const json_t *role = json_object_get(turn, "role"), *from = json_object_get(turn, "from");
    const json_t *named = role ? role : from;
    *is_sharegpt = !role && from;
    if (!named)
        return refuse(at, err, " has no \"role\"",
                      "\"role\" and \"content\" (or \"from\" and \"value\")");
    if (!json_is_string(named))
        return refuse(at, err, *is_sharegpt ? ".from is no string" : ".role is no string",
                      "a role's name");
    const char *name = json_string_value(named);
    const char *known = *is_sharegpt ? sharegpt_role(name) : role_is_known(name) ? name : NULL;
    if (!known)
        return error_set(err, GRAFT_E_INPUT, "%s: %s[%zu].%s is \"%s\"; expected %s", at->origin,
                         at->key, at->index, *is_sharegpt ? "from" : "role", name,
                         *is_sharegpt
                             ? "human, gpt, system, function_call, observation or tool"
                             : "system, developer, user, assistant, tool, function, ipython, "
                               "control or document");
    return json_object_set_new(message, "role", json_string(known)) ? out_of_memory(err) : GRAFT_OK;
}

/* Text parts, joined: {"type": "text", "text": ...}; "value" is the older spelling. */
static graft_status join_parts(json_t **out, const json_t *parts, const turn_place *at,
                               graft_error *err) {
    strbuf joined = {0};
    graft_status status = GRAFT_OK;
    size_t i;
    json_t *part;
    json_array_foreach(parts, i, part) {
        const json_t *type = json_object_get(part, "type");
        const json_t *text = json_object_get(part, "text");
        if (!text)
            text = json_object_get(part, "value");
        if (json_is_string(part))
            text = part;
        if ((type && (!json_is_string(type) || strcmp(json_string_value(type), "text"))) ||
            !json_is_string(text)) {
            status = refuse(
                at, err, ".content has a part that is no text",
                "parts such as {\"type\": \"text\", \"text\": ...}: images and audio are not "
                "supported");
            break;
        }
        strbuf_add(&joined, json_string_value(text), json_string_length(text));
    }
    if (status == GRAFT_OK) {
        *out = joined.failed ? NULL : json_stringn(strbuf_text(&joined), joined.length);
        if (!*out)
            status = out_of_memory(err);
    }
    strbuf_free(&joined);
    return status;
}

/* {"name", "arguments"} or {"function": {...}, ...} as a template expects it. */
static graft_status normal_call(json_t **out, json_t *call, const turn_place *at,
                                graft_error *err) {
    *out = NULL;
    json_t *function = json_object_get(call, "function");
    if (!function)
        function = call;
    const json_t *arguments = json_object_get(function, "arguments");
    if (!json_is_string(json_object_get(function, "name")))
        return refuse(at, err, " has a tool call without a name",
                      "{\"name\": ..., \"arguments\": {...}}");
    json_t *inner = copy_object(function);
    json_t *outer = function == call ? json_object() : copy_object(call);
    bool ok = inner && outer;
    if (ok && json_is_string(arguments)) {
        json_t *parsed = NULL;
        /* Arguments that are no JSON stay the text they are. */
        graft_status parsing = json_parse(&parsed, json_string_value(arguments),
                                          json_string_length(arguments), at->origin, NULL);
        ok = parsing != GRAFT_E_MEMORY;
        if (parsing == GRAFT_OK)
            ok = !json_object_set_new(inner, "arguments", parsed);
    }
    if (ok && !json_object_get(outer, "type"))
        ok = !json_object_set_new(outer, "type", json_string("function"));
    ok = ok && !json_object_set(outer, "function", inner);
    json_decref(inner);
    if (!ok) {
        json_decref(outer);
        return out_of_memory(err);
    }
    *out = outer;
    return GRAFT_OK;
}

/* Sets message["tool_calls"] from a list of calls, or from one call. */
static graft_status read_calls(json_t *message, json_t *calls, const turn_place *at,
                               graft_error *err) {
    json_t *list = json_array();
    graft_status status = list ? GRAFT_OK : out_of_memory(err);
    size_t n = json_is_array(calls) ? json_array_size(calls) : 1;
    for (size_t i = 0; status == GRAFT_OK && i < n; i++) {
        json_t *call;
        status =
            normal_call(&call, json_is_array(calls) ? json_array_get(calls, i) : calls, at, err);
        if (status == GRAFT_OK && json_array_append_new(list, call))
            status = out_of_memory(err);
    }
    if (status == GRAFT_OK && json_object_set(message, "tool_calls", list))
        status = out_of_memory(err);
    json_decref(list);
    return status;
}

/* ShareGPT's function_call: the value is the call, or a list of calls, as JSON text. */
static graft_status read_function_call(json_t *message, const json_t *value, const turn_place *at,
                                       graft_error *err) {
    json_t *call = NULL;
    graft_error reason;
    if (!json_is_string(value))
        return refuse(at, err, ".value is no string", "the call as JSON text");
    if (json_parse(&call, json_string_value(value), json_string_length(value), "value", &reason) !=
        GRAFT_OK)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: %s[%zu]: a function_call's value must be {\"name\", \"arguments\"} as JSON: %s",
            at->origin, at->key, at->index, reason.message);
    graft_status status = read_calls(message, call, at, err);
    json_decref(call);
    return status;
}

/* Sets message["content"]; it may be absent where the turn calls tools. */
static graft_status read_content(json_t *message, json_t *content, const turn_place *at,
                                 graft_error *err) {
    const char *role = json_string_value(json_object_get(message, "role"));
    json_t *text = NULL;
    if (json_is_string(content)) {
        text = json_incref(content);
    } else if (json_is_array(content)) {
        graft_status status = join_parts(&text, content, at, err);
        if (status != GRAFT_OK)
            return status;
    } else if (json_is_object(content) && !strcmp(role, "tool")) {
        text = json_incref(content); /* templates print it with tojson */
    } else if (!content || json_is_null(content)) {
        if (json_array_size(json_object_get(message, "tool_calls")) > 0) {
            json_object_del(message, "content");
            return GRAFT_OK;
        }
        return refuse(at, err, content ? ".content is null" : " has no \"content\"",
                      "a text (only an assistant's turn with tool_calls may go without)");
    } else {
        return refuse(at, err, ".content is neither text nor a list of parts", "a string");
    }
    return json_object_set_new(message, "content", text) ? out_of_memory(err) : GRAFT_OK;
}

/* loss_weight (LLaMA-Factory) or weight (OpenAI): 0 keeps a turn out of training, 1 is what it has
 * anyway. */
static graft_status read_weight(json_t *message, bool *untrained, const json_t *turn,
                                const turn_place *at, graft_error *err) {
    static const char *const keys[] = {"loss_weight", "weight"};
    *untrained = false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(turn, keys[i]);
        if (!value)
            continue;
        double weight = json_is_number(value) ? json_number_value(value) : -1.0;
        bool zero = weight >= 0.0 && weight <= 0.0, one = weight >= 1.0 && weight <= 1.0;
        bool is_assistant =
            !strcmp(json_string_value(json_object_get(message, "role")), "assistant");
        if (!json_is_null(value) && !zero && !one)
            return refuse(at, err, " has a weight that is neither 0 nor 1", "0 (not trained) or 1");
        if (one && !is_assistant)
            return refuse(
                at, err, " has weight 1 but is no assistant's turn",
                "0: only assistants' turns are trained (--train-on all trains every token)");
        *untrained = *untrained || zero;
        json_object_del(message, keys[i]);
    }
    return GRAFT_OK;
}

static graft_status read_turn(conversation *c, json_t *turn, const turn_place *at,
                              graft_error *err) {
    if (!json_is_object(turn))
        return refuse(at, err, " is no object", "{\"role\": ..., \"content\": ...}");
    bool is_sharegpt, untrained = false;
    json_t *message = copy_object(turn);
    if (!message)
        return out_of_memory(err);
    graft_status status = read_role(message, &is_sharegpt, turn, at, err);
    if (status != GRAFT_OK)
        goto cleanup;
    json_t *content = json_object_get(turn, is_sharegpt ? "value" : "content");
    if (is_sharegpt) {
        bool is_call = !strcmp(json_string_value(json_object_get(turn, "from")), "function_call");
        json_object_del(message, "from");
        json_object_del(message, "value");
        if (is_call) {
            status = read_function_call(message, content, at, err);
            content = NULL;
        }
    } else {
        json_t *calls = json_object_get(turn, "tool_calls");
        if (!calls || json_is_null(calls))
            calls = json_object_get(turn, "function_call");
        json_object_del(message, "tool_calls");
        json_object_del(message, "function_call");
        if (calls && !json_is_null(calls) && (!json_is_array(calls) || json_array_size(calls)))
            status = read_calls(message, calls, at, err);
    }
    if (status == GRAFT_OK)
        status = read_content(message, content, at, err);
    if (status == GRAFT_OK)
        status = read_weight(message, &untrained, turn, at, err);
    if (status == GRAFT_OK) {
        c->has_tool_calls = c->has_tool_calls || json_object_get(message, "tool_calls");
        status = push_message(c, json_incref(message), untrained, err);
    }
cleanup:
    json_decref(message);
    return status;
}

/* ---- Whole conversations ----------------------------------------------------------------------
 */

graft_status conversation_append(conversation *c, json_t *turns, const char *key,
                                 const char *origin, graft_error *err) {
    if (!json_is_array(turns))
        return error_set(err, GRAFT_E_INPUT, "%s: %s is %s; expected a list of messages", origin,
                         key, json_type_name(turns));
    if (!json_array_size(turns))
        return error_set(err, GRAFT_E_INPUT, "%s: %s is empty; expected at least one message",
                         origin, key);
    graft_status status = GRAFT_OK;
    for (size_t i = 0; status == GRAFT_OK && i < json_array_size(turns); i++)
        status = read_turn(c, json_array_get(turns, i), &(turn_place){origin, key, i}, err);
    return status;
}

static graft_status add_tool(json_t *list, json_t *tool, const char *origin, graft_error *err) {
    if (!json_is_object(tool))
        return error_set(err, GRAFT_E_INPUT, "%s: tools holds %s; expected objects with a name",
                         origin, json_type_name(tool));
    if (json_object_get(tool, "function") || !json_object_get(tool, "name"))
        return json_array_append(list, tool) ? out_of_memory(err) : GRAFT_OK;
    json_t *wrapped = json_object();
    if (!wrapped || json_object_set_new(wrapped, "type", json_string("function")) ||
        json_object_set(wrapped, "function", tool)) {
        json_decref(wrapped);
        return out_of_memory(err);
    }
    return json_array_append_new(list, wrapped) ? out_of_memory(err) : GRAFT_OK;
}

graft_status conversation_set_tools(conversation *c, json_t *tools, const char *origin,
                                    graft_error *err) {
    json_t *parsed = NULL, *list = NULL;
    graft_status status = GRAFT_OK;
    if (json_is_string(tools) && json_string_length(tools)) {
        graft_error reason;
        if (json_parse(&parsed, json_string_value(tools), json_string_length(tools), "tools",
                       &reason) != GRAFT_OK)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: tools must be a list, or one as JSON text: %s", origin,
                             reason.message);
        tools = parsed;
    }
    if (!tools || json_is_null(tools) || json_is_string(tools) ||
        (json_is_array(tools) && !json_array_size(tools)))
        goto cleanup;
    if (!json_is_array(tools)) {
        status = error_set(err, GRAFT_E_INPUT, "%s: tools is %s; expected a list", origin,
                           json_type_name(tools));
        goto cleanup;
    }
    list = json_array();
    if (!list)
        status = out_of_memory(err);
    for (size_t i = 0; status == GRAFT_OK && i < json_array_size(tools); i++)
        status = add_tool(list, json_array_get(tools, i), origin, err);
    if (status == GRAFT_OK) {
        json_decref(c->tools);
        c->tools = json_incref(list);
    }
cleanup:
    json_decref(parsed);
    json_decref(list);
    return status;
}

/* {"name": ..., "arguments": ...}; several calls as a list. */
static void write_calls(strbuf *out, const json_t *calls) {
    size_t n = json_array_size(calls);
    strbuf_add_text(out, n > 1 ? "[" : "");
    for (size_t i = 0; i < n; i++) {
        const json_t *function = json_object_get(json_array_get(calls, i), "function");
        const json_t *arguments = json_object_get(function, "arguments");
        const json_t *name = json_object_get(function, "name");
        strbuf_add_text(out, i ? ", {\"name\": " : "{\"name\": ");
        json_write_string(out, json_string_value(name), json_string_length(name));
        strbuf_add_text(out, ", \"arguments\": ");
        if (arguments)
            json_write(out, arguments, JSON_PYTHON, false);
        else
            strbuf_add_text(out, "{}");
        strbuf_add_text(out, "}");
    }
    strbuf_add_text(out, n > 1 ? "]" : "");
}

graft_status conversation_flatten_tool_calls(conversation *c, graft_error *err) {
    size_t i;
    json_t *message;
    json_array_foreach(c->messages, i, message) {
        const json_t *calls = json_object_get(message, "tool_calls");
        if (!calls)
            continue;
        const json_t *content = json_object_get(message, "content");
        strbuf text = {0};
        if (json_string_length(content)) {
            strbuf_add(&text, json_string_value(content), json_string_length(content));
            strbuf_add_text(&text, "\n");
        }
        write_calls(&text, calls);
        json_t *flat = text.failed ? NULL : json_stringn(strbuf_text(&text), text.length);
        strbuf_free(&text);
        if (json_object_set_new(message, "content", flat) || json_object_del(message, "tool_calls"))
            return out_of_memory(err);
    }
    c->has_tool_calls = false;
    return GRAFT_OK;
}
