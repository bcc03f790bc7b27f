#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- Help ---- */

enum { HELP_COLUMNS = 100, HELP_INDENT = 32 };

/* "learning_rate" as it is typed. */
static void dashed(char *out, size_t capacity, const char *name) {
    size_t i = 0;
    for (; name[i] && i + 1 < capacity; i++)
        out[i] = name[i] == '_' ? '-' : name[i];
    out[i] = '\0';
}

/* Words from `column` on, broken before HELP_COLUMNS. */
static void print_wrapped(const char *text, int column) {
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > HELP_INDENT && column + 1 + n > HELP_COLUMNS) {
            printf("\n%*s", HELP_INDENT, "");
            column = HELP_INDENT;
        }
        bool is_first = column == HELP_INDENT;
        printf("%s%.*s", is_first ? "" : " ", n, text);
        column += n + !is_first;
        text += n + (text[n] == ' ');
    }
    putchar('\n');
}

/* --resume means something without a value too, so that one must be given with '='. */
static bool is_bare(const graft_option *o) {
    return !strcmp(o->name, "resume");
}

static void print_option(const graft_option *o) {
    char name[64], left[192], right[512];
    dashed(name, sizeof name, o->name);
    bool is_flag = o->type == GRAFT_OPTION_FLAG, is_on = is_flag && !strcmp(o->fallback, "true");
    int width = snprintf(left, sizeof left, "  %s--%s%s%s%s%s",
                         strcmp(o->name, "lora_r") ? "" : "-r, ", is_on ? "[no-]" : "", name,
                         is_flag      ? ""
                         : is_bare(o) ? "[="
                                      : " ",
                         is_flag ? "" : o->choices, is_bare(o) ? "]" : "");
    bool shows_default = o->fallback && !is_flag;
    snprintf(right, sizeof right, "%s%s%s%s", o->help, shows_default ? " [" : "",
             shows_default ? o->fallback : "", shows_default ? "]" : "");
    if (width >= HELP_INDENT)
        printf("%s\n%*s", left, HELP_INDENT, "");
    else
        printf("%-*s", HELP_INDENT, left);
    print_wrapped(right, HELP_INDENT);
}

/* The names alone, wrapped: a verb's help fits a screen. */
static void print_option_names(const verb *v) {
    int column = 0;
    for (size_t i = 0; graft_option_at(i); i++) {
        const graft_option *o = graft_option_at(i);
        if (!(o->verbs & v->id))
            continue;
        char name[64];
        dashed(name, sizeof name, o->name);
        int width = (int)strlen(name) + 3;
        if (column == 0 || column + width > HELP_COLUMNS) {
            printf("%s ", column ? "\n" : "");
            column = 1;
        }
        printf(" --%s", name);
        column += width;
    }
    putchar('\n');
}

void verb_help(const verb *v, bool all) {
    printf("%s\n\n%s\nusage: %s\n", v->summary, v->examples, v->usage);
    size_t n = 0;
    for (size_t i = 0; graft_option_at(i); i++)
        n += (graft_option_at(i)->verbs & v->id) != 0;
    bool in_full = all || n <= 24;
    if (n)
        printf("\nOptions%s:\n", in_full ? " [default]" : "");
    for (size_t i = 0; in_full && graft_option_at(i); i++)
        if (graft_option_at(i)->verbs & v->id)
            print_option(graft_option_at(i));
    if (!in_full) {
        print_option_names(v);
        printf("\ngraft %s --help=all says what each does and its default.\n", v->name);
    }
    printf("\n--json: one JSON document on stdout; --quiet: no progress.%s\n",
           v->takes_recipe ? " Every option can stand in RECIPE.yaml; flags win." : "");
}

/* ---- The command line ---- */

/* An option given without "=value": does the next argument belong to it? */
static bool takes_next(const graft_option *o) {
    return o->type != GRAFT_OPTION_FLAG && !is_bare(o);
}

typedef struct arguments {
    int count, next;
    char **texts;
} arguments;

static graft_status set_option(command_line *line, arguments *args, const char *text,
                               graft_error *err) {
    char name[128];
    const char *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : strlen(text);
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), text);
    const graft_option *o = graft_option_find(name);
    const char *value = equals ? equals + 1 : NULL;
    if (!o && !value && (!strncmp(name, "no-", 3) || !strncmp(name, "no_", 3))) {
        const graft_option *negated = graft_option_find(name + 3);
        if (negated && negated->type == GRAFT_OPTION_FLAG) {
            o = negated;
            value = "false";
        }
    }
    if (o && !(o->verbs & line->verb->id)) {
        snprintf(err->message, sizeof err->message,
                 "--%s is not an option of this verb; see graft %s --help", name, line->verb->name);
        return GRAFT_E_USAGE;
    }
    if (o && !value && takes_next(o)) {
        if (args->next >= args->count) {
            snprintf(err->message, sizeof err->message, "--%s needs a value: %s", name, o->choices);
            return GRAFT_E_USAGE;
        }
        value = args->texts[args->next++];
    }
    if (o && !value)
        value = o->type == GRAFT_OPTION_FLAG ? "true" : "";
    return graft_recipe_set(line->recipe, o ? o->name : name, value, err);
}

