#include "cli.h"

static int run(const command_line *line) {
    graft_error err = {0};
    graft_observer observer = progress_observer(line);
    graft_train_result result = {0};
    graft_status status = graft_train(&result, line->recipe, &observer, &err);
    progress_end();
    if (status == GRAFT_OK) {
        graft_sink sink = stdout_sink();
        status = graft_train_result_write(&sink, stdout_format(line), &result, &err);
    }
    graft_train_result_free(&result);
    return finish(status, &err);
}

const verb verb_train = {
    .name = "train",
    .id = GRAFT_VERB_TRAIN,
    .summary = "trains an adapter (or, with --method full, the whole model)",
    .usage = "graft train [RECIPE.yaml] --model DIR --data FILE --output-dir DIR [options]",
    .examples =
        "  graft train --model DIR --data rows.jsonl --output-dir out\n"
        "  graft train --model DIR --data rows.jsonl --output-dir out \\\n"
        "              -r 16 --lora-alpha 32 --target-modules all-linear --learning-rate 2e-4\n"
        "  graft train out/recipe.yaml --output-dir again     # repeats a run\n"
        "  graft train out/recipe.yaml --resume               # goes on from the newest "
        "checkpoint\n",
    .takes_recipe = true,
    .run = run,
};
