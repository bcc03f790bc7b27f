/* Prints docs/options.md from the table of options; the tests hold the page equal to it. */
#include <graft.h>

#include <stdio.h>
#include <string.h>

static const struct {
    graft_verb verb;
    const char *name;
} verbs[] = {{GRAFT_VERB_TRAIN, "train"},       {GRAFT_VERB_EVAL, "eval"},
             {GRAFT_VERB_GENERATE, "generate"}, {GRAFT_VERB_CHAT, "chat"},
             {GRAFT_VERB_PLAN, "plan"},         {GRAFT_VERB_DATA, "data"},
             {GRAFT_VERB_DOCTOR, "doctor"},     {GRAFT_VERB_TOKENIZE, "tokenize"},
             {GRAFT_VERB_RENDER, "render"}};

static void print_flag(const char *name, size_t n) {
    for (size_t i = 0; i < n; i++)
        putchar(name[i] == '_' ? '-' : name[i]);
}

/* A '|' in a cell must be escaped. */
static void print_cell(const char *text) {
    for (; *text; text++)
        printf(*text == '|' ? "\\|" : "%c", *text);
}

static void print_names(const graft_option *o) {
    printf("`--");
    print_flag(o->name, strlen(o->name));
    putchar('`');
    for (const char *alias = o->aliases; alias && *alias;) {
        size_t n = strcspn(alias, "|");
        printf(n == 1 ? ", `-" : ", `--");
        print_flag(alias, n);
        putchar('`');
        alias += n + (alias[n] == '|');
    }
}

int main(void) {
    printf("# Options\n\n"
           "Written by `tools/options_table` from the one table in `src/api/options.c`. Everything "
           "here can stand in a recipe\n"
           "(with `_` for `-`); a flag wins over a recipe, a recipe over the default.\n\n"
           "| option | values | default | verbs | what it does |\n|---|---|---|---|---|\n");
    for (size_t i = 0; graft_option_at(i); i++) {
        const graft_option *o = graft_option_at(i);
        printf("| ");
        print_names(o);
        printf(" | ");
        print_cell(o->type == GRAFT_OPTION_FLAG ? "flag" : o->choices ? o->choices : "");
        printf(" | %s | ", o->fallback ? o->fallback : "");
        const char *comma = "";
        for (size_t v = 0; v < sizeof verbs / sizeof *verbs; v++)
            if (o->verbs & verbs[v].verb) {
                printf("%s%s", comma, verbs[v].name);
                comma = ", ";
            }
        printf(" | ");
        print_cell(o->help);
        printf(" |\n");
    }
    printf("\n## Where the defaults leave Hugging Face's\n\n"
           "| option | here | there | why |\n|---|---|---|---|\n"
           "| `--learning-rate` | 1e-4 | 5e-5 (Trainer), 2e-5 (TRL) | adapters want a higher rate "
           "than whole models |\n"
           "| `--packing` | true | false (TRL) | no padding exists here and rows stay isolated, so "
           "it only saves time |\n"
           "| `--logging-steps` | 1 | 500 | a line costs nothing |\n"
           "| `--save-total-limit` | 2 | none | a checkpoint must survive the next one's failure; "
           "more is waste |\n");
    return 0;
}
