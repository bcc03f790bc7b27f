#include "text/template/text.h"

#include "formats/utf8.h"
#include "text/template/template.h"

#include <string.h>

static text *make(vm *m, const char *bytes, size_t n) {
    text *t = vm_take(m, 1, sizeof *t);
    if (t)
        *t = (text){.bytes = bytes, .n = n};
    return t;
}

const text *text_view(vm *m, const char *bytes, size_t n) {
    return make(m, bytes, n);
}

const text *text_literal(vm *m, const char *bytes) {
    return make(m, bytes, strlen(bytes));
}

const text *text_of(vm *m, const char *bytes, size_t n) {
    char *copy = vm_take(m, n, 1);
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, bytes, n);
    return make(m, copy, n);
}

const text *text_owned(vm *m, const text *t, int32_t owner, bool is_role) {
    text *owned = make(m, t->bytes, t->n);
    stretch *all = owned ? vm_take(m, 1, sizeof *all) : NULL;
    if (!all)
        return NULL;
    *all = (stretch){
        .end = t->n, .owner = owner, .turn = NOBODY, .generation = NOBODY, .is_role = is_role};
    owned->stretches = all;
    owned->n_stretches = 1;
    return owned;
}

/* Whether a stretch has a part in bytes [begin, end). Where that range is empty, or the stretch is,
 * a place counts. */
static bool takes_part(const stretch *s, size_t begin, size_t end) {
    if (begin == end)
        return s->begin <= begin && begin <= s->end;
    if (s->begin == s->end)
        return begin <= s->begin && s->begin <= end;
    return s->begin < end && begin < s->end;
}

static stretch clip(const stretch *s, size_t begin, size_t end) {
    stretch part = *s;
    part.begin = s->begin < begin ? 0 : s->begin - begin;
    part.end = (s->end > end ? end : s->end) - begin;
    return part;
}

const text *text_slice(vm *m, const text *t, size_t begin, size_t end) {
    if (begin == 0 && end == t->n)
        return t;
    text *slice = make(m, t->bytes + begin, end - begin);
    if (!slice)
        return NULL;
    slice->is_safe = t->is_safe;
    size_t n = 0;
    for (size_t i = 0; i < t->n_stretches; i++)
        n += takes_part(&t->stretches[i], begin, end);
    if (begin == end && n > 1)
        n = 1; /* one place is enough */
    if (n == 0)
        return slice;
    stretch *parts = vm_take(m, n, sizeof *parts);
    if (!parts)
        return NULL;
    for (size_t i = 0; i < t->n_stretches && slice->n_stretches < n; i++)
        if (takes_part(&t->stretches[i], begin, end))
            parts[slice->n_stretches++] = clip(&t->stretches[i], begin, end);
    slice->stretches = parts;
    return slice;
}

bool text_equal(const text *a, const text *b) {
    return a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
}

bool text_is(const text *t, const char *literal) {
    return t->n == strlen(literal) && memcmp(t->bytes, literal, t->n) == 0;
}

