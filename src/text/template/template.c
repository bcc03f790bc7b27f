#include "text/template/template.h"

#include "base/memory.h"
#include "text/template/input.h"
#include "text/template/spans.h"

#include <stdlib.h>
#include <string.h>

struct chat_template {
    arena memory;
    syntax_tree tree;
    char *source, *origin;
};

graft_status template_parse(chat_template **out, const char *source, size_t n, const char *origin,
                            graft_error *err) {
    *out = NULL;
    vm m = {.memory.limit = TEMPLATE_MEMORY_MAX,
            .origin = origin,
            .err = err,
            .steps_left = TEMPLATE_STEPS_MAX,
            .turn = NOBODY,
            .generation = NOBODY};
    chat_template *t = mem_array(1, sizeof *t);
    if (!t)
        return error_memory(err, sizeof *t, "a chat template");
    t->source = mem_text(source, n);
    t->origin = mem_text(origin, strlen(origin));
    if (!t->source || !t->origin)
        m.status = error_memory(err, n, "a chat template");
    else
        parse_template(&t->tree, &m, source, n);
    t->memory = m.memory;
    if (m.status != GRAFT_OK)
        template_destroy(&t);
    *out = t;
    return m.status;
}

const char *template_source(const chat_template *t) {
    return t->source;
}

void template_destroy(chat_template **t) {
    if (!t || !*t)
        return;
    arena_free(&(*t)->memory);
    free((*t)->source);
    free((*t)->origin);
    free(*t);
    *t = NULL;
}

void template_result_free(template_result *r) {
    strbuf_free(&r->text);
    free(r->spans);
    *r = (template_result){0};
}

static vm vm_for(const chat_template *t, const template_input *input, graft_error *err) {
    return (vm){.memory.limit = TEMPLATE_MEMORY_MAX,
                .origin = t->origin,
                .err = err,
                .steps_left = TEMPLATE_STEPS_MAX,
                .now = input->now,
                .line = 1,
                .turn = NOBODY,
                .generation = NOBODY};
}

static const text *run(vm *m, const chat_template *t, const template_input *input, list *messages,
                       value tools, value documents) {
    scope *s = input_scope(m, &t->tree, input, messages, tools, documents);
    builder out = builder_on(m);
    if (!s || run_body(m, &t->tree.body, s, &out) == FLOW_FAILED)
        return NULL;
    return builder_finish(&out);
}

/* The template on one short user message. Tools are given, but none: they would only take time. */
static const text *run_probe(vm *m, const chat_template *t, const template_input *input,
                             bool prompt) {
    template_input probe = *input;
    probe.add_generation_prompt = prompt;
    list *messages = input_probe(m);
    list *tools = input->tools ? list_create(m, LIST_LIST, 0) : NULL;
    if (!messages || (input->tools && !tools))
        return NULL;
    return run(m, t, &probe, messages, tools ? value_list(tools) : none_value, none_value);
}

static const text *eos_token(vm *m, const template_input *input) {
    const json_t *eos = input->variables ? json_object_get(input->variables, "eos_token") : NULL;
    return json_is_string(eos) ? text_view(m, json_string_value(eos), json_string_length(eos))
                               : NULL;
}

static bool add_spans(template_result *out, vm *m, const chat_template *t,
                      const template_input *input, const text *rendered, const list *messages) {
    /* The probes fail by themselves where the template does not take such a conversation. */
    vm probe = vm_for(t, input, NULL);
    span_request request = {.rendered = rendered,
                            .messages = messages,
                            .eos = eos_token(m, input),
                            .add_generation_prompt = input->add_generation_prompt,
                            .has_generation = t->tree.has_generation};
    if (!request.has_generation) {
        const text *with = run_probe(&probe, t, input, true);
        const text *without = with ? run_probe(&probe, t, input, false) : NULL;
        if (without)
            request.prompt = generation_prompt(&probe, with, without, request.eos);
    }
    bool done = probe.status != GRAFT_E_MEMORY ? find_spans(out, m, &request)
                                               : fail_as(m, GRAFT_E_MEMORY, "out of memory");
    arena_free(&probe.memory);
    return done;
}

static bool render(template_result *out, vm *m, const chat_template *t,
                   const template_input *input) {
    const text *final_content = NULL;
    list *messages = input_messages(m, input->messages);
    if (!messages)
        return false;
    if (input->continue_final_message && input->add_generation_prompt)
        return fail_as(
            m, GRAFT_E_USAGE,
            "continue_final_message and add_generation_prompt exclude each other: the last "
            "message is either continued or followed by a new one");
    if (input->continue_final_message && !input_mark_final(m, messages, t->source, &final_content))
        return false;
    value tools = input_value(m, input->tools), documents = input_value(m, input->documents);
    if (m->status != GRAFT_OK)
        return false;
    const text *rendered = run(m, t, input, messages, tools, documents);
    if (rendered && input->continue_final_message)
        rendered = input_cut_at_mark(m, rendered, final_content);
    if (!rendered || !add_spans(out, m, t, input, rendered, messages))
        return false;
    strbuf_add(&out->text, rendered->bytes, rendered->n);
    return !out->text.failed || fail_memory(m);
}

graft_status template_render(const chat_template *t, template_result *out,
                             const template_input *input, graft_error *err) {
    vm m = vm_for(t, input, err);
    *out = (template_result){0};
    if (!render(out, &m, t, input))
        template_result_free(out);
    arena_free(&m.memory);
    return m.status;
}
