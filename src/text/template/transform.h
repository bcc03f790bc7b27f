/* What filters and methods of strings have in common. All keep track of where text comes from. */
#ifndef GRAFT_TEXT_TEMPLATE_TRANSFORM_H
#define GRAFT_TEXT_TEMPLATE_TRANSFORM_H

#include "text/template/unicode.h"
#include "text/template/value.h"

typedef enum side { SIDE_LEFT = 1, SIDE_RIGHT = 2, SIDE_BOTH = 3 } side;

/* chars NULL: white space. */
value string_strip(vm *, const text *, const text *chars, side);
value string_convert(vm *, const text *, char_case);
value string_capitalize(vm *, const text *);
value string_swap_case(vm *, const text *);
value string_title(vm *, const text *); /* str.title(), not Jinja's filter */
/* count < 0: all. */
value string_replace(vm *, const text *, const text *old, const text *new, int64_t count);
/* Lines without their ends (with them: keep_ends), as a list. */
list *string_lines(vm *, const text *, bool keep_ends);
/* separator NULL: white space; limit < 0: none. From the right: rsplit. */
list *string_split(vm *, const text *, const text *separator, int64_t limit, bool from_right);
/* The text padded with `fill` to `width` characters, more of it at the sides named. */
value string_pad(vm *, const text *, int64_t width, const text *fill, side padded);
value string_join(vm *, const text *separator, const list *parts);

/* int(text, base) and float(text), with Python's rules; false where Python raises ValueError. */
bool string_to_int(int64_t *out, const text *, int base);
bool string_to_float(double *out, const text *);

#endif
