/* Memory layouts: the function that lays a structure out runs twice, once with no memory to count
 * the bytes, once with memory to assign the pointers. A plan and a run so agree to the byte, and a
 * step allocates nothing.
 *
 *     layout l = layout_counting();             describe(&l, ...);     // l.high_water is the size
 *     layout l = layout_over(memory, bytes);    describe(&l, ...);     // the same calls give
 * pointers
 */
#ifndef GRAFT_BASE_LAYOUT_H
#define GRAFT_BASE_LAYOUT_H

#include "base/status.h"

/* What a fine-tune's memory is made of; counted apart. */
typedef enum component {
    COMPONENT_WEIGHTS, /* the frozen base, or the masters of full fine-tuning */
    COMPONENT_ADAPTER, /* trained parameters beside the base */
    COMPONENT_GRADIENTS,
    COMPONENT_OPTIMIZER,
    COMPONENT_ACTIVATIONS, /* kept from forward to backward */
    COMPONENT_WORKSPACE,   /* scratch of one op or one layer */
    N_COMPONENTS
} component;

const char *component_name(component);

enum { LAYOUT_ALIGNMENT = 64 };

typedef struct layout {
    unsigned char *base;                /* NULL: only counts */
    size_t capacity;                    /* bytes at base; 0 when counting */
    size_t used, high_water;            /* bytes */
    size_t now[N_COMPONENTS];           /* bytes in use, by component */
    size_t at_high_water[N_COMPONENTS]; /* their values when high_water was reached */
    bool overflow;                      /* a size did not fit: the counts are meaningless */
} layout;

typedef struct layout_place {
    size_t used;
    size_t now[N_COMPONENTS];
} layout_place;

layout layout_counting(void);
layout layout_over(void *memory, size_t capacity); /* borrows memory, aligned to LAYOUT_ALIGNMENT */

/* count * element_bytes bytes, aligned; NULL when counting (and only then: asserts that an assigned
 * layout does not outgrow its capacity). */
void *layout_take(layout *, component what, size_t count, size_t element_bytes);

/* Everything taken after the mark is free again once released: its space is reused. */
layout_place layout_mark(const layout *);
void layout_release(layout *, layout_place);

#endif
