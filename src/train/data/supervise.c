#include "train/data/supervise.h"

#include "base/memory.h"
#include "text/tokenizer/special_tokens.h"
#include "train/data/control_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct supervisor {
    dataset_options options;
    int32_t bos, eos;     /* -1: none */
    const char *eos_text; /* NULL: none */
    size_t eos_length;
    int64_t now;
    bool told_date;
    json_t *variables; /* special tokens by name, for templates */
    control_text *controls;
    template_result rendered;
    encoding scratch;
};

static graft_status read_special_tokens(supervisor *s, graft_error *err) {
    const tokenizer *t = s->options.tokenizer;
    s->bos = tokenizer_bos(t);
    s->eos = tokenizer_eos(t);
    s->eos_text = s->eos < 0 ? NULL : tokenizer_token_text(t, s->eos);
    s->eos_length = s->eos_text ? strlen(s->eos_text) : 0;
    graft_status status = special_tokens_json(&s->variables, t, err);
    return status == GRAFT_OK ? control_text_create(&s->controls, t, err) : status;
}

graft_status supervisor_create(supervisor **out, const dataset_options *options, graft_error *err) {
    *out = NULL;
    supervisor *s = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the data reader");
    s->options = *options;
    s->bos = s->eos = -1;
    s->now = options->now ? options->now : (int64_t)time(NULL);
    graft_status status = options->tokenizer ? read_special_tokens(s, err) : GRAFT_OK;
    if (status != GRAFT_OK)
        supervisor_destroy(&s);
    *out = s;
    return status;
}

void supervisor_destroy(supervisor **s) {
    if (!*s)
        return;
    json_decref((*s)->variables);
    control_text_destroy(&(*s)->controls);
    template_result_free(&(*s)->rendered);
    encoding_free(&(*s)->scratch);
    free(*s);
    *s = NULL;
}

static graft_status tokens_memory(const encoded_row *row, graft_error *err) {
    return error_memory(err, row->n * sizeof *row->tokens, "a row's tokens");
}

/* ---- Ends -------------------------------------------------------------------------------------
 */

/* n without the EOS texts that a completion ends in: the row gets exactly one, as a token. */
static size_t length_without_eos(const supervisor *s, const char *text, size_t n) {
    while (s->eos_length && n >= s->eos_length &&
           !memcmp(text + n - s->eos_length, s->eos_text, s->eos_length))
        n -= s->eos_length;
    return n;
}

static graft_status append_eos(const supervisor *s, encoded_row *out, graft_error *err) {
    size_t begin = out->text.length;
    strbuf_add(&out->text, s->eos_text, s->eos_length);
    row_token token = {
        .id = s->eos, .label = s->eos, .begin = (uint32_t)begin, .end = (uint32_t)out->text.length};
    return !out->text.failed && encoded_row_append_token(out, token) ? GRAFT_OK
                                                                     : tokens_memory(out, err);
}

static void drop_added_at_end(encoded_row *row) {
    while (row->n && row->tokens[row->n - 1].is_added)
        row->n--;
}

static void drop_doubled_bos(const supervisor *s, encoded_row *row) {
    bool is_doubled =
        s->bos >= 0 && row->n >= 2 && row->tokens[0].id == s->bos && row->tokens[1].id == s->bos;
    if (!is_doubled)
        return;
    if (row->kind == ROW_TOKENS) {
        encoded_row_find(row, GATE_DOUBLED_BOS_KEPT);
        return;
    }
    memmove(row->tokens, row->tokens + 1, (row->n - 1) * sizeof *row->tokens);
    row->n--;
    encoded_row_find(row, GATE_DOUBLED_BOS);
}

/* ---- Spans to tokens --------------------------------------------------------------------------
 */

/* Any of the token's text is enough, as Transformers' assistant mask and TRL have it: a token that
 * straddles a border holds the first of the answer. One without width (white space that offsets
 * leave out) stands at the end of what it came from. */
