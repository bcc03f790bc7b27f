#include "text/template/arena.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 32 << 10, ALIGNMENT = 16 };

struct arena_block {
    arena_block *older;
    size_t used, capacity;
    _Alignas(ALIGNMENT) unsigned char bytes[];
};

static bool round_up(size_t *out, size_t bytes) {
    return size_add(out, bytes, ALIGNMENT - 1) && ((*out &= ~(size_t)(ALIGNMENT - 1)), true);
}

static bool fits(arena *a, size_t extra) {
    if (extra <= a->limit - a->reserved)
        return true;
    a->is_exhausted = true;
    return false;
}

static arena_block *block_create(arena *a, size_t capacity) {
    if (!fits(a, capacity))
        return NULL;
    arena_block *block = calloc(1, sizeof(arena_block) + capacity);
    if (!block)
        return NULL;
    block->capacity = capacity;
    a->reserved += capacity;
    return block;
}

void *arena_take(arena *a, size_t bytes) {
    size_t needed;
    if (!round_up(&needed, bytes ? bytes : 1))
        return NULL;
    arena_block *block = a->blocks;
    if (!block || block->capacity - block->used < needed) {
        block = block_create(a, needed > BLOCK_BYTES ? needed : BLOCK_BYTES);
        if (!block)
            return NULL;
        /* A large piece has a block of its own; the newest block goes on serving small ones. */
        if (needed > BLOCK_BYTES / 4 && a->blocks) {
            block->older = a->blocks->older;
            a->blocks->older = block;
        } else {
            block->older = a->blocks;
            a->blocks = block;
        }
    }
    void *piece = block->bytes + block->used;
    block->used += needed;
    return piece;
}

/* The block that holds this piece and nothing after it, among the two places where one can be. */
static arena_block **newest_holder(arena *a, const unsigned char *piece, size_t rounded) {
    for (arena_block **at = &a->blocks; *at; at = &(*at)->older) {
        const arena_block *block = *at;
        if (block->used >= rounded && block->bytes + block->used - rounded == piece)
            return at;
        if (at != &a->blocks)
            break;
    }
    return NULL;
}

void *arena_grow(arena *a, void *piece, size_t old_bytes, size_t new_bytes) {
    size_t old_rounded, new_rounded;
    if (!round_up(&old_rounded, old_bytes ? old_bytes : 1) || !round_up(&new_rounded, new_bytes))
        return NULL;
    arena_block **at = piece ? newest_holder(a, piece, old_rounded) : NULL;
    if (at && (*at)->used - old_rounded + new_rounded <= (*at)->capacity) {
        (*at)->used += new_rounded - old_rounded;
        return piece;
    }
    if (at && (*at)->used == old_rounded && old_rounded > BLOCK_BYTES) { /* alone in its block */
        arena_block *block = *at;
        size_t extra = new_rounded - block->capacity;
        if (!fits(a, extra))
            return NULL;
        arena_block *moved = realloc(block, sizeof *block + new_rounded);
        if (!moved)
            return NULL;
        memset(moved->bytes + moved->capacity, 0, extra);
        a->reserved += extra;
        moved->capacity = moved->used = new_rounded;
        *at = moved;
        return moved->bytes;
    }
    void *moved = arena_take(a, new_bytes);
    if (moved && old_bytes && piece)
        memcpy(moved, piece, old_bytes);
    return moved;
}

void arena_free(arena *a) {
    while (a->blocks) {
        arena_block *older = a->blocks->older;
        free(a->blocks);
        a->blocks = older;
    }
    *a = (arena){.limit = a->limit};
}
