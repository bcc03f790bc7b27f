/* The smallest useful program on the library: how many rows of a prompt/completion file a model
 * answers exactly.
 *
 *   exact_match MODEL ADAPTER|- ROWS.jsonl        prints "181 of 200 (90.5%)"
 *
 * Rows are one JSON object a line: {"prompt": "...", "completion": "..."}, without escapes but \n
 * and \". */
#include <graft.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of a string member, unescaped, in place; NULL when there is none. */
static char *member(char *line, const char *key) {
    char *at = strstr(line, key);
    if (!at)
        return NULL;
    char *from = strchr(at + strlen(key), '"');
    if (!from)
        return NULL;
    char *value = ++from, *to = value;
    for (; *from && *from != '"'; from++) {
        if (*from == '\\' && *++from == 'n')
            *from = '\n';
        *to++ = *from;
    }
    bool closed = *from == '"';
    *to = '\0';
    return closed ? value : NULL;
}

static int fail(const graft_error *err) {
    fprintf(stderr, "exact_match: %s\n", err->message);
    return graft_exit_status(err->code);
}

static graft_status open_session(graft_session **out, const char *model, const char *adapter,
                                 graft_error *err) {
    graft_recipe *recipe = NULL;
    graft_status status = graft_recipe_create(&recipe, GRAFT_VERB_GENERATE, err);
    if (status == GRAFT_OK)
        status = graft_recipe_set(recipe, "model", model, err);
    if (status == GRAFT_OK && strcmp(adapter, "-"))
        status = graft_recipe_set(recipe, "adapter", adapter, err);
    if (status == GRAFT_OK)
        status = graft_session_open(out, recipe, NULL, err);
    graft_recipe_destroy(&recipe);
    return status;
}

int main(int argc, char **argv) {
    graft_error err = {0};
    if (argc != 4) {
        fprintf(stderr, "usage: exact_match MODEL ADAPTER|- ROWS.jsonl\n");
        return 2;
    }
    FILE *rows = fopen(argv[3], "r");
    if (!rows) {
        perror(argv[3]);
        return 2;
    }
    graft_session *session = NULL;
    if (open_session(&session, argv[1], argv[2], &err) != GRAFT_OK)
        return fail(&err);
    graft_sampling greedy = {.max_new_tokens = 80, .top_p = 1, .repetition_penalty = 1};
    static char line[65536];
    int exact = 0, n = 0, status = 0;
    while (fgets(line, sizeof line, rows)) {
        char *completion = strstr(line, "\"completion\":");
        char *prompt = member(line, "\"prompt\":");
        completion = completion ? member(completion, "\"completion\":") : NULL;
        if (!prompt || !completion)
            continue;
        graft_generation answer = {0};
        if (graft_session_generate(&answer, session, prompt, &greedy, NULL, &err) != GRAFT_OK) {
            status = fail(&err);
            break;
        }
        n++;
        exact += !strcmp(answer.text, completion);
        graft_generation_free(&answer);
    }
    if (!status)
        printf("%d of %d (%.1f%%)\n", exact, n, n ? 100.0 * exact / n : 0.0);
    graft_session_close(&session);
    fclose(rows);
    return status;
}
