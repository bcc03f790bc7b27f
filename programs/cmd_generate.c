/* generate and chat. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The whole of a file or of stdin ("-"). Caller frees. */
static graft_status read_text(char **out, const char *path, graft_error *err) {
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    size_t n = 0, capacity = 0, got = 1;
    graft_status status = file ? GRAFT_OK : GRAFT_E_INPUT;
    *out = NULL;
    while (status == GRAFT_OK && got) {
        if (n + 65536 > capacity) {
            capacity = 2 * capacity + 65536;
            char *grown = realloc(*out, capacity + 1);
            status = grown ? GRAFT_OK : GRAFT_E_MEMORY;
            *out = grown ? grown : *out;
        }
        got = status == GRAFT_OK ? fread(*out + n, 1, 65536, file) : 0;
        n += got;
    }
    if (status == GRAFT_OK && ferror(file))
        status = GRAFT_E_INPUT;
    if (status != GRAFT_OK)
        snprintf(err->message, sizeof err->message, "%s: %s", path, strerror(errno));
    else if (memchr(*out, '\0', n))
        snprintf(err->message, sizeof err->message, "%s: byte %zu: expected text, found a NUL byte",
                 path, strnlen(*out, n));
    else
        (*out)[n] = '\0';
    if (file && file != stdin)
        fclose(file);
    return status == GRAFT_OK && *err->message ? GRAFT_E_INPUT : status;
}

/* A JSON string of the text (caller frees); NULL when out of memory. */
static char *json_string(const char *text) {
    char *out = malloc(6 * strlen(text) + 3), *to = out;
    if (!out)
        return NULL;
    *to++ = '"';
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            *to++ = '\\';
            *to++ = (char)c;
        } else if (c < 0x20) {
            to += sprintf(to, "\\u%04x", c);
        } else {
            *to++ = (char)c;
        }
    }
    *to++ = '"';
    *to = '\0';
    return out;
}

typedef struct conversation {
    char *json; /* an array of messages, without its closing bracket */
    size_t n;
} conversation;

static bool conversation_add(conversation *c, const char *role, const char *text) {
    char *content = json_string(text);
    size_t needed = c->n + strlen(role) + (content ? strlen(content) : 0) + 64;
    char *grown = content ? realloc(c->json, needed) : NULL;
    if (grown) {
        c->json = grown;
        c->n +=
            (size_t)snprintf(c->json + c->n, needed - c->n, "%s{\"role\": \"%s\", \"content\": %s}",
                             c->n ? ", " : "[", role, content);
    }
    free(content);
    return grown != NULL;
}

static graft_status chat_turn(graft_generation *out, graft_session *session, const conversation *c,
                              const graft_sampling *sampling, const graft_sink *stream,
                              graft_error *err) {
    char *messages = malloc(c->n + 2);
    if (!messages)
        return GRAFT_E_MEMORY;
    memcpy(messages, c->json, c->n);
    strcpy(messages + c->n, "]");
    graft_status status = graft_session_chat(out, session, messages, sampling, stream, err);
    free(messages);
    return status;
}

static graft_status generate_once(graft_generation *out, const command_line *line,
                                  graft_session *session, const char *prompt, graft_error *err) {
    graft_status status;
    graft_sampling sampling = graft_session_sampling(session);
    graft_sink stream = stdout_stream();
    const graft_sink *streamed = line->json ? NULL : &stream;
    const char *chat = graft_recipe_get(line->recipe, "chat");
    if (!chat || strcmp(chat, "true"))
        return graft_session_generate(out, session, prompt, &sampling, streamed, err);
    conversation c = {0};
    const char *system = graft_recipe_get(line->recipe, "system");
    if ((system && !conversation_add(&c, "system", system)) ||
        !conversation_add(&c, "user", prompt))
        status = GRAFT_E_MEMORY;
    else
        status = chat_turn(out, session, &c, &sampling, streamed, err);
    free(c.json);
    return status;
}

static void write_stderr(void *context, const char *text, size_t n) {
    (void)context;
    fwrite(text, 1, n, stderr);
}

static graft_status finish_generation(const command_line *line, const graft_generation *g,
                                      graft_error *err) {
    graft_sink sink = stdout_sink();
    if (line->json)
        return graft_generation_write_json(&sink, g, err);
    sink.write(sink.context, "\n", 1);
    fflush(stdout);
    if (!line->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "%zu tokens, %.1f tokens/s; prompt %zu tokens in %s; %s\n", g->n_tokens,
                g->tokens_per_second, g->n_prompt_tokens, duration_text(g->prompt_seconds),
                strcmp(g->finish_reason, "stop") ? "cut at the token limit"
                                                 : "ended by the model or a stop text");
    graft_sink beside = {write_stderr, NULL}; /* stdout holds the answer alone */
    return graft_profile_write(&beside, &g->profile, err);
}

