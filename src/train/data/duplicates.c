#include "train/data/duplicates.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    SHINGLE_TOKENS = 5,
    BANDS = 25,
    BAND_HASHES = 5,
    SIGNATURE_HASHES = BANDS * BAND_HASHES,
    COMMON_ROWS_MIN = 20, /* a shingle of so few rows is never common */
    COUNTER_BITS = 22     /* of the table that counts the rows of a shingle */
};

static graft_status out_of_memory(size_t bytes, graft_error *err) {
    return error_memory(err, bytes, "finding duplicate rows");
}

static size_t table_size(size_t n) {
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

/* ---- Exact ------------------------------------------------------------------------------------
 */

static XXH128_hash_t row_hash(const unit_tokens *row) {
    XXH128_hash_t ids = XXH3_128bits(row->ids, row->n * sizeof *row->ids);
    XXH128_hash_t targets = XXH3_128bits(row->targets, row->n * sizeof *row->targets);
    const uint64_t both[] = {ids.low64, ids.high64, targets.low64, targets.high64};
    return XXH3_128bits(both, sizeof both);
}

static graft_status find_exact(uint8_t *found, const unit_tokens *rows, size_t n,
                               graft_error *err) {
    size_t size = table_size(n);
    XXH128_hash_t *seen = mem_array(size, sizeof *seen);
    uint8_t *is_taken = mem_array(size, 1);
    graft_status status = seen && is_taken ? GRAFT_OK : out_of_memory(size * sizeof *seen, err);
    for (size_t i = 0; status == GRAFT_OK && i < n; i++) {
        XXH128_hash_t hash = row_hash(&rows[i]);
        size_t at = hash.low64 & (size - 1);
        while (is_taken[at] && !XXH128_isEqual(seen[at], hash))
            at = (at + 1) & (size - 1);
        found[i] = is_taken[at] ? DUPLICATE_EXACT : NOT_DUPLICATE;
        is_taken[at] = 1;
        seen[at] = hash;
    }
    free(seen);
    free(is_taken);
    return status;
}

/* ---- Shingles ---------------------------------------------------------------------------------
 */

typedef struct shingle_set {
    uint64_t *hashes; /* [n], ascending, each once */
    size_t n, capacity;
} shingle_set;

static int compare_hashes(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void sort_set(shingle_set *set) {
    size_t kept = 0;
    qsort(set->hashes, set->n, sizeof *set->hashes, compare_hashes);
    for (size_t i = 0; i < set->n; i++)
        if (i == 0 || set->hashes[i] != set->hashes[i - 1])
            set->hashes[kept++] = set->hashes[i];
    set->n = kept;
}

/* The shingles of tokens [n]; fewer than a shingle are one. */
static bool shingles_of(shingle_set *out, const int32_t *tokens, size_t n) {
    size_t width = n < SHINGLE_TOKENS ? n : SHINGLE_TOKENS;
    size_t count = n ? n - width + 1 : 0;
    out->n = 0;
    if (!mem_reserve(&out->hashes, &out->capacity, count, sizeof *out->hashes))
        return false;
    for (size_t i = 0; i < count; i++)
        out->hashes[out->n++] = XXH3_64bits(tokens + i, width * sizeof *tokens);
    if (out->n)
        sort_set(out);
    return true;
}

static double similarity(const shingle_set *a, const shingle_set *b) {
    size_t i = 0, k = 0, both = 0;
    while (i < a->n && k < b->n) {
        if (a->hashes[i] == b->hashes[k]) {
            both++;
            i++;
            k++;
        } else if (a->hashes[i] < b->hashes[k]) {
            i++;
        } else {
            k++;
        }
    }
    size_t all = a->n + b->n - both;
    return all ? (double)both / (double)all : 1;
}

/* ---- Near -------------------------------------------------------------------------------------
 */

typedef struct near_search {
    const unit_tokens *rows;
    uint32_t *counters; /* rows that have a shingle, by a part of its hash */
    uint32_t common;    /* more rows than this: the shingle does not count */
    uint64_t multiplier[SIGNATURE_HASHES], addend[SIGNATURE_HASHES];
    /* Each band's rows by its hash: heads of lists through `next`. 0: none, else row + 1. */
    uint32_t *heads; /* [BANDS][table] */
    uint32_t *next;  /* [rows][BANDS] */
    size_t table;
    uint32_t *compared; /* [rows]: the last row (+ 1) it was compared with */
    shingle_set whole, taught, other;
    int32_t *tokens; /* scratch: what is supervised in a row */
    size_t tokens_capacity;
} near_search;

static void near_free(near_search *s) {
    free(s->counters);
    free(s->heads);
    free(s->next);
    free(s->compared);
    free(s->whole.hashes);
    free(s->taught.hashes);
    free(s->other.hashes);
    free(s->tokens);
}

static size_t counter_of(uint64_t hash) {
    return (size_t)(hash >> (64 - COUNTER_BITS));
}

static bool whole_shingles(shingle_set *out, const near_search *s, size_t row) {
    if (!shingles_of(out, s->rows[row].ids, s->rows[row].n))
        return false;
    size_t kept = 0;
    for (size_t i = 0; i < out->n; i++)
        if (s->counters[counter_of(out->hashes[i])] <= s->common)
            out->hashes[kept++] = out->hashes[i];
    out->n = kept;
    return true;
}

static bool taught_shingles(shingle_set *out, near_search *s, size_t row) {
    const unit_tokens *r = &s->rows[row];
    size_t n = 0;
    if (!mem_reserve(&s->tokens, &s->tokens_capacity, r->n, sizeof *s->tokens))
        return false;
    for (size_t i = 0; i < r->n; i++)
        if (r->targets[i] >= 0)
            s->tokens[n++] = r->targets[i];
    return shingles_of(out, s->tokens, n);
}

static graft_status count_shingles(near_search *s, const uint8_t *found, size_t n,
                                   graft_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (found[i])
            continue;
        if (!shingles_of(&s->whole, s->rows[i].ids, s->rows[i].n))
            return out_of_memory(s->rows[i].n * sizeof(uint64_t), err);
        for (size_t k = 0; k < s->whole.n; k++)
            s->counters[counter_of(s->whole.hashes[k])]++;
    }
    return GRAFT_OK;
}

/* Fixed constants: the same files give the same rows everywhere. */
static void choose_hashes(near_search *s) {
    for (uint64_t i = 0; i < SIGNATURE_HASHES; i++) {
        const uint64_t words[] = {i, i + SIGNATURE_HASHES};
        s->multiplier[i] = XXH3_64bits(&words[0], sizeof words[0]) | 1;
        s->addend[i] = XXH3_64bits(&words[1], sizeof words[1]);
    }
}

static void sign(uint64_t bands[BANDS], const near_search *s, const shingle_set *set) {
    uint64_t least[SIGNATURE_HASHES];
    for (int h = 0; h < SIGNATURE_HASHES; h++) {
        least[h] = UINT64_MAX;
        for (size_t i = 0; i < set->n; i++) {
            uint64_t value = set->hashes[i] * s->multiplier[h] + s->addend[h];
            value ^= value >> 32; /* the low bits of a product mix little */
            if (value < least[h])
                least[h] = value;
        }
    }
    for (int b = 0; b < BANDS; b++)
        bands[b] = XXH3_64bits(least + b * BAND_HASHES, BAND_HASHES * sizeof *least);
}

/* Are rows `row` (whose sets are in s->whole and s->taught) and `earlier` alike in both? */
static bool is_alike(bool *alike, near_search *s, size_t earlier) {
    *alike = false;
    if (!whole_shingles(&s->other, s, earlier))
        return false;
    if (similarity(&s->whole, &s->other) < NEAR_SIMILARITY)
        return true;
    if (!taught_shingles(&s->other, s, earlier))
        return false;
    *alike = similarity(&s->taught, &s->other) >= NEAR_SIMILARITY;
    return true;
}

/* Compares the row with the candidates of its bands; enters it when it is like none. */
static graft_status place_row(near_search *s, uint8_t *found, size_t row, graft_error *err) {
    uint64_t bands[BANDS];
    if (!whole_shingles(&s->whole, s, row) || !taught_shingles(&s->taught, s, row))
        return out_of_memory(s->rows[row].n * sizeof(uint64_t), err);
    if (!s->whole.n)
        return GRAFT_OK;
    sign(bands, s, &s->whole);
    for (size_t b = 0; b < BANDS; b++) {
        uint32_t at = s->heads[b * s->table + (bands[b] & (s->table - 1))];
        for (; at; at = s->next[(size_t)(at - 1) * BANDS + b]) {
            bool alike;
            if (s->compared[at - 1] == row + 1)
                continue;
            s->compared[at - 1] = (uint32_t)(row + 1);
            if (!is_alike(&alike, s, at - 1))
                return out_of_memory(s->rows[at - 1].n * sizeof(uint64_t), err);
            if (alike) {
                found[row] = DUPLICATE_NEAR;
                return GRAFT_OK;
            }
        }
    }
    for (size_t b = 0; b < BANDS; b++) {
        uint32_t *head = &s->heads[b * s->table + (bands[b] & (s->table - 1))];
        s->next[row * BANDS + b] = *head;
        *head = (uint32_t)(row + 1);
    }
    return GRAFT_OK;
}

static graft_status near_prepare(near_search *s, size_t n, graft_error *err) {
    s->table = table_size(n);
    s->common = (uint32_t)(n / 10 > COMMON_ROWS_MIN ? n / 10 : COMMON_ROWS_MIN);
    s->counters = mem_array((size_t)1 << COUNTER_BITS, sizeof *s->counters);
    s->heads = mem_array(s->table, BANDS * sizeof *s->heads);
    s->next = mem_array(n, BANDS * sizeof *s->next);
    s->compared = mem_array(n, sizeof *s->compared);
    choose_hashes(s);
    return s->counters && s->heads && s->next && s->compared
               ? GRAFT_OK
               : out_of_memory((s->table + n) * BANDS * sizeof *s->heads, err);
}

static graft_status find_near(uint8_t *found, const unit_tokens *rows, size_t n,
                              const volatile sig_atomic_t *stop, graft_error *err) {
    near_search s = {.rows = rows};
    if (n > UINT32_MAX - 1)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "near duplicates are looked for among at most %u rows, found %zu; use "
                         "--dedup exact",
                         UINT32_MAX - 1, n);
    graft_status status = near_prepare(&s, n, err);
    if (status == GRAFT_OK)
        status = count_shingles(&s, found, n, err);
    for (size_t i = 0; status == GRAFT_OK && i < n; i++) {
        if (stop && *stop)
            status = error_set(err, GRAFT_E_INTERRUPTED,
                               "stopped while looking for duplicates; nothing was written");
        else if (!found[i])
            status = place_row(&s, found, i, err);
    }
    near_free(&s);
    return status;
}

graft_status duplicates_find(uint8_t *found, const unit_tokens *rows, size_t n, dedup_kind kind,
                             const volatile sig_atomic_t *stop, graft_error *err) {
    graft_status status = find_exact(found, rows, n, err);
    if (status == GRAFT_OK && kind == DEDUP_NEAR)
        status = find_near(found, rows, n, stop, err);
    return status;
}