int text_order(const text *a, const text *b) {
    int order = memcmp(a->bytes, b->bytes, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

size_t text_find(vm *m, const text *t, const text *needle, size_t from, size_t to) {
    if (from > to || needle->n > to - from || !spend_bytes(m, to - from))
        return SIZE_MAX;
    const char *found = memmem(t->bytes + from, to - from, needle->bytes, needle->n);
    return found ? (size_t)(found - t->bytes) : SIZE_MAX;
}

size_t text_find_last(vm *m, const text *t, const text *needle, size_t from, size_t to) {
    if (from > to || needle->n > to - from || !spend_bytes(m, 16 * (to - from)))
        return SIZE_MAX;
    if (needle->n == 0)
        return to;
    for (size_t end = to - needle->n + 1; end > from;) {
        const char *first = memrchr(t->bytes + from, needle->bytes[0], end - from);
        if (!first)
            break;
        if (memcmp(first, needle->bytes, needle->n) == 0)
            return (size_t)(first - t->bytes);
        end = (size_t)(first - t->bytes);
    }
    return SIZE_MAX;
}

const stretch *text_owner(const text *t) {
    for (size_t i = 0; i < t->n_stretches; i++)
        if (t->stretches[i].owner != NOBODY)
            return &t->stretches[i];
    return NULL;
}

const stretch *text_stretch(const text *t, size_t *cursor, size_t at) {
    while (*cursor < t->n_stretches && t->stretches[*cursor].end <= at)
        (*cursor)++;
    bool is_inside = *cursor < t->n_stretches && t->stretches[*cursor].begin <= at;
    return is_inside ? &t->stretches[*cursor] : NULL;
}

builder builder_on(vm *m) {
    return (builder){.m = m};
}

bool build_reserve(builder *b, size_t extra) {
    if (b->m->status != GRAFT_OK)
        return false;
    if (extra > TEMPLATE_OUTPUT_MAX || b->n + extra > TEMPLATE_OUTPUT_MAX)
        return fail(b->m, "a text grows beyond the limit of %d MiB", TEMPLATE_OUTPUT_MAX >> 20);
    if (b->n + extra <= b->capacity)
        return true;
    size_t capacity = b->capacity ? 2 * b->capacity : 64;
    if (capacity < b->n + extra)
        capacity = b->n + extra;
    char *grown = arena_grow(&b->m->memory, b->bytes, b->capacity, capacity);
    if (!grown)
        return fail_memory(b->m);
    b->bytes = grown;
    b->capacity = capacity;
    return true;
}

static bool same_source(const stretch *a, const stretch *b) {
    return a->owner == b->owner && a->turn == b->turn && a->generation == b->generation &&
           a->is_role == b->is_role;
}

static void add_stretch(builder *b, stretch s) {
    if (b->m->status != GRAFT_OK ||
        (s.owner == NOBODY && s.turn == NOBODY && s.generation == NOBODY))
        return;
    stretch *last = b->n_stretches ? &b->stretches[b->n_stretches - 1] : NULL;
    if (last && last->end == s.begin && same_source(last, &s)) {
        last->end = s.end;
        return;
    }
    if (b->n_stretches == b->stretches_capacity) {
        size_t capacity = b->stretches_capacity ? 2 * b->stretches_capacity : 4;
        stretch *grown =
            arena_grow(&b->m->memory, b->stretches, b->stretches_capacity * sizeof *grown,
                       capacity * sizeof *grown);
        if (!grown) {
            fail_memory(b->m);
            return;
        }
        b->stretches = grown;
        b->stretches_capacity = capacity;
    }
    b->stretches[b->n_stretches++] = s;
}

void build_bytes(builder *b, const char *bytes, size_t n) {
    if (!n || !build_reserve(b, n))
        return;
    memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
}

void build_literal(builder *b, const char *literal) {
    build_bytes(b, literal, strlen(literal));
}

void build_char(builder *b, uint32_t character) {
    char bytes[4];
    build_bytes(b, bytes, utf8_encode(bytes, character));
}

void build_repeat(builder *b, char c, size_t count) {
    if (!count || !build_reserve(b, count))
        return;
    memset(b->bytes + b->n, c, count);
    b->n += count;
}

void build_slice(builder *b, const text *t, size_t begin, size_t end) {
    size_t at = b->n;
    build_bytes(b, t->bytes + begin, end - begin);
    for (size_t i = 0; i < t->n_stretches; i++) {
        if (!takes_part(&t->stretches[i], begin, end))
            continue;
        stretch part = clip(&t->stretches[i], begin, end);
        part.begin += at;
        part.end += at;
        add_stretch(b, part);
    }
}

void build_text(builder *b, const text *t) {
    build_slice(b, t, 0, t->n);
}

void build_like(builder *b, const char *bytes, size_t n, const stretch *source) {
    size_t begin = b->n;
    build_bytes(b, bytes, n);
    if (!source)
        return;
    stretch like = *source;
    like.begin = begin;
    like.end = begin + n;
    add_stretch(b, like);
}

static stretch printed(const vm *m, stretch s, size_t at) {
    s.begin += at;
    s.end += at;
    if (m->turn != NOBODY)
        s.turn = m->turn;
    if (m->generation != NOBODY)
        s.generation = m->generation;
    return s;
}

/* The stretches of a text whose bytes begin at byte `at` of what is built, with the gaps between
 * them. */
static void print_stretches(builder *b, const stretch *stretches, size_t n, size_t at, size_t end) {
    size_t done = 0;
    stretch plain = {.owner = NOBODY, .turn = NOBODY, .generation = NOBODY};
    for (size_t i = 0; i <= n; i++) {
        plain.begin = done;
        plain.end = i < n ? stretches[i].begin : end;
        if (plain.end > plain.begin)
            add_stretch(b, printed(b->m, plain, at));
        if (i == n)
            break;
        add_stretch(b, printed(b->m, stretches[i], at));
        done = stretches[i].end;
    }
}

void build_print(builder *b, const text *t) {
    size_t at = b->n;
    build_bytes(b, t->bytes, t->n);
    print_stretches(b, t->stretches, t->n_stretches, at, t->n);
}

void build_claim(builder *b, size_t begin, int32_t turn) {
    size_t kept = b->n_stretches;
    while (kept > 0 && b->stretches[kept - 1].begin >= begin)
        kept--;
    size_t n = b->n_stretches - kept;
    stretch *moved = vm_take(b->m, n, sizeof *moved);
    if (!moved)
        return;
    for (size_t i = 0; i < n; i++)
        moved[i] = clip(&b->stretches[kept + i], begin, b->n);
    b->n_stretches = kept;
    int32_t outer_turn = b->m->turn, outer_generation = b->m->generation;
    b->m->turn = turn;
    b->m->generation = NOBODY;
    print_stretches(b, moved, n, begin, b->n - begin);
    b->m->turn = outer_turn;
    b->m->generation = outer_generation;
}

const text *builder_finish(builder *b) {
    if (b->m->status != GRAFT_OK)
        return NULL;
    text *t = make(b->m, b->bytes ? b->bytes : "", b->n);
    if (t) {
        t->stretches = b->stretches;
        t->n_stretches = b->n_stretches;
    }
    return t;
}
