/* Sessions: a model in memory, generating. */
#include "api/open.h"
#include "api/profile.h"

#include "base/memory.h"
#include "base/strbuf.h"
#include "generate/generation_config.h"
#include "generate/generator.h"
#include "text/tokenizer/special_tokens.h"
#include "train/data/control_text.h"

#include <stdlib.h>
#include <string.h>

struct graft_session {
    opened opened;
    generation_config config;
    graft_sampling sampling; /* the recipe's, over the config's; stops point into `stops` */
    text_list stops;
    generator *generator;
    encoding encoded;
    control_text *controls;
    int32_t *prompt; /* [n_prompt] ids of the text to continue */
    size_t n_prompt, prompt_capacity;
    int32_t task; /* of every text */
    int64_t now;  /* the clock of templates */
    const volatile int *stop;
};

static graft_status resolve_sampling(graft_session *s, graft_error *err) {
    const graft_recipe *recipe = s->opened.recipe;
    const sampling_options *own = &s->config.sampling;
    graft_sampling *to = &s->sampling;
    *to = (graft_sampling){
        .max_new_tokens = s->config.max_new_tokens ? s->config.max_new_tokens : 256,
        .temperature = own->temperature,
        .top_k = own->top_k,
        .top_p = own->top_p,
        .min_p = own->min_p,
        .repetition_penalty = own->repetition_penalty,
        .seed = (uint64_t)recipe_integer(recipe, "seed"),
    };
    bool samples = false; /* an option that only acts when sampling asks for it */
    if (recipe_has(recipe, "max_new_tokens"))
        to->max_new_tokens = recipe_integer(recipe, "max_new_tokens");
    if (recipe_has(recipe, "top_k") && (samples = true))
        to->top_k = recipe_integer(recipe, "top_k");
    if (recipe_has(recipe, "top_p") && (samples = true))
        to->top_p = recipe_number(recipe, "top_p");
    if (recipe_has(recipe, "min_p") && (samples = true))
        to->min_p = recipe_number(recipe, "min_p");
    if (recipe_has(recipe, "repetition_penalty"))
        to->repetition_penalty = recipe_number(recipe, "repetition_penalty");
    if (recipe_has(recipe, "temperature"))
        to->temperature = recipe_number(recipe, "temperature");
    else if (samples && to->temperature == 0)
        to->temperature = 1;
    for (size_t i = 0; i < recipe_list_count(recipe, "stop"); i++) {
        graft_status status = text_list_add(&s->stops, recipe_list_item(recipe, "stop", i), err);
        if (status != GRAFT_OK)
            return status;
    }
    to->stops = (const char *const *)s->stops.items;
    to->n_stops = s->stops.n;
    return GRAFT_OK;
}

/* Known before a first message is typed. */
static graft_status need_template(const graft_session *s, graft_error *err) {
    const graft_recipe *recipe = s->opened.recipe;
    bool chats = recipe_verb(recipe) == GRAFT_VERB_CHAT || recipe_flag(recipe, "chat");
    if (s->opened.templates.chat || !chats)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT,
                     "%s: the model has no chat template; give one with --chat-template FILE or a "
                     "built-in name (chatml)",
                     s->opened.folder);
}

static graft_status resolve_task(graft_session *s, graft_error *err) {
    const int32_t n_tasks = s->opened.hooks.n_tasks;
    s->task = (int32_t)recipe_integer(s->opened.recipe, "task_id");
    if (!n_tasks || s->task < n_tasks)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_USAGE,
                     "--task-id is %d; the adapter has %d task%s, numbered from 0", (int)s->task,
                     (int)n_tasks, n_tasks == 1 ? "" : "s");
}

static graft_status open_parts(graft_session *s, graft_error *err) {
    opened *o = &s->opened;
    graft_status status = open_weights(o, err);
    if (status == GRAFT_OK)
        status = open_trained_adapter(o, false, err);
    if (status == GRAFT_OK)
        status = resolve_task(s, err);
    if (status == GRAFT_OK)
        status = open_text(o, err);
    if (status == GRAFT_OK)
        status = need_template(s, err);
    if (status == GRAFT_OK)
        status = control_text_create(&s->controls, o->tokenizer, err);
    if (status == GRAFT_OK)
        status = generation_config_read(&s->config, o->folder, &o->spec, err);
    if (status == GRAFT_OK)
        status = resolve_sampling(s, err);
    const model_run run = {o->dev, &o->spec, o->weights, &o->hooks};
    if (status == GRAFT_OK)
        status = generator_create(&s->generator, &run, err);
    return status;
}

