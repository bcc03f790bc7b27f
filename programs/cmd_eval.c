#include "cli.h"

static int run(const command_line *line) {
    graft_error err = {0};
    graft_observer observer = progress_observer(line);
    graft_eval_result result = {0};
    graft_status status = graft_eval(&result, line->recipe, &observer, &err);
    progress_end();
    if (status == GRAFT_OK) {
        graft_sink sink = stdout_sink();
        status = graft_eval_result_write(&sink, stdout_format(line), &result, &err);
    }
    return finish(status, &err);
}

const verb verb_eval = {
    .name = "eval",
    .id = GRAFT_VERB_EVAL,
    .summary = "loss and perplexity of a model, with an adapter or without",
    .usage = "graft eval [RECIPE.yaml] --model DIR [--adapter DIR] --data FILE [options]",
    .examples =
        "  graft eval --model DIR --data held.jsonl\n"
        "  graft eval --model DIR --adapter out --data held.jsonl --json\n"
        "  graft eval --model DIR --data rows.jsonl --max-rows 4 --logits logits.safetensors\n",
    .takes_recipe = true,
    .run = run,
};