static int run_generate(const command_line *line) {
    graft_error err = {0};
    const char *prompt = graft_recipe_get(line->recipe, "prompt");
    const char *file = graft_recipe_get(line->recipe, "prompt_file");
    if (!prompt == !file) {
        fprintf(stderr, "graft generate: give one of --prompt TEXT and --prompt-file FILE\n");
        return 2;
    }
    char *text = NULL;
    graft_observer observer = progress_observer(line);
    graft_session *session = NULL;
    graft_generation generation = {0};
    graft_status status = file ? read_text(&text, file, &err) : GRAFT_OK;
    if (status == GRAFT_OK)
        status = graft_session_open(&session, line->recipe, &observer, &err);
    if (status == GRAFT_OK)
        status = generate_once(&generation, line, session, text ? text : prompt, &err);
    if (status == GRAFT_OK)
        status = finish_generation(line, &generation, &err);
    else if (generation.n_tokens && !line->json)
        putchar('\n');
    graft_generation_free(&generation);
    graft_session_close(&session);
    free(text);
    return finish(status, &err);
}

/* ---- chat ---- */

/* One answer, said and remembered. */
static graft_status answer(conversation *c, const command_line *line, graft_session *session,
                           graft_error *err) {
    graft_generation reply = {0};
    graft_sampling sampling = graft_session_sampling(session);
    graft_sink sink = stdout_sink(), stream = stdout_stream();
    graft_status status =
        chat_turn(&reply, session, c, &sampling, line->json ? NULL : &stream, err);
    if (status == GRAFT_OK && line->json)
        status = graft_generation_write_json(&sink, &reply, err);
    else if (!line->json && (status == GRAFT_OK || reply.n_tokens))
        sink.write(sink.context, "\n", 1);
    fflush(stdout);
    if (status == GRAFT_OK && !conversation_add(c, "assistant", reply.text))
        status = GRAFT_E_MEMORY;
    graft_generation_free(&reply);
    return status;
}

/* Reads lines and answers each, until the input ends. An empty line is a message too, but not when
 * it is typed. */
static graft_status converse(conversation *c, const command_line *line, graft_session *session,
                             graft_error *err) {
    char *text = NULL;
    size_t capacity = 0;
    ssize_t n = 0;
    bool is_typed = isatty(STDIN_FILENO);
    graft_status status = GRAFT_OK;
    while (status == GRAFT_OK) {
        if (is_typed)
            fputs("> ", stderr);
        if ((n = getline(&text, &capacity, stdin)) < 0 || *signals_stop())
            break;
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
            text[--n] = '\0';
        if (n == 0 && is_typed)
            continue;
        status = conversation_add(c, "user", text) ? answer(c, line, session, err) : GRAFT_E_MEMORY;
    }
    if (is_typed && status == GRAFT_OK)
        fputc('\n', stderr);
    free(text);
    return status == GRAFT_OK && *signals_stop() ? GRAFT_E_INTERRUPTED : status;
}

static int run_chat(const command_line *line) {
    graft_error err = {0};
    graft_observer observer = progress_observer(line);
    graft_session *session = NULL;
    conversation c = {0};
    graft_status status = graft_session_open(&session, line->recipe, &observer, &err);
    const char *system = graft_recipe_get(line->recipe, "system");
    if (status == GRAFT_OK && system && !conversation_add(&c, "system", system))
        status = GRAFT_E_MEMORY;
    if (status == GRAFT_OK)
        status = converse(&c, line, session, &err);
    free(c.json);
    graft_session_close(&session);
    return finish(status, &err);
}

const verb verb_generate = {
    .name = "generate",
    .id = GRAFT_VERB_GENERATE,
    .summary = "text from a model, with an adapter or without",
    .usage = "graft generate [RECIPE.yaml] --model DIR [--adapter DIR] --prompt TEXT [options]",
    .examples = "  graft generate --model DIR --adapter out --prompt \"Once upon a time\"\n"
                "  graft generate --model DIR --chat --prompt \"Why is the sky blue?\" "
                "--temperature 0.7 --top-p 0.9\n"
                "  graft generate --model DIR --prompt-file - --json < prompt.txt\n",
    .takes_recipe = true,
    .run = run_generate,
};

const verb verb_chat = {
    .name = "chat",
    .id = GRAFT_VERB_CHAT,
    .summary = "a conversation: one line in, one answer out (with --json one document a line)",
    .usage = "graft chat [RECIPE.yaml] --model DIR [--adapter DIR] [options]",
    .examples = "  graft chat --model DIR --adapter out --system \"You are brief.\"\n",
    .takes_recipe = true,
    .run = run_chat,
};
