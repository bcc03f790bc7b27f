/* The keys of adapter_config.json as PEFT 0.21 writes them, as data: each method has its table. */
#ifndef GRAFT_ADAPTER_CONFIG_KEYS_H
#define GRAFT_ADAPTER_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>

/* The version whose file format is written. */
#define PEFT_FORMAT_VERSION "0.21.2"

typedef enum config_key_kind {
    KEY_OURS,   /* has a field of adapter_config of this name ("alpha" is lora_alpha) */
    KEY_STATED, /* tells people or loaders something, and changes no number */
    KEY_LACKED, /* asks for something Graft lacks, unless it has its default */
    /* The rest stand in adapter_config.fields, checked: */
    KEY_INTEGER, /* within [min, max]; null only where that is the default */
    KEY_NUMBER,
    KEY_FLAG,
    KEY_CHOICE, /* one of `choices` */
    KEY_ANY     /* text, a list or an object: the method reads it itself */
} config_key_kind;

typedef struct config_key {
    const char *name;
    config_key_kind kind;
    const char *fallback; /* PEFT's default, as JSON; what is written of stated and lacked keys */
    const char *lacks;    /* what a KEY_LACKED key asks for */
    double min, max;      /* of numbers; equal: no bounds */
    const char *choices;  /* "a|b|c" */
    bool is_old;          /* only older versions wrote it */
} config_key;

/* Keys that many methods have in the same words. */
#define TARGET_KEYS                                                                                \
    {.name = "target_modules", .kind = KEY_OURS}, {                                                \
        .name = "modules_to_save", .kind = KEY_OURS                                                \
    }
#define EXCLUDE_KEY                                                                                \
    { .name = "exclude_modules", .kind = KEY_OURS }
#define LAYER_KEYS                                                                                 \
    {.name = "layers_to_transform", .kind = KEY_OURS}, {                                           \
        .name = "layers_pattern", .kind = KEY_OURS                                                 \
    }
#define FAN_IN_FAN_OUT_KEY                                                                         \
    { .name = "fan_in_fan_out", .kind = KEY_FLAG, .fallback = "false" /* the model decides */ }

struct adapter_method;
/* A key of the method or of every method; NULL: PEFT 0.21 does not have it. */
const config_key *config_key_find(const struct adapter_method *, const char *name);
const config_key *config_key_at(const struct adapter_method *, size_t i); /* NULL past the end */

#endif
