/* A tokenizer is its parts; loaders fill them, each from its own file format. */
#ifndef GRAFT_TEXT_TOKENIZER_PARTS_H
#define GRAFT_TEXT_TOKENIZER_PARTS_H

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/component.h"
#include "text/tokenizer/decoder.h"
#include "text/tokenizer/postprocessor.h"

#include <pthread.h>

enum { TOKENIZER_FILE_BYTES_MAX = 1 << 30 };

/* "bos_token" -> "<s>" */
typedef struct named_token {
    char *name, *text;
} named_token;

struct tokenizer {
    normalizer_list normalizers;
    pretokenizer_list pretokenizers;
    model model;
    added_tokens added;
    vocab added_names; /* added tokens that the model's vocabulary does not have */
    int32_t next_added_id;
    postprocessor postprocessor;
    decoder_list decoders;
    named_token *named;
    size_t n_named, named_capacity;
    int32_t bos, eos, pad; /* -1: none */
    int32_t n_ids;         /* highest id + 1 */
    pthread_mutex_t lock;  /* guards the pool alone */
    workspace *pool;
};

/* What stands beside a tokenizer's files; members are NULL where there is no such file. */
typedef struct tokenizer_config {
    json_t *config;         /* tokenizer_config.json */
    json_t *special_tokens; /* special_tokens_map.json */
    json_t *added_tokens;   /* added_tokens.json */
} tokenizer_config;

graft_status tokenizer_config_read(tokenizer_config *, const char *folder, graft_error *);
void tokenizer_config_free(tokenizer_config *);
/* Collects the tokens that are named there ("..._token"). */
graft_status tokenizer_take_names(tokenizer *, const tokenizer_config *, graft_error *);
/* Names a token unless the name is taken. */
graft_status tokenizer_name_token(tokenizer *, const char *name, const char *text, graft_error *);
/* Finds BOS, EOS and PAD by their names; the vocabulary is complete. */
void tokenizer_find_named(tokenizer *, const message_sink *);

/* Tells by path what to load, and from which file (caller frees *file, also on failure). */
graft_status load_any(tokenizer *, char **file, const char *path, const tokenizer_config *,
                      const message_sink *, graft_error *);
/* Loaders. `path` is the file; vocabulary and pipeline are filled, the parts not yet prepared. */
graft_status load_tokenizer_json(tokenizer *, const char *path, const message_sink *,
                                 graft_error *);
graft_status load_vocab_merges(tokenizer *, const char *vocab_path, const char *merges_path,
                               const tokenizer_config *, const message_sink *, graft_error *);
graft_status load_sentencepiece(tokenizer *, const char *path, const tokenizer_config *,
                                const message_sink *, graft_error *);
graft_status load_tiktoken(tokenizer *, const char *path, const tokenizer_config *,
                           const message_sink *, graft_error *);

/* ---- What loaders share ---- */

/* {"token": id, ...} into the model's vocabulary. */
graft_status load_vocab_object(vocab *, const json_t *json, const char *place, graft_error *);
/* Fails for an id that leaves too many gaps; count is how many tokens there are. */
graft_status check_id_gaps(int64_t highest_id, size_t count, const char *place, graft_error *);
/* One merge: a pair of texts, the n-th of the file (counted from 0). */
graft_status load_merge(model *, const char *left, size_t n_left, const char *right, size_t n_right,
                        size_t n, const char *place, graft_error *);
/* Adds a token the way Hugging Face does: its id is the one the vocabulary has for it, else the
 * next free one. wanted_id is what the file says (-1: nothing); a difference is told through the
 * sink. When exact, a new token gets wanted_id itself. An empty token is passed over. */
graft_status load_added_token(tokenizer *, const added_token *, int64_t wanted_id, bool exact,
                              const char *place, const message_sink *, graft_error *);
/* Added tokens that only the config files name, in the order of their ids: added_tokens_decoder,
 * added_tokens.json, then special tokens. */
graft_status load_config_tokens(tokenizer *, const tokenizer_config *, bool exact,
                                const message_sink *, graft_error *);
/* The members of an added token's object, all but its id. */
graft_status read_added_token(added_token *, const json_t *, const char *content, const char *place,
                              graft_error *);
/* Steps of pipelines that no file writes down: Split by a pattern, isolated; ByteLevel and its
 * decoder; a decoder. */
graft_status add_split(tokenizer *, const char *pattern, const char *place, graft_error *);
graft_status add_byte_level(tokenizer *, bool add_prefix_space, bool use_regex, graft_error *);
graft_status add_decoder(tokenizer *, decoder_kind, graft_error *);

#endif
