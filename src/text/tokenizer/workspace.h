/* What one call of encode works in. Workspaces are kept by the tokenizer and lent to callers, one a
 * thread at a time, so that encoding allocates nothing once they have grown, and what a thread
 * learned about words is not lost. */
#ifndef GRAFT_TEXT_TOKENIZER_WORKSPACE_H
#define GRAFT_TEXT_TOKENIZER_WORKSPACE_H

#include "text/tokenizer/aligned_text.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/word_cache.h"

typedef struct OnigMatchParamStruct OnigMatchParam;
struct re_registers;

/* A stretch of the current text: to be tokenized (id < 0), or an added token. */
typedef struct text_piece {
    uint32_t begin, end; /* bytes of the current text */
    int32_t id;
} text_piece;

typedef struct piece_list {
    text_piece *items;
    size_t n, capacity;
    bool failed;
} piece_list;

/* What a pattern makes of a text: the matches and what is between them, covering all of it. */
typedef struct span {
    uint32_t begin, end;
    bool match;
} span;

typedef struct span_list {
    span *items;
    size_t n, capacity;
    bool failed;
} span_list;

/* Leading and trailing white space of a token's text, in characters: post-processors trim offsets
 * by it. */
typedef struct token_spaces {
    uint32_t leading, trailing;
} token_spaces;

/* BPE: a token so far. The list is doubly linked while merging; length 0 marks what was merged
 * away. */
typedef struct bpe_symbol {
    int32_t id;
    uint32_t length; /* bytes */
    int32_t previous, next;
} bpe_symbol;

typedef struct bpe_candidate {
    uint32_t rank;
    uint32_t position;
    int32_t id; /* of the merged token */
} bpe_candidate;

/* Unigram: the best way to reach a byte. */
typedef struct path_node {
    double score;
    int32_t id;
    uint32_t begin; /* UINT32_MAX: not reached */
} path_node;

typedef struct workspace {
    text_view text; /* the current one */
    aligned_text buffers[2], steps[2];
    change_list changes;
    piece_list pieces, next_pieces;
    span_list spans;
    bpe_symbol *symbols;
    size_t symbols_capacity;
    bpe_candidate *heap;
    size_t heap_capacity;
    path_node *path;
    size_t path_capacity;
    char_change *marks; /* scratch of normal forms */
    size_t marks_capacity;
    strbuf scratch;
    token_spaces *spaces; /* [tokens], only when the post-processor asks */
    size_t spaces_capacity;
    struct re_registers *region;
    OnigMatchParam *match_limits;
    word_cache caches[2];   /* of usual text, and of plain text (see encode_options) */
    struct workspace *next; /* in the tokenizer's pool */
} workspace;

graft_status workspace_create(workspace **, graft_error *);
void workspace_destroy(workspace **);

void piece_list_grow(piece_list *);

static inline void piece_add(piece_list *list, uint32_t begin, uint32_t end, int32_t id) {
    if (begin == end)
        return;
    if (list->n == list->capacity)
        piece_list_grow(list);
    if (!list->failed)
        list->items[list->n++] = (text_piece){begin, end, id};
}

void span_add(span_list *, uint32_t begin, uint32_t end, bool match);

#endif
