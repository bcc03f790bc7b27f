/* Memory of one parse or one rendering: taken piece by piece, given back all at once, bounded. */
#ifndef GRAFT_TEXT_TEMPLATE_ARENA_H
#define GRAFT_TEXT_TEMPLATE_ARENA_H

#include "base/status.h"

typedef struct arena_block arena_block;

typedef struct arena {
    arena_block *blocks;    /* newest first */
    size_t reserved, limit; /* bytes */
    bool is_exhausted;      /* the limit, not the system, refused */
} arena;

/* Zeroed bytes, aligned for anything; NULL when the limit or the system's memory is reached. */
void *arena_take(arena *, size_t bytes);
/* Makes the piece larger, in place where it is the newest one; the old address is dead. piece may
 * be NULL. */
void *arena_grow(arena *, void *piece, size_t old_bytes, size_t new_bytes);
void arena_free(arena *);

#endif
