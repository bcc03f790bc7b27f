/* Any template, up to a NUL byte, is parsed or refused; on the conversation after it (or one of
 * three messages) it is rendered or refused within its limits, and its spans lie in order inside
 * the text. */
#include "tests/fuzz/fuzz.h"

#include "text/template/template.h"

#include <stdlib.h>
#include <string.h>

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", "
    "\"content\": \"Hi \\u00e9\"}, {\"role\": \"assistant\", \"content\": \"Hello\", "
    "\"tool_calls\": "
    "[{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1}}}]}], \"tools\": [{\"type\": "
    "\"function\"}], \"variables\": {\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"n\": 3, "
    "\"x\": "
    "2.5, \"l\": [3, 1, 2]}}";

static void check_result(const template_result *result) {
    size_t done = 0;
    for (size_t i = 0; i < result->n_spans; i++) {
        const template_span *span = &result->spans[i];
        if (span->begin < done || span->end <= span->begin || span->end > result->text.length)
            abort();
        done = span->end;
    }
    if (result->text.length > TEMPLATE_OUTPUT_MAX)
        abort();
}

static void render(const chat_template *t, const json_t *given, bool prompt, bool continued) {
    template_result result;
    graft_error err;
    const template_input input = {.messages = json_object_get(given, "messages"),
                                  .tools = json_object_get(given, "tools"),
                                  .documents = json_object_get(given, "documents"),
                                  .variables = json_object_get(given, "variables"),
                                  .add_generation_prompt = prompt,
                                  .continue_final_message = continued,
                                  .now = 1741338304};
    if (template_render(t, &result, &input, &err) == GRAFT_OK)
        check_result(&result);
    template_result_free(&result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = memchr(data, 0, size);
    size_t n = nul ? (size_t)(nul - data) : size;
    const char *json = nul ? (const char *)nul + 1 : conversation;
    size_t n_json = nul ? size - n - 1 : sizeof conversation - 1;
    chat_template *t = NULL;
    json_t *given = NULL;
    graft_error err;
    if (json_parse(&given, json, n_json, "conversation", &err) == GRAFT_OK &&
        json_is_object(given) &&
        template_parse(&t, (const char *)data, n, "template", &err) == GRAFT_OK) {
        render(t, given, false, false);
        render(t, given, true, false);
        render(t, given, false, true);
    }
    template_destroy(&t);
    json_decref(given);
    return 0;
}
