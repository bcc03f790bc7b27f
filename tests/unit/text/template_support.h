/* What the tests of templates have in common. */
#ifndef GRAFT_TESTS_TEMPLATE_SUPPORT_H
#define GRAFT_TESTS_TEMPLATE_SUPPORT_H

#include "tests/support/support.h"

#include "formats/json.h"
#include "text/template/template.h"

/* The whole file, NUL-terminated; the caller frees. */
char *file_text(const char *path);
json_t *parse_json(const char *text);
/* Renders the source on messages given as JSON, with variables given as JSON (NULL: none). */
graft_status render_source(template_result *, const char *source, const char *messages,
                           const char *variables);
/* The text that render_source gives; fails the test when it refuses. Valid until the next call. */
const char *rendered(const char *source, const char *messages, const char *variables);
/* Renders {"messages", "tools"?, "documents"?, "kwargs"?, "bos_token"?, "eos_token"?, "now"?}. */
graft_status render_case(template_result *, const chat_template *, const json_t *row);

#endif