static bool token_is_inside(const row_token *t, size_t begin, size_t end) {
    return t->begin < t->end ? t->begin < end && t->end > begin
                             : t->begin > begin && t->begin <= end;
}

static void train_range(encoded_row *row, size_t begin, size_t end) {
    for (size_t i = 0; i < row->n; i++)
        if (!row->tokens[i].is_added && token_is_inside(&row->tokens[i], begin, end))
            row->tokens[i].label = row->tokens[i].id;
}

static void train_everything(encoded_row *row) {
    for (size_t i = 0; i < row->n; i++)
        row->tokens[i].label = row->tokens[i].id;
}

/* The span that may hold the token: the first that does not end before it. */
static size_t find_span(const template_result *rendered, const row_token *token) {
    size_t low = 0, high = rendered->n_spans;
    /* A token without width belongs to the span that ends where it stands. */
    size_t first = token->begin < token->end ? (size_t)token->begin + 1 : token->begin;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (rendered->spans[middle].end < first)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool span_is_trained(const supervisor *s, const data_row *row, const template_span *span) {
    if (span->message < 0)
        return true;
    bool is_prompt = (size_t)span->message < row->completion_first;
    return !row->conversation.untrained[span->message] &&
           !(is_prompt && s->options.train_on == TRAIN_ON_COMPLETIONS);
}

static void train_spans(const supervisor *s, encoded_row *out, const data_row *row) {
    for (size_t i = 0; i < out->n; i++) {
        row_token *token = &out->tokens[i];
        size_t k = find_span(&s->rendered, token);
        if (k == s->rendered.n_spans)
            continue;
        const template_span *span = &s->rendered.spans[k];
        if (token_is_inside(token, span->begin, span->end) && span_is_trained(s, row, span))
            token->label = token->id;
    }
}

static bool is_white_range(const char *text, size_t begin, size_t end) {
    for (; begin < end; begin++)
        if (!strchr(" \n\r\t", text[begin]) || !text[begin])
            return false;
    return true;
}

/* A model learns to stop from the control token that ends its turn: the last supervised span must
 * have one. */
static graft_status check_stop(const supervisor *s, encoded_row *out, const data_row *row,
                               graft_error *err) {
    size_t n_spans = s->rendered.n_spans;
    const template_span *span = n_spans ? &s->rendered.spans[n_spans - 1] : NULL;
    if (!span || (!span_is_trained(s, row, span) && s->options.train_on != TRAIN_ON_ALL))
        return GRAFT_OK;
    const char *text = strbuf_text(&out->text);
    size_t last = out->n;
    while (last > 0 &&
           (out->tokens[last - 1].begin >= span->end ||
            is_white_range(text, out->tokens[last - 1].begin, out->tokens[last - 1].end)))
        last--;
    if (last > 0 && tokenizer_is_special(s->options.tokenizer, out->tokens[last - 1].id))
        return GRAFT_OK;
    bool is_end = is_white_range(text, span->end, out->text.length);
    if (!is_end || s->eos < 0) {
        encoded_row_find(out, GATE_NO_STOP);
        return GRAFT_OK;
    }
    encoded_row_find(out, GATE_EOS_ADDED);
    return append_eos(s, out, err);
}

/* ---- The three forms --------------------------------------------------------------------------
 */

static graft_status strip_eos_from_answers(const supervisor *s, conversation *c, graft_error *err) {
    size_t i;
    json_t *message;
    json_array_foreach(c->messages, i, message) {
        json_t *content = json_object_get(message, "content");
        const char *role = json_string_value(json_object_get(message, "role"));
        if (!json_is_string(content) || strcmp(role, "assistant"))
            continue;
        size_t n = json_string_length(content);
        size_t kept = length_without_eos(s, json_string_value(content), n);
        if (kept == n)
            continue;
        json_t *shorter = json_stringn(json_string_value(content), kept);
        if (json_object_set_new(message, "content", shorter))
            return error_memory(err, kept, "a message");
    }
    return GRAFT_OK;
}

/* A date in every row makes other data of the same files on another day. */
static void tell_date(supervisor *s, const chat_template *template) {
    if (s->told_date || s->options.now || !strstr(template_source(template), "strftime_now"))
        return;
    s->told_date = true;
    message_emit(
        &s->options.messages, MESSAGE_INFO,
        "the chat template prints the current date into its rows: a run resumed on another "
        "day sees other data");
}

/* Tool calls that the template would not print become text. */
static graft_status prepare_tools(encoded_row *out, conversation *c, const chat_template *template,
                                  graft_error *err) {
    const char *source = template_source(template);
    bool prints_calls = strstr(source, "tool_calls") != NULL;
    if ((c->tools && !strstr(source, "tools")) || (c->has_tool_calls && !prints_calls))
        encoded_row_find(out, GATE_TOOLS_NOT_SHOWN);
    return c->has_tool_calls && !prints_calls ? conversation_flatten_tool_calls(c, err) : GRAFT_OK;
}

static graft_status encode_rendered(supervisor *s, encoded_row *out, bool has_hidden,
                                    graft_error *err) {
    if (has_hidden) {
        encoded_row_find(out, GATE_CONTROL_TEXT);
        return control_text_encode(s->controls, out, &s->rendered, &s->scratch, err);
    }
    strbuf_add(&out->text, strbuf_text(&s->rendered.text), s->rendered.text.length);
    /* The template prints what surrounds a row, BOS included: the post-processor would give a
     * second one. */
    graft_status status =
        tokenizer_encode(s->options.tokenizer, &s->scratch, strbuf_text(&out->text),
                         out->text.length, (encode_options){0}, err);
    if (status == GRAFT_OK &&
        (out->text.failed || !encoded_row_append(out, &s->scratch, 0, s->scratch.n, 0)))
        status = tokens_memory(out, err);
    return status;
}

static graft_status encode_conversation(supervisor *s, encoded_row *out, data_row *row,
                                        const char *origin, graft_error *err) {
    conversation *c = &row->conversation;
    const chat_template *template = s->options.chat;
    bool has_hidden;
    if (c->tools && s->options.chat_tools)
        template = s->options.chat_tools;
    if (!template)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: a conversation needs a chat template, and there is none; give "
                         "--chat-template FILE or a built-in name such as chatml",
                         origin);
    tell_date(s, template);
    graft_status status = strip_eos_from_answers(s, c, err);
    if (status == GRAFT_OK)
        status = prepare_tools(out, c, template, err);
    if (status == GRAFT_OK)
        status = control_text_hide(s->controls, &has_hidden, c->messages, c->tools, origin, err);
    if (status != GRAFT_OK)
        return status;
    template_input input = {
        .messages = c->messages, .tools = c->tools, .variables = s->variables, .now = s->now};
    template_result_free(&s->rendered);
    status = template_render(template, &s->rendered, &input, err);
    if (status != GRAFT_OK)
        goto cleanup;
    /* Where the turns cannot be told apart, nothing is trained rather than something guessed. */
    if (s->options.train_on != TRAIN_ON_ALL && s->rendered.span_error.code != GRAFT_OK) {
        status = error_set(err, s->rendered.span_error.code, "%s", s->rendered.span_error.message);
        goto cleanup;
    }
    status = encode_rendered(s, out, has_hidden, err);
    if (status != GRAFT_OK)
        goto cleanup;
    if (s->options.train_on == TRAIN_ON_ALL)
        train_everything(out);
    else
        train_spans(s, out, row);
    status = check_stop(s, out, row, err);
cleanup:
    if (status != GRAFT_OK)
        error_prefix(err, "%s", origin);
    return status;
}

