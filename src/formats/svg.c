#include "formats/svg.h"

#include <math.h>
#include <stdio.h>

enum { LEFT = 64, RIGHT = 16, TOP = 34, BOTTOM = 44, TICKS = 5 };

typedef struct axis {
    double low, high; /* values */
    double from, to;  /* pixels */
    double tick;      /* distance of ticks */
} axis;

static double pixel(const axis *a, double value) {
    return a->from + (value - a->low) / (a->high - a->low) * (a->to - a->from);
}

void svg_escape(strbuf *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&':
            strbuf_add_text(out, "&amp;");
            break;
        case '<':
            strbuf_add_text(out, "&lt;");
            break;
        case '>':
            strbuf_add_text(out, "&gt;");
            break;
        case '"':
            strbuf_add_text(out, "&quot;");
            break;
        default:
            strbuf_add_char(out, *text);
        }
    }
}

/* 1, 2 or 5 times a power of ten, so that about TICKS fit. */
static double nice_tick(double span) {
    double rough = span / TICKS;
    double power = pow(10, floor(log10(rough)));
    double digit = rough / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

/* Rounds the range of values outwards to whole ticks. */
static axis axis_over(double low, double high, double from, double to) {
    if (!(low <= high)) /* no finite value */
        low = 0, high = 1;
    if (low == high) {
        double around = fabs(low) > 0 ? fabs(low) * 0.1 : 1;
        low -= around;
        high += around;
    }
    double tick = nice_tick(high - low);
    /* A value that is a tick but for rounding needs no further one. */
    double first = floor(low / tick + 1e-6), last = ceil(high / tick - 1e-6);
    return (axis){first * tick, last * tick, from, to, tick};
}

static axis axis_of(const svg_chart *chart, bool vertical, double from, double to) {
    double low = INFINITY, high = -INFINITY;
    for (size_t s = 0; s < chart->n_series; s++) {
        const svg_series *series = &chart->series[s];
        const double *values = vertical ? series->y : series->x;
        for (size_t i = 0; i < series->n; i++) {
            if (!isfinite(series->x[i]) || !isfinite(series->y[i]))
                continue;
            low = fmin(low, values[i]);
            high = fmax(high, values[i]);
        }
    }
    axis a = axis_over(low, high, from, to);
    if (!vertical && low < high) { /* steps begin and end at the plot's edges */
        a.low = low;
        a.high = high;
    }
    return a;
}

static void draw_axes(strbuf *out, const axis *x, const axis *y) {
    strbuf_add_text(out, "<g stroke=\"currentColor\" stroke-opacity=\"0.15\">");
    for (double v = y->low; v <= y->high + y->tick / 2; v += y->tick)
        strbuf_printf(out, "<path d=\"M%.1f %.1fH%.1f\"/>", x->from, pixel(y, v), x->to);
    strbuf_add_text(out, "</g>\n<g fill=\"currentColor\" fill-opacity=\"0.75\" font-size=\"11\">");
    for (double v = y->low; v <= y->high + y->tick / 2; v += y->tick) {
        double shown = fabs(v) < y->tick / 1e6 ? 0 : v; /* 0, not 1e-17 */
        strbuf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>",
                      x->from - 6, pixel(y, v) + 4, shown);
    }
    for (double v = ceil(x->low / x->tick) * x->tick; v <= x->high + x->tick / 1e6; v += x->tick)
        strbuf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.6g</text>",
                      pixel(x, v), y->from + 16, v);
    strbuf_add_text(out, "</g>\n");
}

static void add_point(strbuf *out, bool *is_open, double x, double y) {
    strbuf_printf(out, "%c%.1f %.1f", *is_open ? 'L' : 'M', x, y);
    *is_open = true;
}

static bool is_shown(const svg_series *s, size_t i) {
    return isfinite(s->x[i]) && isfinite(s->y[i]);
}

/* Points of one pixel column: the smallest and the largest value, in their order. Returns the next
 * column's first point. */
