/* Dictionaries in order of insertion, with an index once there are more than a few keys. */
#include "text/template/value.h"

#include <math.h>
#include <string.h>

enum { FEW = 8 };

static uint64_t hash_bytes(const char *bytes, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return h ^ h >> 29;
}

static uint64_t hash_integer(uint64_t i) {
    i *= 0x9e3779b97f4a7c15u;
    return i ^ i >> 32;
}

/* 1, 1.0 and true are one key. */
static uint64_t hash_number(value v) {
    int64_t i;
    if (value_as_int(&i, v))
        return hash_integer((uint64_t)i);
    double d = v.number;
    if (d >= -0x1p63 && d < 0x1p63 && d == floor(d))
        return hash_integer((uint64_t)(int64_t)d);
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return hash_integer(bits);
}

bool value_hash(vm *m, uint64_t *out, value v) {
    switch (v.kind) {
    case VALUE_BOOL:
    case VALUE_INT:
    case VALUE_FLOAT:
        *out = hash_number(v);
        return true;
    case VALUE_TEXT:
        *out = hash_bytes(v.text->bytes, v.text->n);
        return spend_bytes(m, v.text->n);
    case VALUE_LIST:
        if (v.list->kind != LIST_TUPLE)
            break;
        *out = v.list->n;
        if (!spend(m, v.list->n) || !enter(m))
            return false;
        for (size_t i = 0; i < v.list->n; i++) {
            uint64_t h;
            if (!value_hash(m, &h, v.list->items[i]))
                return false;
            *out = hash_integer(*out ^ h);
        }
        leave(m);
        return true;
    case VALUE_DICT:
        break;
    case VALUE_NONE:
    case VALUE_UNDEFINED:
        *out = (uint64_t)v.kind;
        return true;
    default:
        *out = hash_integer((uint64_t)(uintptr_t)v.list);
        return true;
    }
    return fail(m, "a %s cannot be a key", value_type(v));
}

dict *dict_create(vm *m) {
    dict *d = vm_take(m, 1, sizeof *d);
    if (d)
        d->owner = NOBODY;
    return d;
}

dict *dict_copy(vm *m, const dict *from) {
    dict *d = dict_create(m);
    for (size_t i = 0; d && i < from->n; i++)
        if (!dict_set(m, d, from->entries[i].key, from->entries[i].item))
            return NULL;
    if (d) {
        d->owner = from->owner;
        d->is_message = from->is_message;
    }
    return d;
}

static void index_entry(dict *d, size_t entry) {
    size_t slot = d->entries[entry].hash & (d->n_slots - 1);
    while (d->slots[slot])
        slot = (slot + 1) & (d->n_slots - 1);
    d->slots[slot] = (uint32_t)(entry + 1);
}

static bool grow(vm *m, dict *d) {
    size_t capacity = d->capacity ? 2 * d->capacity : 4;
    dict_entry *entries = arena_grow(&m->memory, d->entries, d->capacity * sizeof *entries,
                                     capacity * sizeof *entries);
    if (!entries)
        return fail_memory(m);
    d->entries = entries;
    d->capacity = capacity;
    if (capacity <= FEW)
        return true;
    d->slots = vm_take(m, 2 * capacity, sizeof *d->slots);
    if (!d->slots)
        return false;
    d->n_slots = 2 * capacity;
    for (size_t i = 0; i < d->n; i++)
        index_entry(d, i);
    return true;
}

/* The entry with this key, or NULL. Keys with equal hashes are few: comparing them cannot recurse
 * deeply. */
static dict_entry *find(vm *m, const dict *d, value key, uint64_t hash) {
    bool same = false;
    if (!d->slots) {
        for (size_t i = 0; i < d->n; i++)
            if (d->entries[i].hash == hash &&
                (!value_equal(m, &same, d->entries[i].key, key) || same))
                return same ? &d->entries[i] : NULL;
        return NULL;
    }
    for (size_t slot = hash & (d->n_slots - 1); d->slots[slot];
         slot = (slot + 1) & (d->n_slots - 1)) {
        dict_entry *entry = &d->entries[d->slots[slot] - 1];
        if (!spend(m, 1))
            return NULL;
        if (entry->hash == hash && (!value_equal(m, &same, entry->key, key) || same))
            return same ? entry : NULL;
    }
    return NULL;
}

bool dict_set(vm *m, dict *d, value key, value item) {
    uint64_t hash = 0;
    if (!value_hash(m, &hash, key))
        return false;
    dict_entry *entry = find(m, d, key, hash);
    if (m->status != GRAFT_OK)
        return false;
    if (entry) {
        entry->item = item;
        return true;
    }
    if (d->n == d->capacity && !grow(m, d))
        return false;
    d->entries[d->n++] = (dict_entry){.key = key, .item = item, .hash = hash};
    if (d->slots)
        index_entry(d, d->n - 1);
    return true;
}

const value *dict_get(vm *m, const dict *d, value key) {
    uint64_t hash = 0;
    if (key.kind == VALUE_DICT || (key.kind == VALUE_LIST && key.list->kind != LIST_TUPLE))
        return NULL;
    if (!value_hash(m, &hash, key))
        return NULL;
    const dict_entry *entry = find(m, d, key, hash);
    return entry ? &entry->item : NULL;
}

static const value *get_bytes(const dict *d, const char *bytes, size_t n) {
    uint64_t hash = hash_bytes(bytes, n);
    size_t mask = d->n_slots - 1;
    for (size_t i = 0; d->slots ? d->slots[(hash + i) & mask] != 0 : i < d->n; i++) {
        const dict_entry *entry = &d->entries[d->slots ? d->slots[(hash + i) & mask] - 1 : i];
        if (entry->hash == hash && entry->key.kind == VALUE_TEXT && entry->key.text->n == n &&
            memcmp(entry->key.text->bytes, bytes, n) == 0)
            return &entry->item;
    }
    return NULL;
}

const value *dict_get_literal(const dict *d, const char *key) {
    return get_bytes(d, key, strlen(key));
}

const value *dict_get_text(const dict *d, const text *key) {
    return get_bytes(d, key->bytes, key->n);
}
