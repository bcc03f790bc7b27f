#include "api/open.h"

#include "api/adapter_options.h"
#include "api/profile.h"
#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"

#include <errno.h>
#include <limits.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void emit_message(void *context, message_level level, const char *text) {
    const graft_observer *observer = context;
    if (!observer || !observer->on_event)
        return;
    graft_event event = {.kind = level == MESSAGE_WARNING ? GRAFT_EVENT_WARNING : GRAFT_EVENT_INFO,
                         .text = text};
    observer->on_event(observer->context, &event);
}

opened opened_begin(const graft_recipe *recipe, const graft_observer *observer) {
    opened o = {.recipe = recipe, .observer = observer};
    o.messages = (message_sink){.emit = emit_message, .context = (void *)observer};
    return o;
}

void opened_close(opened *o) {
    model_hooks_free(&o->hooks);
    adapter_destroy(&o->adapter);
    if (o->adapter_memory)
        o->dev->ops->release(o->dev, o->adapter_memory);
    data_templates_free(&o->templates);
    tokenizer_destroy(&o->tokenizer);
    weight_source_close(&o->weights);
    model_spec_free(&o->spec);
    backend_destroy(&o->dev);
    free(o->folder);
    *o = (opened){0};
}

bool folder_has(const char *folder, const char *name) {
    char path[PATH_MAX]; /* longer ones cannot be opened either */
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path && path_exists(path);
}

graft_status need_option(const graft_recipe *recipe, const char *name, graft_error *err) {
    const char *text = graft_recipe_get(recipe, name);
    if (text && *text)
        return GRAFT_OK;
    char flag[64];
    snprintf(flag, sizeof flag, "%s", name);
    for (char *c = flag; *c; c++)
        if (*c == '_')
            *c = '-';
    return error_set(err, GRAFT_E_USAGE, "--%s %s is needed", flag,
                     graft_option_find(name)->choices);
}

/* 2026-01-31T12:00:00 (local time) or seconds since 1970. */
static graft_status parse_time(int64_t *out, const char *text, graft_error *err) {
    struct tm tm = {.tm_isdst = -1};
    char *end;
    errno = 0;
    long long seconds = strtoll(text, &end, 10);
    if (end != text && !*end && !errno) {
        *out = seconds;
        return GRAFT_OK;
    }
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest || *rest)
        return error_set(err, GRAFT_E_USAGE,
                         "now: expected 2026-01-31T12:00:00 or seconds since 1970, found \"%s\"",
                         text);
    *out = mktime(&tm);
    return GRAFT_OK;
}

graft_status recipe_time(int64_t *out, const graft_recipe *recipe, graft_error *err) {
    const char *given = recipe_text(recipe, "now");
    *out = (int64_t)time(NULL);
    return given ? parse_time(out, given, err) : GRAFT_OK;
}

graft_status recipe_features(cpu_features *out, const graft_recipe *recipe, graft_error *err) {
    *out = cpu_features_detect();
    const char *list = recipe_text(recipe, "cpu_features");
    return !list || cpu_features_mask(out, list, err) ? GRAFT_OK : GRAFT_E_USAGE;
}

compute_type recipe_compute(const graft_recipe *recipe) {
    const char *name = recipe_text(recipe, "compute");
    compute_type type = COMPUTE_F32;
    while (type < N_COMPUTE_TYPES && strcmp(name, compute_type_name(type)) != 0)
        type++;
    return type == N_COMPUTE_TYPES ? COMPUTE_F32 : type; /* auto */
}

/* Work that rounding its weights would only slow down, or that has none to round. */
static graft_status check_compute(const graft_recipe *recipe, graft_error *err) {
    graft_verb verb = recipe_verb(recipe);
    const char *name = compute_type_name(recipe_compute(recipe));
    if (recipe_compute(recipe) == COMPUTE_F32 || recipe_flag(recipe, "force_compute"))
        return GRAFT_OK;
    if (verb == GRAFT_VERB_GENERATE || verb == GRAFT_VERB_CHAT)
        return error_set(
            err, GRAFT_E_USAGE,
            "--compute %s: generation reads every weight once a token, and rounding "
            "it takes longer than multiplying by it: expected f32 (or --force-compute)",
            name);
    if (verb == GRAFT_VERB_TRAIN && strcmp(recipe_text(recipe, "method"), "full") == 0)
        return error_set(err, GRAFT_E_USAGE,
                         "--compute %s: it is for frozen weights, and with --method full every "
                         "weight trains: expected f32, or another method",
                         name);
    return GRAFT_OK;
}