/* Handles what is no option of the recipe; 1: handled, 0: not its own, 2: refused (printed). */
static int take_general(command_line *line, const char *text, bool options_ended) {
    if (!options_ended && text[0] == '-' && text[1]) {
        line->json = line->json || !strcmp(text, "--json");
        line->quiet = line->quiet || !strcmp(text, "--quiet") || !strcmp(text, "-q");
        line->help_all = line->help_all || !strcmp(text, "--help=all");
        line->help = line->help || line->help_all || !strcmp(text, "--help") || !strcmp(text, "-h");
        return !strcmp(text, "--json") || !strcmp(text, "--quiet") || !strcmp(text, "-q") ||
               !strncmp(text, "--help", 6) || !strcmp(text, "-h");
    }
    if ((!line->verb->takes_recipe && !line->verb->takes_path) || line->path) {
        fprintf(stderr, "graft %s: unexpected argument \"%s\"\n", line->verb->name, text);
        return 2;
    }
    line->path = text;
    return 1;
}

int command_line_parse(command_line *line, const verb *v, int argc, char **argv) {
    graft_error err = {0};
    line->verb = v;
    graft_status status = graft_recipe_create(&line->recipe, v->id, &err);
    arguments args = {.count = argc, .texts = argv};
    bool options_ended = false;
    while (status == GRAFT_OK && args.next < argc) {
        const char *text = argv[args.next++];
        if (!options_ended && !strcmp(text, "--")) {
            options_ended = true;
            continue;
        }
        int taken = take_general(line, text, options_ended);
        if (taken == 2)
            return 2;
        if (taken == 1)
            continue;
        if (!strcmp(text, "-r"))
            text = "--r";
        if (strncmp(text, "--", 2)) {
            fprintf(stderr, "graft %s: unknown option \"%s\"; see graft %s --help\n", v->name, text,
                    v->name);
            return 2;
        }
        status = set_option(line, &args, text + 2, &err);
    }
    if (line->help) {
        verb_help(v, line->help_all);
        return 0;
    }
    if (status == GRAFT_OK && v->takes_recipe && line->path)
        status = graft_recipe_read(line->recipe, line->path, &err);
    if (status == GRAFT_OK)
        return -1;
    fprintf(stderr, "graft %s: %s\n", v->name, err.message);
    return graft_exit_status(status);
}

/* ---- Signals ---- */

static volatile int stop_signal;

static void on_signal(int number) {
    if (stop_signal)
        _exit(128 + number);
    stop_signal = number;
}

/* Weights are mapped: where their file ends before the map does, there is nothing to read and
 * nothing to return to. */
static void on_lost_file(int number, siginfo_t *info, void *context) {
    static const char message[] = "\ngraft: a file was cut short while it was in use (the model's, "
                                  "or the data's): put it back "
                                  "and start again; checkpoints that were saved are whole\n";
    (void)context;
    if (info->si_code != BUS_ADRERR) {
        signal(number, SIG_DFL);
        raise(number);
    }
    ssize_t written = write(STDERR_FILENO, message, sizeof message - 1);
    _exit(written < 0 ? 1 : graft_exit_status(GRAFT_E_IO));
}

void signals_catch(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction lost = {.sa_sigaction = on_lost_file, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &lost, NULL);
    /* A closed pipe is an error of the write, not the end of a training run. */
    signal(SIGPIPE, SIG_IGN);
}

const volatile int *signals_stop(void) {
    return &stop_signal;
}

int signals_number(void) {
    return stop_signal;
}

int finish(graft_status status, const graft_error *err) {
    progress_end();
    if (status == GRAFT_OK)
        return 0;
    const char *unsaid = status == GRAFT_E_INTERRUPTED ? "stopped" : "out of memory";
    fprintf(stderr, "graft: %s\n", *err->message ? err->message : unsaid);
    if (status == GRAFT_E_INTERRUPTED && stop_signal)
        return 128 + stop_signal;
    return graft_exit_status(status);
}

/* ---- Output ---- */

static int stdout_errno; /* of the first write that failed */

static void write_stdout(void *context, const char *text, size_t n) {
    (void)context;
    if (fwrite(text, 1, n, stdout) != n && !stdout_errno)
        stdout_errno = errno;
}

static void stream_stdout(void *context, const char *text, size_t n) {
    write_stdout(context, text, n);
    if (fflush(stdout) != 0 && !stdout_errno)
        stdout_errno = errno;
}

graft_sink stdout_sink(void) {
    return (graft_sink){write_stdout, NULL};
}

graft_sink stdout_stream(void) {
    return (graft_sink){stream_stdout, NULL};
}

bool is_smart_terminal(int fd) {
    const char *kind = getenv("TERM");
    return isatty(fd) && kind && strcmp(kind, "dumb");
}

int terminal_columns(int fd) {
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/* NO_COLOR as no-color.org says: set, and not empty. */
graft_format stdout_format(const command_line *line) {
    const char *no_color = getenv("NO_COLOR");
    return (graft_format){
        .json = line->json,
        .is_terminal = is_smart_terminal(STDOUT_FILENO) && !(no_color && *no_color),
        .columns = isatty(STDOUT_FILENO) ? terminal_columns(STDOUT_FILENO) : 0,
    };
}

bool stdout_finish(void) {
    if (fflush(stdout) != 0 && !stdout_errno)
        stdout_errno = errno;
    /* Who reads through `head` has what they wanted. */
    if (stdout_errno && stdout_errno != EPIPE)
        fprintf(stderr, "graft: stdout: %s\n", strerror(stdout_errno));
    return !stdout_errno;
}

/* ---- Texts ---- */

const char *duration_text(double seconds) {
    static char text[32];
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, 32, "%ldh %02ldm", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(text, 32, "%ldm %02lds", s / 60, s % 60);
    else
        snprintf(text, 32, "%.*fs", seconds < 10 ? 1 : 0, seconds);
    return text;
}
