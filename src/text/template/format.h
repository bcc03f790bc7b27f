/* One value written as a format asks: what "%5.2f" and "{:>8}" have in common. */
#ifndef GRAFT_TEXT_TEMPLATE_FORMAT_H
#define GRAFT_TEXT_TEMPLATE_FORMAT_H

#include "text/template/value.h"

typedef struct format_spec {
    const text *fill; /* one character; NULL: a space */
    char align;       /* '<', '>', '=', '^'; 0: as the type has it */
    char sign;        /* '+', ' ' or '-' */
    bool is_alternate, is_zero_padded;
    char grouping;     /* ',' or '_'; 0: none */
    int64_t width;     /* 0: as long as it is */
    int64_t precision; /* -1: not given */
    char type;         /* 0: not given */
} format_spec;

/* All refuse what the type cannot be written as. */
bool build_formatted_text(builder *, const text *, const format_spec *);
bool build_formatted_int(builder *, int64_t, const format_spec *);
bool build_formatted_float(builder *, double, const format_spec *);

#endif