graft_status open_backend(opened *o, graft_error *err) {
    cpu_features features;
    graft_status status = check_compute(o->recipe, err);
    if (status == GRAFT_OK)
        status = recipe_features(&features, o->recipe, err);
    if (status == GRAFT_OK)
        status = backend_create_cpu(&o->dev, (int32_t)recipe_integer(o->recipe, "threads"),
                                    &features, err);
    if (status == GRAFT_OK)
        status = backend_set_compute(o->dev, recipe_compute(o->recipe), &features,
                                     recipe_flag(o->recipe, "force_compute"), err);
    return status == GRAFT_OK ? profile_begin(o, err) : status;
}

graft_status open_spec(opened *o, graft_error *err) {
    graft_status status = need_option(o->recipe, "model", err);
    if (status == GRAFT_OK)
        status = model_folder_find(&o->folder, recipe_text(o->recipe, "model"), err);
    if (status == GRAFT_OK)
        status = model_spec_read(&o->spec, o->folder, &o->messages, err);
    return status;
}

graft_status open_weights(opened *o, graft_error *err) {
    graft_status status = open_spec(o, err);
    if (status == GRAFT_OK)
        status = open_backend(o, err);
    if (status == GRAFT_OK)
        status = weight_source_open(&o->weights, o->dev, &o->spec, o->folder, &o->messages, err);
    return status;
}

/* ---- Text ---- */

graft_status open_templates(opened *o, graft_error *err) {
    return data_templates_load(&o->templates, o->folder, recipe_text(o->recipe, "chat_template"),
                               err);
}

graft_status open_text(opened *o, graft_error *err) {
    graft_status status = tokenizer_load(&o->tokenizer, o->folder, &o->messages, err);
    return status == GRAFT_OK ? open_templates(o, err) : status;
}

void close_text(opened *o) {
    data_templates_free(&o->templates);
    tokenizer_destroy(&o->tokenizer);
#ifdef __GLIBC__
    malloc_trim(0); /* reading a vocabulary leaves the heap many times its size */
#endif
}

/* ---- Adapters ---- */

graft_status open_new_adapter(opened *o, graft_error *err) {
    adapter_config config = {0};
    graft_status status = adapter_config_from_recipe(&config, o->recipe, &o->messages, err);
    if (status == GRAFT_OK)
        status = adapter_create(&o->adapter, &config, &o->spec, 0, &o->messages, err);
    adapter_config_free(&config);
    if (status == GRAFT_OK && graft_option_find("portable")->verbs & recipe_verb(o->recipe))
        o->adapter->is_portable = recipe_flag(o->recipe, "portable");
    return status;
}

graft_status open_start_text(opened *o, graft_error *err) {
    adapter *a = o->adapter;
    const char *text = a->method->start_text ? a->method->start_text(a) : NULL;
    encoding tokens = {0};
    if (!text)
        return GRAFT_OK;
    graft_status status = tokenizer_encode(o->tokenizer, &tokens, text, strlen(text),
                                           (encode_options){.add_special_tokens = true}, err);
    if (status == GRAFT_OK && tokens.n &&
        !(a->start_ids = mem_array(tokens.n, sizeof *a->start_ids)))
        status = error_memory(err, tokens.n * sizeof *a->start_ids, "the adapter's start");
    for (size_t i = 0; status == GRAFT_OK && i < tokens.n; i++) {
        a->start_ids[i] = tokens.ids[i];
        if (tokens.ids[i] >= o->spec.vocab)
            status = error_set(err, GRAFT_E_INPUT,
                               "the text \"%s\" has token %d, and the model's embedding %d rows",
                               text, (int)tokens.ids[i], (int)o->spec.vocab);
    }
    a->n_start_ids = status == GRAFT_OK ? tokens.n : 0;
    encoding_free(&tokens);
    return status;
}

/* Shapes decide whether an adapter fits; a base of another name deserves a word. Compared by the
 * last part: the same model lies in other places on other machines. */
