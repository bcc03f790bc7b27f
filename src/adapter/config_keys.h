/* The keys of adapter_config.json as PEFT 0.21 writes them for LoRA, and a few that older versions
 * wrote. */
#ifndef GRAFT_ADAPTER_CONFIG_KEYS_H
#define GRAFT_ADAPTER_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>

/* The version whose file format is written. */
#define PEFT_FORMAT_VERSION "0.21.2"

typedef enum config_key_kind {
    KEY_OURS,   /* has a field of adapter_config */
    KEY_STATED, /* tells people or loaders something, and changes no number */
    KEY_LACKED  /* asks for something Graft lacks, unless it has its default */
} config_key_kind;

typedef struct config_key {
    const char *name;
    config_key_kind kind;
    const char
        *fallback;     /* PEFT's default, as JSON; what is written when the kind is not KEY_OURS */
    const char *lacks; /* what a KEY_LACKED key asks for */
    bool is_written;   /* false: only older versions wrote it */
} config_key;

const config_key *config_key_find(const char *name); /* NULL: PEFT 0.21's LoRA does not have it */
const config_key *config_key_at(size_t i);           /* NULL past the end */

#endif
