/* Tokenizer models: what turns a piece of text into tokens. */
#ifndef GRAFT_TEXT_TOKENIZER_MODEL_H
#define GRAFT_TEXT_TOKENIZER_MODEL_H

#include "text/tokenizer/token_writer.h"
#include "text/tokenizer/vocab.h"

typedef enum model_kind { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE, MODEL_WORDLEVEL } model_kind;

enum { AFFIX_BYTES_MAX = 256 }; /* of a subword prefix or an end-of-word suffix */

/* Two tokens that merge into a third. */
typedef struct bpe_pair {
    uint64_t key;  /* left id << 32 | right id; UINT64_MAX: free */
    uint32_t rank; /* lower merges first */
    int32_t id;
} bpe_pair;

typedef struct bpe_model {
    bpe_pair *pairs; /* [n_slots], a power of two, by hash */
    size_t n_slots, n_pairs;
    bool fuse_unk, byte_fallback, ignore_merges;
    bool reads_bytes;         /* pieces are raw bytes; the vocabulary is over the byte alphabet */
    bool has_all_bytes;       /* reads_bytes: each has a token */
    size_t token_bytes_max;   /* of the longest token's text */
    char *prefix, *suffix;    /* continuing_subword_prefix, end_of_word_suffix; NULL: none */
    int32_t *character_ids;   /* [65536] id + 1 of one-character tokens; 0: none */
    int32_t byte_ids[256];    /* reads_bytes: of each byte; byte_fallback: of <0xNN>; -1: none */
    bool merges_into_special; /* some merge gives a control token */
    bool cuts_before_space;   /* no merge crosses from a byte outside `inside` to U+2581 */
    bool inside[256];         /* bytes that some merged token has right before a U+2581 */
} bpe_model;

typedef struct trie_edge {
    uint64_t key; /* node << 8 | byte; UINT64_MAX: free */
    uint32_t node;
} trie_edge;

/* Bytes to nodes; node 0 is the root. */
typedef struct byte_trie {
    trie_edge *edges; /* [n_slots], a power of two, by hash */
    size_t n_slots, n_nodes;
    int32_t *ids; /* [n_nodes] of the token that ends there; -1: none */
    size_t ids_capacity;
} byte_trie;

typedef struct unigram_model {
    double *scores; /* [n_ids]; not finite: never found in text */
    double unk_score;
    bool single_precision; /* sums are rounded as SentencePiece does; it decides ties */
    bool byte_fallback;
    int32_t byte_ids[256];
    byte_trie trie;
} unigram_model;

typedef struct wordpiece_model {
    char *prefix;          /* of tokens that continue a word */
    size_t characters_max; /* a longer word is unknown */
    byte_trie trie;
    uint32_t inner_node; /* where the prefix leads */
} wordpiece_model;

enum { UNK_NONE = -1, UNK_MISSING = -2 }; /* not named; named, but not in the vocabulary */

typedef struct model {
    model_kind kind;
    vocab tokens;
    bool *is_special; /* [tokens.n_ids] control tokens: text must not become one when it is to be
                         plain */
    int32_t unk_id;
    char *unk_token; /* NULL: none is named */
    bpe_model bpe;
    unigram_model unigram;
    wordpiece_model wordpiece;
} model;

void model_free(model *);
/* Whether the token may come from the text: not a control token while the text is plain. */
static inline bool model_allows(const model *m, const token_writer *writer, int32_t id) {
    return !writer->is_plain || !m->is_special[id];
}

/* Tokenizes writer->piece. */
graft_status model_tokenize(const model *, token_writer *, graft_error *);

/* Sets unk_token (may be NULL) and unk_id from the vocabulary; the vocabulary is complete. */
graft_status model_set_unk(model *, const char *token, graft_error *);
/* The error of a text that needs the unknown token when there is none. */
graft_status model_unk_needed(const model *, graft_error *);

/* Merging left and right gives the token `merged`; a later call for the same pair wins. */
graft_status bpe_add_pair(bpe_model *, int32_t left, int32_t right, uint32_t rank, int32_t merged,
                          graft_error *);
/* After vocabulary, pairs and settings are there. reads_bytes is decided here. */
graft_status bpe_prepare(model *, bool wants_bytes, graft_error *);
graft_status bpe_tokenize(const model *, token_writer *, graft_error *);
void bpe_free(bpe_model *);

/* After the vocabulary and the scores are there. */
graft_status unigram_prepare(model *, graft_error *);
graft_status unigram_tokenize(const model *, token_writer *, graft_error *);
void unigram_free(unigram_model *);

/* After the vocabulary is there. */
graft_status wordpiece_prepare(model *, graft_error *);
void wordpiece_free(wordpiece_model *);
graft_status wordpiece_tokenize(const model *, token_writer *, graft_error *);
graft_status wordlevel_tokenize(const model *, token_writer *, graft_error *);

/* The ids of "<0x00>" to "<0xFF>"; -1 where there is none. */
void byte_tokens_find(int32_t ids[256], const vocab *);

bool trie_create(byte_trie *);
bool trie_add(byte_trie *, const char *text, size_t n, int32_t id);
void trie_free(byte_trie *);
/* UINT32_MAX when no such edge leaves the node. */
uint32_t trie_next(const byte_trie *, uint32_t node, unsigned char byte);

#endif
