/* Reading the parts of tokenizer.json: an object with a "type", or a Sequence of them. */
#ifndef GRAFT_TEXT_TOKENIZER_COMPONENT_H
#define GRAFT_TEXT_TOKENIZER_COMPONENT_H

#include "formats/json.h"

enum {
    COMPONENT_DEPTH_MAX = 32, /* Sequences within Sequences */
    COMPONENTS_MAX = 256,     /* in one pipeline, Sequences flattened */
    PLACE_BYTES = 512
};

/* Reads one component (never a Sequence, never null) into `pipeline`. `place` names it in messages:
 * "tokenizer.json: normalizer.normalizers[1]". */
typedef graft_status component_reader(void *pipeline, const char *type, const json_t *json,
                                      const char *place, graft_error *);

/* Walks json: nothing for NULL or null, the items of `list_key` for a Sequence. */
graft_status components_read(void *pipeline, component_reader *, const char *list_key,
                             const json_t *json, const char *place, graft_error *);

/* The refusal of a type that is not known, with those that are. */
graft_status component_unknown(const char *type, const char *known, const char *place,
                               graft_error *);

/* Members. A string is copied (caller frees). A character is a string of exactly one. */
graft_status component_text(char **out, size_t *n, const json_t *, const char *key,
                            const char *place, graft_error *);
graft_status component_character(uint32_t *out, const json_t *, const char *key, const char *place,
                                 graft_error *);
graft_status component_size(size_t *out, const json_t *, const char *key, int64_t low,
                            int64_t fallback, const char *place, graft_error *);

/* Decodes base64 (caller frees). `place` names it in messages. */
graft_status base64_decode(unsigned char **out, size_t *n, const char *text, size_t text_bytes,
                           const char *place, graft_error *);

#endif
