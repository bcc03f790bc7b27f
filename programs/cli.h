/* What the verbs share: the command line, signals, output. */
#ifndef GRAFT_PROGRAMS_CLI_H
#define GRAFT_PROGRAMS_CLI_H

#include "graft.h"

typedef struct command_line {
    const struct verb *verb;
    graft_recipe *recipe;
    const char *path; /* inspect: what to look at */
    bool json, quiet, help, help_all;
} command_line;

typedef struct verb {
    const char *name;
    graft_verb id;
    const char *summary, *usage, *examples;
    bool takes_recipe, takes_path;
    int (*run)(const command_line *); /* exit status */
} verb;

extern const verb verb_train, verb_eval, verb_generate, verb_chat, verb_plan, verb_data,
    verb_inspect, verb_tokenize, verb_render, verb_methods, verb_doctor, verb_merge;

/* Fills the recipe from the arguments after the verb; prints what is wrong and returns its exit
 * status, else -1. */
int command_line_parse(command_line *, const verb *, int argc, char **argv);
void verb_help(const verb *, bool all);

/* Prints "graft: MESSAGE" and gives the exit status: 0, 1, 2, or 128 + N after signal N. */
int finish(graft_status, const graft_error *);

/* From here on SIGINT and SIGTERM set the stop flag; a second one ends the program at once. */
void signals_catch(void);
const volatile int *signals_stop(void);
int signals_number(void); /* which came; 0: none */

/* A terminal whose cursor can be moved. */
bool is_smart_terminal(int fd);
int terminal_columns(int fd); /* 0: unknown */

graft_sink stdout_sink(void);
graft_sink stdout_stream(void); /* each piece at once */
graft_format stdout_format(const command_line *);
/* False when something could not be written: the output is incomplete. */
bool stdout_finish(void);

/* Progress on stderr: one line redrawn on a terminal, plain lines otherwise; messages above it. */
graft_observer progress_observer(const command_line *);
void progress_end(void);

/* "1h 02m", "3m 04s" in static storage. */
const char *duration_text(double seconds);

#endif