/* Completions end in EOS; so do texts that are trained (not evaluated: perplexity is over what
 * stands there). */
static bool ends_in_eos(const supervisor *s, const encoded_row *out, const data_row *row) {
    bool is_text = row->kind == ROW_TEXT && !out->is_document;
    return row->ends_in_eos || (is_text && s->options.text_ends);
}

static graft_status encode_plain(supervisor *s, encoded_row *out, const data_row *row,
                                 const char *origin, graft_error *err) {
    size_t n = row->completion.length;
    bool has_end = ends_in_eos(s, out, row);
    if (has_end)
        n = length_without_eos(s, strbuf_text(&row->completion), n);
    strbuf_add(&out->text, strbuf_text(&row->prompt), row->prompt.length);
    strbuf_add(&out->text, strbuf_text(&row->completion), n);
    if (out->text.failed)
        return error_memory(err, row->prompt.length + n, "a row's text");
    encode_options how = {.add_special_tokens = true, .split_special_tokens = row->is_user_text};
    graft_status status = tokenizer_encode(s->options.tokenizer, &s->scratch,
                                           strbuf_text(&out->text), out->text.length, how, err);
    if (status != GRAFT_OK) {
        error_prefix(err, "%s", origin);
        return status;
    }
    if (!encoded_row_append(out, &s->scratch, 0, s->scratch.n, 0))
        return tokens_memory(out, err);
    if (has_end || out->is_document)
        drop_added_at_end(out);
    if (row->kind == ROW_TEXT || s->options.train_on == TRAIN_ON_ALL)
        train_everything(out);
    else
        train_range(out, row->prompt.length, out->text.length);
    if (!has_end || (row->kind == ROW_TEXT && !n)) /* an empty text teaches nothing */
        return GRAFT_OK;
    if (s->eos >= 0)
        return append_eos(s, out, err);
    encoded_row_find(out, GATE_NO_EOS);
    return GRAFT_OK;
}

