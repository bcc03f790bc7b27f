/* The verbs that render one report: plan, data, inspect, doctor, methods. */
#include "cli.h"

#include <stdio.h>

static int run_plan(const command_line *line) {
    graft_error err = {0};
    graft_sink sink = stdout_sink();
    graft_observer observer = progress_observer(line);
    return finish(graft_plan(&sink, stdout_format(line), line->recipe, &observer, &err), &err);
}

static int run_data(const command_line *line) {
    graft_error err = {0};
    graft_sink sink = stdout_sink();
    graft_observer observer = progress_observer(line);
    return finish(graft_data(&sink, stdout_format(line), line->recipe, &observer, &err), &err);
}

static int run_inspect(const command_line *line) {
    graft_error err = {0};
    graft_sink sink = stdout_sink();
    if (!line->path) {
        fprintf(stderr, "graft inspect: what? usage: %s\n", line->verb->usage);
        return 2;
    }
    return finish(graft_inspect(&sink, stdout_format(line), line->path, &err), &err);
}

static int run_doctor(const command_line *line) {
    graft_error err = {0};
    graft_sink sink = stdout_sink();
    return finish(graft_doctor(&sink, stdout_format(line), line->recipe, &err), &err);
}

static int run_methods(const command_line *line) {
    graft_error err = {0};
    graft_sink sink = stdout_sink();
    graft_observer observer = progress_observer(line);
    return finish(graft_methods(&sink, stdout_format(line), line->recipe, &observer, &err), &err);
}

const verb verb_plan = {
    .name = "plan",
    .id = GRAFT_VERB_PLAN,
    .summary = "what a fine-tune costs, before anything is loaded",
    .usage = "graft plan [RECIPE.yaml] --model DIR [--data FILE] [options]",
    .examples = "  graft plan --model DIR -r 16 --target-modules all-linear --max-length 512\n"
                "  graft plan --model DIR --method full --json\n",
    .takes_recipe = true,
    .run = run_plan,
};

const verb verb_data = {
    .name = "data",
    .id = GRAFT_VERB_DATA,
    .summary = "shows what will be trained: text, tokens, which are supervised",
    .usage = "graft data [RECIPE.yaml] --model DIR --data PATH [options]",
    .examples = "  graft data --model DIR --data rows.jsonl\n"
                "  graft data --model DIR --data rows.jsonl --first-row 17 --rows 1 --json\n"
                "  graft data --model DIR --data rows/ --dedup near --html data.html\n",
    .takes_recipe = true,
    .run = run_data,
};

const verb verb_inspect = {
    .name = "inspect",
    .id = GRAFT_VERB_INSPECT,
    .summary = "what a file or directory is: model, adapter, checkpoint, tensors, data",
    .usage = "graft inspect PATH",
    .examples = "  graft inspect DIR\n  graft inspect out/adapter_model.safetensors --json\n",
    .takes_path = true,
    .run = run_inspect,
};

const verb verb_doctor = {
    .name = "doctor",
    .id = GRAFT_VERB_DOCTOR,
    .summary = "this machine: processor, memory, measured peaks; checks the kernels",
    .usage = "graft doctor [options]",
    .examples = "  graft doctor\n  graft doctor --cpu-features none --json\n",
    .run = run_doctor,
};

const verb verb_methods = {
    .name = "methods",
    .id = GRAFT_VERB_METHODS,
    .summary = "the methods there are",
    .usage = "graft methods [--model DIR] [--json]",
    .examples = "  graft methods\n  graft methods --model DIR    # parameters that each trains\n",
    .run = run_methods,
};