static void compare_bases(const opened *o, const adapter_config *config, const char *folder) {
    const char *said = config->base_model;
    if (!said || !*said)
        return;
    const char *slash = strrchr(said, '/'), *name = slash && slash[1] ? slash + 1 : said;
    if (!strstr(recipe_text(o->recipe, "model"), name) && !strstr(o->folder, name))
        message_emit(&o->messages, MESSAGE_WARNING, "%s: made for the base \"%s\", used on \"%s\"",
                     folder, said, recipe_text(o->recipe, "model"));
}

static graft_status load_trained_adapter(opened *o, const char *folder, bool gradients,
                                         graft_error *err) {
    adapter_config config = {0};
    graft_status status = adapter_config_read(&config, folder, &o->messages, err);
    if (status == GRAFT_OK)
        compare_bases(o, &config, folder);
    if (status == GRAFT_OK)
        status = adapter_create(&o->adapter, &config, &o->spec, 0, &o->messages, err);
    adapter_config_free(&config);
    if (status != GRAFT_OK)
        return status;
    layout counted = layout_counting();
    adapter_layout(o->adapter, &counted, o->dev->element_bytes, gradients);
    o->adapter_memory = o->dev->ops->alloc(o->dev, counted.high_water);
    if (!o->adapter_memory)
        return error_memory(err, counted.high_water, "the adapter");
    layout assigned = layout_over(o->adapter_memory, counted.high_water);
    adapter_layout(o->adapter, &assigned, o->dev->element_bytes, gradients);
    status = adapter_load(o->adapter, o->dev, o->weights, folder, err);
    if (status == GRAFT_OK)
        adapter_bind(o->adapter, &o->hooks);
    if (status == GRAFT_OK)
        status = adapter_prepare(o->adapter, o->dev, o->weights, err);
    return status;
}

graft_status open_trained_adapter(opened *o, bool gradients, graft_error *err) {
    graft_status status = model_hooks_create(&o->hooks, &o->spec, err);
    const char *folder = recipe_text(o->recipe, "adapter");
    if (status == GRAFT_OK && folder)
        status = load_trained_adapter(o, folder, gradients, err);
    if (status == GRAFT_OK)
        model_hooks_finish(&o->hooks, &o->spec);
    return status;
}

/* ---- Data ---- */

static bool option_is(const graft_recipe *recipe, const char *name, const char *value) {
    const char *text = recipe_text(recipe, name);
    return text && !strcmp(text, value);
}

/* Does this verb have the option? */
static bool has_option(const graft_recipe *recipe, const char *name) {
    return (graft_option_find(name)->verbs & recipe_verb(recipe)) != 0;
}

static train_on train_on_of(const graft_recipe *recipe) {
    if (option_is(recipe, "train_on", "assistant"))
        return TRAIN_ON_ASSISTANT;
    return option_is(recipe, "train_on", "all") ? TRAIN_ON_ALL : TRAIN_ON_COMPLETIONS;
}

static preference_use preferences_of(const graft_recipe *recipe) {
    if (option_is(recipe, "train_on", "chosen"))
        return PREFERENCE_CHOSEN;
    return recipe_verb(recipe) == GRAFT_VERB_DATA ? PREFERENCE_BOTH : PREFERENCE_REFUSED;
}

static dedup_kind dedup_of(const graft_recipe *recipe) {
    if (!has_option(recipe, "dedup"))
        return DEDUP_NONE;
    return option_is(recipe, "dedup", "exact")  ? DEDUP_EXACT
           : option_is(recipe, "dedup", "near") ? DEDUP_NEAR
                                                : DEDUP_NONE;
}

graft_status data_options(dataset_options *out, opened *o, bool for_evaluation, graft_error *err) {
    bool has_stride = has_option(o->recipe, "stride") && recipe_has(o->recipe, "stride");
    *out = (dataset_options){
        .tokenizer = o->tokenizer,
        .chat = o->templates.chat,
        .chat_tools = o->templates.tools,
        .train_on = train_on_of(o->recipe),
        .preferences = preferences_of(o->recipe),
        .text_ends = recipe_verb(o->recipe) != GRAFT_VERB_EVAL,
        .max_length = (int32_t)recipe_integer(o->recipe, "max_length"),
        .text_windows = has_stride,
        .stride = has_stride ? (int32_t)recipe_integer(o->recipe, "stride") : 0,
        .dedup = for_evaluation ? DEDUP_NONE : dedup_of(o->recipe),
        .embedding_rows = o->spec.vocab,
        .for_evaluation = for_evaluation,
        .stop = o->observer ? o->observer->stop : NULL,
        .messages = o->messages,
    };
    return recipe_time(&out->now, o->recipe, err);
}