static graft_status take_tokens(encoded_row *out, const data_row *row, graft_error *err) {
    for (size_t i = 0; i < row->n_ids; i++)
        if (!encoded_row_append_token(out, (row_token){.id = row->ids[i], .label = row->labels[i]}))
            return tokens_memory(out, err);
    return GRAFT_OK;
}

/* A tokenizer may know more ids than the embedding has rows; a row may not use them. */
static graft_status check_ids(const supervisor *s, const encoded_row *row, const char *origin,
                              graft_error *err) {
    int32_t limit = s->options.embedding_rows;
    for (size_t i = 0; limit > 0 && i < row->n; i++) {
        int32_t id = row->tokens[i].id < limit ? row->tokens[i].label : row->tokens[i].id;
        if (id < limit)
            continue;
        const char *text =
            s->options.tokenizer ? tokenizer_token_text(s->options.tokenizer, id) : NULL;
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: token %zu is id %d%s%s%s, but the model's embedding has %d rows; use the "
            "tokenizer that belongs to the model, or remove that text",
            origin, i, (int)id, text ? " (\"" : "", text ? text : "", text ? "\")" : "",
            (int)limit);
    }
    return GRAFT_OK;
}

graft_status supervisor_encode(supervisor *s, encoded_row *out, data_row *row, const char *origin,
                               graft_error *err) {
    graft_status status;
    out->kind = row->kind;
    out->weight = row->weight;
    out->task = row->task;
    out->source.answer = (int32_t)row->answer;
    if (row->has_empty_answer)
        encoded_row_find(out, GATE_EMPTY_ANSWER);
    if (row->kind == ROW_TOKENS)
        status = take_tokens(out, row, err);
    else if (!s->options.tokenizer)
        status = error_set(err, GRAFT_E_INPUT,
                           "%s: a row of text needs a tokenizer, and the model has none; give "
                           "pre-tokenised rows (input_ids)",
                           origin);
    else if (row->conversation.messages)
        status = encode_conversation(s, out, row, origin, err);
    else
        status = encode_plain(s, out, row, origin, err);
    if (status != GRAFT_OK)
        return status;
    drop_doubled_bos(s, out);
    return check_ids(s, out, origin, err);
}
