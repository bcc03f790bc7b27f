/* Line charts as SVG text, to stand inside an HTML page: no scripts, no fonts of its own, axes in
 * the page's text colour (currentColor), so that light and dark pages both work. */
#ifndef GRAFT_FORMATS_SVG_H
#define GRAFT_FORMATS_SVG_H

#include "base/strbuf.h"

typedef struct svg_series {
    const char *label, *colour; /* colour: any CSS colour */
    const double *x, *y;        /* [n], x ascending; points that are not finite break the line */
    size_t n;
    double width, opacity; /* of the line; width 0: dots only */
} svg_series;

typedef struct svg_chart {
    const char *title, *x_label; /* plain text: escaped here */
    int width, height;           /* pixels */
    const svg_series *series;
    size_t n_series;
} svg_chart;

/* Appends one <svg> element. Long series are drawn by the smallest and largest value of each pixel
 * column. */
void svg_line_chart(strbuf *, const svg_chart *);

/* Appends text with &, <, >, " escaped, for HTML and SVG. */
void svg_escape(strbuf *, const char *text);

#endif
