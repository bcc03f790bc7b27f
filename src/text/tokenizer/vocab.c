#include "text/tokenizer/vocab.h"

#include "base/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t hash, uint64_t bits) {
    hash = (hash ^ bits) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}

static uint64_t load8(const unsigned char *p) {
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint64_t load_up_to_8(const unsigned char *p, size_t n) {
    uint64_t value = 0;
    memcpy(&value, p, n);
    return value;
}

uint64_t bytes_hash(const void *bytes, size_t n) {
    const unsigned char *p = bytes;
    uint64_t hash = n * 0xD6E8FEB86659FD93u;
    for (; n > 8; p += 8, n -= 8)
        hash = mix(hash, load8(p));
    return mix(hash, n ? load_up_to_8(p, n) : 0);
}

void vocab_free(vocab *v) {
    free(v->bytes);
    free(v->tokens);
    free(v->slots);
    *v = (vocab){0};
}

static bool slots_grow(vocab *v) {
    size_t n_slots = v->n_slots ? v->n_slots * 2 : 64;
    vocab_slot *slots = mem_array(n_slots, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < n_slots; i++)
        slots[i].id = -1;
    for (size_t i = 0; i < v->n_slots; i++) {
        if (v->slots[i].id < 0)
            continue;
        size_t at = v->slots[i].hash & (n_slots - 1);
        while (slots[at].id >= 0)
            at = (at + 1) & (n_slots - 1);
        slots[at] = v->slots[i];
    }
    free(v->slots);
    v->slots = slots;
    v->n_slots = n_slots;
    return true;
}

/* The slot that holds text, or the free one where it would go. */
static size_t slot_find(const vocab *v, uint32_t hash, const char *text, size_t n) {
    size_t at = hash & (v->n_slots - 1);
    for (; v->slots[at].id >= 0; at = (at + 1) & (v->n_slots - 1)) {
        if (v->slots[at].hash != hash)
            continue;
        const vocab_token *token = &v->tokens[v->slots[at].id];
        if (token->length == n && memcmp(v->bytes + token->offset, text, n) == 0)
            break;
    }
    return at;
}

static bool reserve(vocab *v, size_t n, int32_t id) {
    size_t bytes_needed;
    if (!size_add(&bytes_needed, v->n_bytes, n) || bytes_needed >= UINT32_MAX)
        return false;
    if ((v->n_tokens + 1) * 4 > v->n_slots * 3 && !slots_grow(v))
        return false;
    return mem_reserve(&v->bytes, &v->bytes_capacity, bytes_needed + 1, 1) &&
           mem_reserve(&v->tokens, &v->tokens_capacity, (size_t)id + 1, sizeof *v->tokens);
}

vocab_result vocab_add(vocab *v, const char *text, size_t n, int32_t id) {
    assert(id >= 0 && id < VOCAB_IDS_MAX);
    if (!reserve(v, n, id))
        return VOCAB_NO_MEMORY;
    if ((size_t)id < v->n_ids && v->tokens[id].present)
        return VOCAB_ID_TAKEN;
    uint32_t hash = (uint32_t)bytes_hash(text, n);
    size_t at = slot_find(v, hash, text, n);
    if (v->slots[at].id >= 0)
        return VOCAB_TEXT_TAKEN;
    for (; v->n_ids <= (size_t)id; v->n_ids++)
        v->tokens[v->n_ids] = (vocab_token){0};
    v->tokens[id] = (vocab_token){(uint32_t)v->n_bytes, (uint32_t)n, true};
    v->slots[at] = (vocab_slot){hash, id};
    if (n)
        memcpy(v->bytes + v->n_bytes, text, n);
    v->bytes[v->n_bytes + n] = '\0';
    v->n_bytes += n + 1;
    v->n_tokens++;
    return VOCAB_ADDED;
}

int32_t vocab_find(const vocab *v, const char *text, size_t n) {
    if (!v->n_slots)
        return -1;
    return v->slots[slot_find(v, (uint32_t)bytes_hash(text, n), text, n)].id;
}

const char *vocab_text(const vocab *v, int32_t id, size_t *n) {
    if (id < 0 || (size_t)id >= v->n_ids || !v->tokens[id].present)
        return NULL;
    *n = v->tokens[id].length;
    return v->bytes + v->tokens[id].offset;
}
