/* graft: the command line. Each verb is a file; this one finds it. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const verb *const verbs[] = {&verb_plan,     &verb_data,    &verb_train,   &verb_eval,
                                    &verb_generate, &verb_chat,    &verb_inspect, &verb_tokenize,
                                    &verb_render,   &verb_methods, &verb_doctor,  &verb_merge};

static void print_overview(FILE *file) {
    fprintf(file,
            "graft %s: fine-tune large language models on the hardware you have\n\n"
            "  graft train --model DIR --data rows.jsonl --output-dir out\n"
            "  graft eval --model DIR --adapter out --data held.jsonl\n"
            "  graft generate --model DIR --adapter out --prompt \"...\"\n\n"
            "Verbs (graft VERB --help tells more):\n",
            graft_version());
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        fprintf(file, "  %-9s %s\n", verbs[i]->name, verbs[i]->summary);
}

int main(int argc, char **argv) {
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help")) {
        print_overview(argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("graft %s\n", graft_version());
        return 0;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(argv[1], verbs[i]->name))
            continue;
        command_line line = {0};
        int status = command_line_parse(&line, verbs[i], argc - 2, argv + 2);
        if (status < 0) {
            signals_catch();
            status = verbs[i]->run(&line);
            if (!stdout_finish() && status == 0)
                status = 1;
        }
        graft_recipe_destroy(&line.recipe);
        return status;
    }
    fprintf(stderr, "graft: unknown verb \"%s\"; graft --help lists them\n", argv[1]);
    return 2;
}
