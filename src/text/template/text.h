/* Strings that know where they come from.
 *
 * Every string of a rendering may carry stretches, each saying which message's field its bytes
 * show, in which message's loop iteration they were printed, and in which {% generation %} block.
 * Concatenation, slices and filters keep stretches, so the rendered text can tell which bytes are
 * whose: that is what supervision spans are made of (spans.h). A stretch may be empty: an empty
 * content has a place all the same. */
#ifndef GRAFT_TEXT_TEMPLATE_TEXT_H
#define GRAFT_TEXT_TEMPLATE_TEXT_H

#include "text/template/vm.h"

typedef struct stretch {
    size_t begin, end;  /* bytes */
    int32_t owner;      /* message whose field this shows; NOBODY */
    int32_t turn;       /* message in whose iteration it was printed; NOBODY */
    int32_t generation; /* number of the block that printed it; NOBODY */
    bool is_role;       /* the field is the role or another label, not what the message says */
} stretch;

typedef struct text {
    const char *bytes; /* UTF-8, not NUL-terminated */
    size_t n;
    bool is_safe;             /* made by |safe or |escape: + escapes what is joined to it */
    const stretch *stretches; /* in order, disjoint; bytes outside them come from the template */
    size_t n_stretches;
} text;

/* Makers return NULL when they failed. */
const text *text_of(vm *, const char *bytes, size_t n); /* copies */
const text *text_view(vm *, const char *bytes,
                      size_t n); /* borrows: the bytes must live as long as the rendering */
const text *text_literal(vm *, const char *); /* a C string that lives for ever */
const text *text_owned(vm *, const text *, int32_t owner, bool is_role);
const text *text_slice(vm *, const text *, size_t begin, size_t end); /* shares the bytes */

bool text_equal(const text *, const text *);
bool text_is(const text *, const char *);
/* By character, as Python orders strings (UTF-8's byte order is the same). */
int text_order(const text *, const text *);
/* Where needle begins in t at or after byte `from` and before `to`; SIZE_MAX when it does not. The
 * empty needle is at `from`. The second finds the last one. */
size_t text_find(vm *, const text *t, const text *needle, size_t from, size_t to);
size_t text_find_last(vm *, const text *t, const text *needle, size_t from, size_t to);
/* Whose field the text shows (its first such stretch), or NULL. */
const stretch *text_owner(const text *);
/* The stretch in which byte `at` lies, or NULL. For walking through a text: *cursor begins as 0,
 * `at` only grows. */
const stretch *text_stretch(const text *, size_t *cursor, size_t at);

/* A text being made. Failure is sticky (it is the vm's): check the result of builder_finish. */
typedef struct builder {
    vm *m;
    char *bytes;
    size_t n, capacity;
    stretch *stretches;
    size_t n_stretches, stretches_capacity;
} builder;

builder builder_on(vm *);
/* Fails at once when n more bytes are more than a text may have. */
bool build_reserve(builder *, size_t n);
void build_bytes(builder *, const char *bytes, size_t n);
void build_literal(builder *, const char *);
void build_char(builder *, uint32_t character);
void build_repeat(builder *, char c, size_t count);
void build_text(builder *, const text *);
void build_slice(builder *, const text *, size_t begin, size_t end);
/* Bytes that belong to whom the stretch belongs (NULL: nobody). */
void build_like(builder *, const char *bytes, size_t n, const stretch *);
/* Prints: like build_text, but in the name of the vm's turn and generation block. */
void build_print(builder *, const text *);
/* Gives everything since byte `begin` to this turn. */
void build_claim(builder *, size_t begin, int32_t turn);
const text *builder_finish(builder *);

#endif
