#include "cli.h"

static int run(const command_line *line) {
    graft_error err = {0};
    graft_observer observer = progress_observer(line);
    graft_merge_result result = {0};
    graft_status status = graft_merge(&result, line->recipe, &observer, &err);
    progress_end();
    if (status == GRAFT_OK) {
        graft_sink sink = stdout_sink();
        status = graft_merge_result_write(&sink, stdout_format(line), &result, &err);
    }
    return finish(status, &err);
}

const verb verb_merge = {
    .name = "merge",
    .id = GRAFT_VERB_MERGE,
    .summary = "makes one model of a base and its adapter",
    .usage = "graft merge --model DIR --adapter DIR --output-dir DIR [options]",
    .examples = "  graft merge --model DIR --adapter out --output-dir merged\n"
                "  graft merge --model DIR --adapter out --output-dir merged --dtype f32\n",
    .run = run,
};