static size_t draw_column(strbuf *out, bool *is_open, const svg_series *s, size_t i, const axis *x,
                          const axis *y) {
    double column = floor(pixel(x, s->x[i]));
    size_t least = i, most = i, end = i;
    for (; end < s->n && is_shown(s, end) && floor(pixel(x, s->x[end])) <= column; end++) {
        if (s->y[end] < s->y[least])
            least = end;
        if (s->y[end] > s->y[most])
            most = end;
    }
    size_t first = least < most ? least : most, second = least < most ? most : least;
    add_point(out, is_open, pixel(x, s->x[first]), pixel(y, s->y[first]));
    if (second != first)
        add_point(out, is_open, pixel(x, s->x[second]), pixel(y, s->y[second]));
    return end;
}

static void draw_line(strbuf *out, const svg_series *s, const axis *x, const axis *y) {
    bool is_open = false;
    strbuf_printf(out,
                  "<path fill=\"none\" stroke=\"%s\" stroke-width=\"%g\" stroke-opacity=\"%g\" "
                  "stroke-linejoin=\"round\" d=\"",
                  s->colour, s->width, s->opacity);
    for (size_t i = 0; i < s->n;) {
        if (is_shown(s, i)) {
            i = draw_column(out, &is_open, s, i, x, y);
        } else {
            is_open = false;
            i++;
        }
    }
    strbuf_add_text(out, "\"/>\n");
}

static void draw_dots(strbuf *out, const svg_series *s, const axis *x, const axis *y) {
    strbuf_printf(out, "<g fill=\"%s\">", s->colour);
    for (size_t i = 0; i < s->n; i++)
        if (is_shown(s, i))
            strbuf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>", pixel(x, s->x[i]),
                          pixel(y, s->y[i]));
    strbuf_add_text(out, "</g>\n");
}

static void draw_legend(strbuf *out, const svg_chart *chart) {
    enum { ENTRY = 130 };
    double x = chart->width - RIGHT - (double)chart->n_series * ENTRY;
    for (size_t i = 0; i < chart->n_series; i++, x += ENTRY) {
        const svg_series *s = &chart->series[i];
        strbuf_printf(out,
                      "<rect x=\"%.1f\" y=\"12\" width=\"14\" height=\"4\" fill=\"%s\" "
                      "fill-opacity=\"%g\"/><text x=\"%.1f\" y=\"18\" font-size=\"12\" "
                      "fill=\"currentColor\">",
                      x, s->colour, s->opacity, x + 20);
        svg_escape(out, s->label);
        strbuf_add_text(out, "</text>\n");
    }
}

void svg_line_chart(strbuf *out, const svg_chart *chart) {
    axis x = axis_of(chart, false, LEFT, chart->width - RIGHT);
    axis y = axis_of(chart, true, chart->height - BOTTOM, TOP);
    strbuf_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" "
                  "font-family=\"system-ui, sans-serif\">\n<title>",
                  chart->width, chart->height);
    svg_escape(out, chart->title);
    strbuf_printf(out,
                  "</title>\n<text x=\"%d\" y=\"19\" font-size=\"14\" font-weight=\"600\" "
                  "fill=\"currentColor\">",
                  LEFT);
    svg_escape(out, chart->title);
    strbuf_add_text(out, "</text>\n");
    draw_axes(out, &x, &y);
    for (size_t i = 0; i < chart->n_series; i++) {
        if (chart->series[i].width > 0)
            draw_line(out, &chart->series[i], &x, &y);
        else
            draw_dots(out, &chart->series[i], &x, &y);
    }
    if (chart->n_series > 1)
        draw_legend(out, chart);
    strbuf_printf(out,
                  "<text x=\"%d\" y=\"%d\" font-size=\"12\" text-anchor=\"middle\" "
                  "fill=\"currentColor\">",
                  (LEFT + chart->width - RIGHT) / 2, chart->height - 8);
    svg_escape(out, chart->x_label);
    strbuf_add_text(out, "</text>\n</svg>\n");
}