graft_status graft_session_open(graft_session **out, const graft_recipe *recipe,
                                const graft_observer *observer, graft_error *err) {
    *out = NULL;
    graft_session *s = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "a session");
    s->opened = opened_begin(recipe, observer);
    s->stop = observer ? observer->stop : NULL;
    graft_status status = recipe_time(&s->now, recipe, err);
    if (status == GRAFT_OK)
        status = open_parts(s, err);
    s->opened.recipe = NULL; /* recipe and observer may go: nothing reads them from here on */
    s->opened.observer = NULL;
    s->opened.messages = (message_sink){0};
    if (status != GRAFT_OK)
        graft_session_close(&s);
    *out = s;
    return status;
}

void graft_session_close(graft_session **session) {
    if (!*session)
        return;
    generator_destroy(&(*session)->generator);
    control_text_destroy(&(*session)->controls);
    free((*session)->prompt);
    encoding_free(&(*session)->encoded);
    text_list_free(&(*session)->stops);
    opened_close(&(*session)->opened);
    free(*session);
    *session = NULL;
}

graft_sampling graft_session_sampling(const graft_session *s) {
    return s->sampling;
}

/* ---- Streaming, with stop texts ---- */

typedef struct answer {
    const graft_sampling *sampling;
    const graft_sink *stream;
    decode_stream *decoder;
    strbuf text;
    size_t streamed; /* bytes of text handed to the sink */
    int32_t *ids;
    size_t n_ids, ids_capacity;
    bool has_stopped; /* a stop text was found: nothing follows */
    graft_status status;
    graft_error *err;
} answer;

/* Where the first stop text begins; the text's length when there is none. */
static size_t find_stop(const answer *a) {
    size_t first = a->text.length;
    for (size_t i = 0; i < a->sampling->n_stops; i++) {
        const char *found =
            *a->sampling->stops[i] ? strstr(strbuf_text(&a->text), a->sampling->stops[i]) : NULL;
        if (found && (size_t)(found - a->text.data) < first)
            first = (size_t)(found - a->text.data);
    }
    return first;
}

/* How many bytes at the end could be the beginning of a stop text: they wait. */
static size_t held_back(const answer *a) {
    size_t most = 0;
    for (size_t i = 0; i < a->sampling->n_stops; i++) {
        const char *stop = a->sampling->stops[i];
        size_t n = strlen(stop);
        for (size_t k = n ? n - 1 : 0; k > most; k--)
            if (k <= a->text.length && !memcmp(a->text.data + a->text.length - k, stop, k)) {
                most = k;
                break;
            }
    }
    return most;
}

static void stream_up_to(answer *a, size_t end) {
    if (a->stream && end > a->streamed)
        a->stream->write(a->stream->context, a->text.data + a->streamed, end - a->streamed);
    if (end > a->streamed)
        a->streamed = end;
}

static void cut_text(answer *a, size_t end) {
    if (end < a->text.length) {
        a->text.length = end;
        a->text.data[end] = '\0';
    }
}

static bool take_token(void *context, int32_t id) {
    answer *a = context;
    if (!mem_reserve(&a->ids, &a->ids_capacity, a->n_ids + 1, sizeof *a->ids)) {
        a->status = error_memory(a->err, a->n_ids * sizeof *a->ids, "the answer");
        return false;
    }
    a->ids[a->n_ids++] = id;
    a->status = decode_stream_add(a->decoder, &a->text, id, a->err);
    if (a->status != GRAFT_OK)
        return false;
    size_t stop = find_stop(a);
    if (stop < a->text.length) {
        cut_text(a, stop);
        stream_up_to(a, stop);
        a->has_stopped = true;
        return false;
    }
    stream_up_to(a, a->text.length - held_back(a));
    return true;
}

/* What the decoder still holds, when no stop text ended the answer. */
static graft_status finish_answer(answer *a) {
    if (a->status != GRAFT_OK || a->has_stopped)
        return a->status;
    graft_status status = decode_stream_finish(a->decoder, &a->text, a->err);
    if (status == GRAFT_OK) {
        cut_text(a, find_stop(a));
        stream_up_to(a, a->text.length);
    }
    return status;
}

static graft_status continue_ids(graft_generation *out, graft_session *s,
                                 const graft_sampling *sampling, const graft_sink *stream,
                                 graft_error *err) {
    *out = (graft_generation){0};
    answer a = {.sampling = sampling, .stream = stream, .err = err};
    generate_result result = {0};
    generate_request request = {
        .prompt = s->prompt,
        .n_prompt = (int32_t)s->n_prompt,
        .max_new_tokens = sampling->max_new_tokens,
        .task = s->task,
        .sampling = {sampling->temperature, sampling->top_k, sampling->top_p, sampling->min_p,
                     sampling->repetition_penalty},
        .seed = sampling->seed,
        .eos = s->config.eos,
        .n_eos = s->config.n_eos,
        .on_token = take_token,
        .context = &a,
        .stop = s->stop,
    };
    graft_status status = decode_stream_create(&a.decoder, s->opened.tokenizer, true, err);
    if (status == GRAFT_OK)
        status = generator_run(&result, s->generator, &request, err);
    if (status == GRAFT_OK)
        status = finish_answer(&a);
    decode_stream_destroy(&a.decoder);
    out->token_ids = a.ids;
    out->n_tokens = a.n_ids;
    out->n_prompt_tokens = s->n_prompt;
    out->prompt_seconds = result.prompt_s;
    out->seconds = result.prompt_s + result.decode_s;
    out->tokens_per_second = result.decode_s > 0 ? (double)result.n_tokens / result.decode_s : 0;
    out->finish_reason = result.reason == FINISH_STOP ? "stop" : "length";
    profile_take(&out->profile, &s->opened, out->seconds);
    out->text_bytes = a.text.length;
    out->text = strbuf_take(&a.text);
    if (!out->text && status == GRAFT_OK)
        status = error_memory(err, out->text_bytes, "the answer");
    return status;
}

