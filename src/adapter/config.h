/* What an adapter is: PEFT's adapter_config.json, or options that say the same. */
#ifndef GRAFT_ADAPTER_CONFIG_H
#define GRAFT_ADAPTER_CONFIG_H

#include "base/message.h"
#include "formats/json.h"

typedef struct text_list {
    char **items;
    size_t n;
} text_list;

graft_status text_list_add(text_list *, const char *item, graft_error *);
graft_status text_list_copy(text_list *, const text_list *, graft_error *);
void text_list_free(text_list *);

typedef struct pattern_value {
    char *pattern; /* matched as PEFT does: (.*\.)?(pattern)$ from the start of the module name */
    double value;
} pattern_value;

typedef enum lora_init {
    LORA_INIT_DEFAULT,
    LORA_INIT_GAUSSIAN,
    LORA_INIT_RANDOM, /* false: nothing is zero */
    LORA_INIT_START   /* from the base's weights: init_name, see lora_start.h */
} lora_init;
typedef enum bias_kind {
    BIAS_NONE,
    BIAS_ALL,
    BIAS_LORA_ONLY /* of the method's targets; each method has its own word for it: "boft_only" */
} bias_kind;

typedef struct adapter_config {
    char method[32]; /* "lora", "full", "ia3", ... */
    int32_t r;
    double lora_alpha, lora_dropout;
    bool use_rslora, lora_bias, ensure_weight_tying;
    lora_init init;
    char init_name[32];
    bias_kind bias;
    text_list target_modules; /* names; empty with target_regex, or for the model's defaults */
    char *target_regex;       /* a string in the file: full match; "all-linear" is the shorthand */
    text_list exclude_modules;
    char *exclude_regex;
    int32_t *layers_to_transform; /* empty: all */
    size_t n_layers_to_transform;
    text_list layers_pattern;
    pattern_value *rank_pattern, *alpha_pattern;
    size_t n_rank_pattern, n_alpha_pattern;
    text_list modules_to_save;
    json_t *fields;   /* the method's other keys, all of them; see config_integer and the like */
    char *base_model; /* base_model_name_or_path, for messages; may be NULL */
    char *revision;   /* of the base, kept as it was read; may be NULL */
} adapter_config;

enum {
    LORA_RANK_MAX = 65536,
    ADAPTER_NAMES_MAX = 16384, /* entries of one list of targets, patterns or layers */
    ADAPTER_PATTERN_MAX = 4096 /* bytes of one name or regular expression */
};

/* The method's keys that have no field above (KEY_INTEGER .. KEY_ANY of its table): checked, and
 * present even where the file does not have them. */
int64_t config_integer(const adapter_config *, const char *key); /* null: 0 */
double config_number(const adapter_config *, const char *key);   /* null: NaN */
bool config_flag(const adapter_config *, const char *key);
const char *config_text(const adapter_config *, const char *key); /* NULL: null */
const json_t *config_value(const adapter_config *, const char *key);

/* PEFT's defaults. */
graft_status adapter_config_default(adapter_config *, const char *method, graft_error *);
graft_status adapter_config_copy(adapter_config *, const adapter_config *, graft_error *);
void adapter_config_free(adapter_config *);
/* Ranges and contradictions that do not need the model; `origin` begins the message. */
graft_status adapter_config_check(const adapter_config *, const char *origin, graft_error *);

/* adapter_config.json, or the one in a PEFT directory. Unknown keys that are null, false or empty
 * pass (and those at PEFT's default); a key that asks for something Graft lacks is refused by name.
 */
graft_status adapter_config_read(adapter_config *, const char *path, const message_sink *,
                                 graft_error *);
/* The same from parsed text; `origin` names it in messages. */
graft_status adapter_config_parse(adapter_config *, const json_t *, const char *origin,
                                  const message_sink *, graft_error *);
/* As PEFT 0.21 writes it: all keys of the method, sorted, indent 2, no newline at the end. */
graft_status adapter_config_write(strbuf *, const adapter_config *, const char *base_name,
                                  graft_error *);

#endif
