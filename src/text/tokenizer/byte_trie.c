#include "base/memory.h"
#include "text/tokenizer/model.h"

#include <stdlib.h>

static size_t edge_slot(const byte_trie *trie, uint64_t key) {
    uint64_t hash = key * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(hash ^ hash >> 32) & (trie->n_slots - 1);
    while (trie->edges[at].key != key && trie->edges[at].key != UINT64_MAX)
        at = (at + 1) & (trie->n_slots - 1);
    return at;
}

static bool edges_grow(byte_trie *trie) {
    trie_edge *old = trie->edges;
    size_t n_old = trie->n_slots, n_slots = n_old ? n_old * 2 : 256;
    trie_edge *edges = mem_array(n_slots, sizeof *edges);
    if (!edges)
        return false;
    for (size_t i = 0; i < n_slots; i++)
        edges[i].key = UINT64_MAX;
    trie->edges = edges;
    trie->n_slots = n_slots;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].key != UINT64_MAX)
            trie->edges[edge_slot(trie, old[i].key)] = old[i];
    free(old);
    return true;
}

static bool node_add(byte_trie *trie) {
    if (trie->n_nodes >= UINT32_MAX - 1 ||
        !mem_reserve(&trie->ids, &trie->ids_capacity, trie->n_nodes + 1, sizeof *trie->ids))
        return false;
    trie->ids[trie->n_nodes++] = -1;
    return true;
}

bool trie_create(byte_trie *trie) {
    *trie = (byte_trie){0};
    return edges_grow(trie) && node_add(trie);
}

void trie_free(byte_trie *trie) {
    free(trie->edges);
    free(trie->ids);
    *trie = (byte_trie){0};
}

uint32_t trie_next(const byte_trie *trie, uint32_t node, unsigned char byte) {
    uint64_t key = (uint64_t)node << 8 | byte;
    const trie_edge *edge = &trie->edges[edge_slot(trie, key)];
    return edge->key == key ? edge->node : UINT32_MAX;
}

bool trie_add(byte_trie *trie, const char *text, size_t n, int32_t id) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t next = trie_next(trie, node, (unsigned char)text[i]);
        if (next == UINT32_MAX) {
            if ((trie->n_nodes + 1) * 8 > trie->n_slots * 5 && !edges_grow(trie))
                return false;
            next = (uint32_t)trie->n_nodes;
            if (!node_add(trie))
                return false;
            uint64_t key = (uint64_t)node << 8 | (unsigned char)text[i];
            trie->edges[edge_slot(trie, key)] = (trie_edge){key, next};
        }
        node = next;
    }
    trie->ids[node] = id;
    return true;
}
