/* Chat templates: an interpreter for the Jinja that models ship, as Transformers runs it (immutable
 * sandbox, trim_blocks and lstrip_blocks, loop controls, {% generation %}). No I/O; bounded steps,
 * depth and output. */
#ifndef GRAFT_TEXT_TEMPLATE_H
#define GRAFT_TEXT_TEMPLATE_H

#include "formats/json.h"

enum {
    TEMPLATE_STEPS_MAX = 20 * 1000 * 1000,
    TEMPLATE_DEPTH_MAX = 200,
    TEMPLATE_SOURCE_MAX = 4 << 20,  /* bytes */
    TEMPLATE_OUTPUT_MAX = 64 << 20, /* bytes, of any one text */
    TEMPLATE_MEMORY_MAX = 512 << 20 /* bytes, of a whole rendering */
};

typedef struct chat_template chat_template;

/* Parses; syntax errors name origin, line and what was expected. */
graft_status template_parse(chat_template **, const char *source, size_t n, const char *origin,
                            graft_error *);
/* A built-in template by name ("chatml", ...): its source, or NULL. template_builtin_name(i) is
 * NULL past the end. */
const char *template_builtin(const char *name);
const char *template_builtin_name(size_t i);
/* The template of a model directory: chat_template.jinja, else tokenizer_config.json's
 * chat_template as text or as a list of named ones (`name` NULL: "default", or "tool_use" when
 * has_tools and there is one). *out is NULL when the model has none. */
graft_status template_load_model(chat_template **, const char *folder, const char *name,
                                 bool has_tools, graft_error *);
const char *template_source(const chat_template *);
void template_destroy(chat_template **);

/* Half-open byte range of the rendered text that one assistant message made: its content (with
 * reasoning and tool calls where the template prints them) and its end-of-turn, but not the header
 * that announces the turn. Where the template has {% generation %}, exactly what those blocks
 * printed. */
typedef struct template_span {
    size_t begin, end;
    int32_t message; /* index in messages; -1 for a generation block that no message owns */
} template_span;

typedef struct template_result {
    strbuf text;
    template_span *spans; /* in order, disjoint */
    size_t n_spans, spans_capacity;
    bool has_generation; /* spans come from {% generation %} */
    /* Not GRAFT_OK: this template does not let the spans be told (why, and where); the text is
     * right all the same, and there are no spans. Whoever trains must refuse; whoever generates
     * need not look. */
    graft_error span_error;
} template_result;
void template_result_free(template_result *);

/* What surrounds a template in Transformers (see docs/templates.md). */
typedef struct template_input {
    const json_t *messages;  /* array */
    const json_t *tools;     /* array or NULL: none */
    const json_t *documents; /* array or NULL: none */
    const json_t *variables; /* object or NULL: more variables (special tokens by name,
                                enable_thinking, ...) */
    bool add_generation_prompt, continue_final_message;
    int64_t now; /* seconds since 1970, local time: the clock of strftime_now */
} template_input;

/* Renders. Errors: raise_exception's own text; what was undefined and on which line; the limit that
 * was hit. */
graft_status template_render(const chat_template *, template_result *out, const template_input *,
                             graft_error *);

#endif