/* ---- Prompts ---- */

static graft_status set_prompt(graft_session *s, const encoding *encoded, graft_error *err) {
    s->n_prompt = 0;
    if (!mem_reserve(&s->prompt, &s->prompt_capacity, encoded->n, sizeof *s->prompt))
        return error_memory(err, encoded->n * sizeof *s->prompt, "the prompt");
    if (encoded->n)
        memcpy(s->prompt, encoded->ids, encoded->n * sizeof *s->prompt);
    s->n_prompt = encoded->n;
    return GRAFT_OK;
}

graft_status graft_session_generate(graft_generation *out, graft_session *s, const char *prompt,
                                    const graft_sampling *sampling, const graft_sink *stream,
                                    graft_error *err) {
    *out = (graft_generation){0};
    graft_status status = tokenizer_encode(s->opened.tokenizer, &s->encoded, prompt, strlen(prompt),
                                           (encode_options){.add_special_tokens = true}, err);
    if (status == GRAFT_OK)
        status = set_prompt(s, &s->encoded, err);
    return status == GRAFT_OK ? continue_ids(out, s, sampling, stream, err) : status;
}

/* The rendered conversation as tokens. The template prints BOS itself where the model wants one;
 * text of a message that looks like a control token was hidden from it and stays text. */
static graft_status encode_conversation(graft_session *s, template_result *rendered,
                                        bool has_hidden, graft_error *err) {
    if (!has_hidden) {
        graft_status status =
            tokenizer_encode(s->opened.tokenizer, &s->encoded, strbuf_text(&rendered->text),
                             rendered->text.length, (encode_options){0}, err);
        return status == GRAFT_OK ? set_prompt(s, &s->encoded, err) : status;
    }
    encoded_row row = {0};
    graft_status status = control_text_encode(s->controls, &row, rendered, &s->encoded, err);
    s->n_prompt = 0;
    if (status == GRAFT_OK &&
        !mem_reserve(&s->prompt, &s->prompt_capacity, row.n, sizeof *s->prompt))
        status = error_memory(err, row.n * sizeof *s->prompt, "the prompt");
    for (size_t i = 0; status == GRAFT_OK && i < row.n; i++)
        s->prompt[s->n_prompt++] = row.tokens[i].id;
    encoded_row_free(&row);
    return status;
}

/* Sets the prompt to the conversation through the model's template, up to where the assistant
 * begins. */
static graft_status render_conversation(graft_session *s, json_t *messages, graft_error *err) {
    bool has_hidden = false;
    template_result rendered = {0};
    json_t *variables = NULL;
    graft_status status =
        control_text_hide(s->controls, &has_hidden, messages, NULL, "messages", err);
    if (status == GRAFT_OK)
        status = special_tokens_json(&variables, s->opened.tokenizer, err);
    const template_input input = {
        .messages = messages, .variables = variables, .add_generation_prompt = true, .now = s->now};
    if (status == GRAFT_OK)
        status = template_render(s->opened.templates.chat, &rendered, &input, err);
    if (status == GRAFT_OK)
        status = encode_conversation(s, &rendered, has_hidden, err);
    template_result_free(&rendered);
    json_decref(variables);
    return status;
}

graft_status graft_session_chat(graft_generation *out, graft_session *s, const char *messages_json,
                                const graft_sampling *sampling, const graft_sink *stream,
                                graft_error *err) {
    *out = (graft_generation){0};
    if (!s->opened.templates.chat)
        return error_set(err, GRAFT_E_INPUT, "%s: the model has no chat template",
                         s->opened.folder);
    json_t *messages = NULL;
    graft_status status =
        json_parse(&messages, messages_json, strlen(messages_json), "messages", err);
    if (status == GRAFT_OK && !json_is_array(messages))
        status = error_set(err, GRAFT_E_INPUT, "messages: expected an array, found %s",
                           json_type_name(messages));
    if (status == GRAFT_OK)
        status = render_conversation(s, messages, err);
    json_decref(messages);
    return status == GRAFT_OK ? continue_ids(out, s, sampling, stream, err) : status;
}
