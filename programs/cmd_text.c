/* tokenize and render: JSON lines in, JSON lines out. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(const command_line *line) {
    graft_error err = {0};
    graft_text_tool *tool = NULL;
    graft_status status = graft_text_tool_open(&tool, line->recipe, &err);
    graft_sink sink = stdout_sink();
    char *text = NULL;
    size_t capacity = 0;
    ssize_t n;
    while (status == GRAFT_OK && !*signals_stop() && (n = getline(&text, &capacity, stdin)) >= 0)
        status = graft_text_tool_line(tool, &sink, text, (size_t)n, &err);
    if (status == GRAFT_OK && ferror(stdin) && !*signals_stop()) {
        snprintf(err.message, sizeof err.message, "stdin: %s", strerror(errno));
        status = GRAFT_E_IO;
    }
    free(text);
    graft_text_tool_close(&tool);
    return finish(*signals_stop() && status == GRAFT_OK ? GRAFT_E_INTERRUPTED : status, &err);
}

const verb verb_tokenize = {
    .name = "tokenize",
    .id = GRAFT_VERB_TOKENIZE,
    .summary = "text to token ids and back: JSON lines in, JSON lines out",
    .usage = "graft tokenize --model DIR|tokenizer.json [--decode] < in.jsonl > out.jsonl",
    .examples = "  echo '{\"text\": \"Hello\"}' | graft tokenize --model DIR         # {\"ids\", "
                "\"offsets\"}\n"
                "  echo '{\"ids\": [1, 2]}' | graft tokenize --model DIR --decode  # {\"text\"}\n",
    .run = run,
};

const verb verb_render = {
    .name = "render",
    .id = GRAFT_VERB_RENDER,
    .summary = "conversations through a chat template: JSON lines in, JSON lines out",
    .usage = "graft render --model DIR | --chat-template FILE < in.jsonl > out.jsonl",
    .examples = "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
                "\"add_generation_prompt\": true}' |\n"
                "      graft render --model DIR\n",
    .run = run,
};