/* The items of a list option; the caller frees the array, not the texts. */
static graft_status list_items(const char ***out, size_t *n, const graft_recipe *recipe,
                               const char *option, graft_error *err) {
    *n = recipe_list_count(recipe, option);
    *out = mem_array(*n, sizeof **out);
    if (!*out)
        return error_memory(err, *n * sizeof **out, "a list");
    for (size_t i = 0; i < *n; i++)
        (*out)[i] = recipe_list_item(recipe, option, i);
    return GRAFT_OK;
}

graft_status data_files_of(data_files *out, const graft_recipe *recipe, const char *option,
                           graft_error *err) {
    graft_status status = need_option(recipe, option, err);
    for (size_t i = 0; status == GRAFT_OK && i < recipe_list_count(recipe, option); i++)
        status = data_files_add(out, recipe_list_item(recipe, option, i), err);
    return status;
}

/* What a list option names, and how it is to be read. */
typedef struct named_data {
    dataset_options options; /* points into the others */
    data_files files;
    const char **columns;
} named_data;

static void named_data_free(named_data *named) {
    data_files_free(&named->files);
    free(named->columns);
}

static graft_status name_data(named_data *out, opened *o, const char *option, bool for_evaluation,
                              graft_error *err) {
    dataset_options *options = &out->options;
    graft_status status = data_options(options, o, for_evaluation, err);
    if (status == GRAFT_OK)
        status = data_files_of(&out->files, o->recipe, option, err);
    if (status == GRAFT_OK)
        status = list_items(&out->columns, &options->n_columns, o->recipe, "columns", err);
    if (status != GRAFT_OK)
        return status;
    options->paths = (const char *const *)out->files.paths;
    options->n_paths = out->files.n;
    options->shares = for_evaluation ? NULL : out->files.shares;
    options->columns = out->columns;
    if (has_option(o->recipe, "max_rows"))
        options->rows_max = recipe_integer(o->recipe, "max_rows");
    return GRAFT_OK;
}

graft_status open_data(dataset **out, opened *o, const char *option, bool for_evaluation,
                       graft_error *err) {
    named_data named = {0};
    *out = NULL;
    graft_status status = name_data(&named, o, option, for_evaluation, err);
    if (status == GRAFT_OK)
        status = dataset_open(out, &named.options, err);
    named_data_free(&named);
    return status;
}

graft_status open_stream(data_stream **out, opened *o, const char *option, graft_error *err) {
    named_data named = {0};
    *out = NULL;
    graft_status status = name_data(&named, o, option, false, err);
    if (status == GRAFT_OK)
        status = data_stream_open(
            out, &named.options,
            recipe_flag(o->recipe, "shuffle") ? recipe_integer(o->recipe, "shuffle_buffer") : 1,
            (uint64_t)recipe_integer(o->recipe, "seed"), err);
    named_data_free(&named);
    return status;
}

graft_status open_held_out(dataset **out, dataset *data, opened *o, graft_error *err) {
    *out = NULL;
    double share = recipe_number(o->recipe, "eval_split");
    bool has_files = recipe_list_count(o->recipe, "eval_data") > 0;
    if (has_files && share > 0)
        return error_set(err, GRAFT_E_USAGE,
                         "--eval-split and --eval-data both name evaluation rows; give one");
    if (!data && share > 0)
        return error_set(err, GRAFT_E_USAGE,
                         "--eval-split needs all rows at once and cannot be had with --streaming; "
                         "give --eval-data");
    if (has_files)
        return open_data(out, o, "eval_data", true, err);
    if (share <= 0)
        return GRAFT_OK;
    graft_status status =
        dataset_split(out, data, share, (uint64_t)recipe_integer(o->recipe, "seed"), err);
    if (status == GRAFT_OK)
        message_emit(&o->messages, MESSAGE_INFO,
                     "%lld rows are held out for evaluation, %lld are trained (eval_split)",
                     (long long)dataset_rows(*out), (long long)dataset_rows(data));
    return status;
}
