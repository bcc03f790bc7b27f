/* Filters of the wavelets that PEFT's WaveFT knows. */
#ifndef GRAFT_ADAPTER_WAVELET_FILTERS_H
#define GRAFT_ADAPTER_WAVELET_FILTERS_H

#include <stdint.h>

typedef struct wavelet_filter {
    const char *name;       /* "db4" */
    const double *low_pass; /* [length], of reconstruction; the high-pass one has them backwards,
                               with signs + - + - ... */
    int32_t length;         /* even */
} wavelet_filter;

const wavelet_filter *wavelet_filter_find(const char *name); /* NULL: not known */

#endif
