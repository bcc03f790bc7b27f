/* graft_data as a page: one file without scripts, light and dark. */
#include "api/data_report.h"

#include "formats/svg.h"
#include "train/report.h"

enum { CHART_WIDTH = 900, CHART_HEIGHT = 260, CHART_LEFT = 8, CHART_FOOT = 34, CHART_HEAD = 18 };

static const char style[] =
    "mark{background:color-mix(in srgb,var(--accent) 30%,transparent);color:inherit;"
    "border-radius:.15rem}\n"
    ".row{white-space:pre-wrap;overflow-wrap:anywhere}.row span,.row mark{padding:0}\n"
    "rect{fill:var(--accent)}svg text{fill:currentColor;font:11px system-ui,sans-serif}\n";

static void tile(strbuf *html, const char *name, const char *value) {
    strbuf_add_text(html, "<div class=\"tile\"><b>");
    svg_escape(html, value);
    strbuf_add_text(html, "</b><span>");
    svg_escape(html, name);
    strbuf_add_text(html, "</span></div>\n");
}

static void tiles(strbuf *html, const data_report *r) {
    const dataset_summary *s = &r->summary;
    const gate_report *gate = dataset_gate(r->data);
    strbuf text = {0};
    strbuf_add_text(html, "<div class=\"tiles\">\n");
    tile(html, "rows", count_text(s->counts.rows));
    tile(html, "tokens", count_text(s->counts.tokens));
    strbuf_printf(&text, "%.1f%%", 100 * s->supervised_share);
    tile(html, "supervised", strbuf_text(&text));
    tile(html, "median length", count_text(s->median));
    tile(html, "longest", count_text(s->counts.longest));
    tile(html, "cut", count_text(gate->found[GATE_CUT].rows));
    tile(html, "duplicates",
         count_text(gate->found[GATE_DUPLICATE].rows + gate->found[GATE_DUPLICATE_OUT].rows +
                    gate->found[GATE_NEAR_DUPLICATE].rows));
    strbuf_add_text(html, "</div>\n");
    strbuf_clear(&text);
    data_scripts_text(&text, dataset_scripts(r->data));
    if (text.length) {
        strbuf_add_text(html, "<p>Scripts: ");
        svg_escape(html, strbuf_text(&text));
        strbuf_add_text(html, "</p>\n");
    }
    strbuf_free(&text);
}

static void histogram(strbuf *html, const dataset_summary *s) {
    int64_t most = 1;
    double width = (double)(CHART_WIDTH - 2 * CHART_LEFT) / (double)(s->n_bins ? s->n_bins : 1);
    double height = CHART_HEIGHT - CHART_FOOT - CHART_HEAD;
    for (int32_t i = 0; i < s->n_bins; i++)
        most = s->lengths[i] > most ? s->lengths[i] : most;
    strbuf_printf(html,
                  "<h2>Rows by length, in tokens</h2>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n",
                  CHART_WIDTH, CHART_HEIGHT);
    for (int32_t i = 0; i < s->n_bins; i++) {
        double bar = height * (double)s->lengths[i] / (double)most;
        double x = CHART_LEFT + i * width, y = CHART_HEAD + height - bar;
        strbuf_printf(html,
                      "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%d to %d "
                      "tokens: %lld rows</title></rect>\n",
                      x + 1, y, width - 2, bar, (int)(i * s->bin_tokens),
                      (int)((i + 1) * s->bin_tokens - 1), (long long)s->lengths[i]);
        if (s->lengths[i])
            strbuf_printf(html, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                          x + width / 2, y - 4, count_text(s->lengths[i]));
        strbuf_printf(html, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", x,
                      CHART_HEIGHT - 14, (int)(i * s->bin_tokens));
    }
    strbuf_add_text(html, "</svg>\n");
}

static void findings(strbuf *html, const data_report *r) {
    const gate_report *gate = dataset_gate(r->data);
    strbuf_add_text(html, "<h2>What was found</h2>\n<table>\n");
    for (int i = 0; i < N_GATE_FINDINGS; i++) {
        const gate_count *count = &gate->found[i];
        if (!count->rows)
            continue;
        strbuf_printf(html, "<tr><td class=\"n\">%s</td><td>", count_text(count->rows));
        svg_escape(html, gate_name((gate_finding)i));
        strbuf_add_text(html, "</td><td class=\"quiet\">");
        int64_t shown = count->rows < GATE_SHOWN_MAX ? count->rows : GATE_SHOWN_MAX;
        for (int64_t k = 0; k < shown; k++) {
            const char *path = dataset_path(r->data, count->shown[k].file);
            strbuf_add_text(html, k ? ", " : "");
            svg_escape(html, path ? path : "");
            strbuf_printf(html, ":%lld", (long long)count->shown[k].line);
        }
        strbuf_printf(html, "%s</td></tr>\n", count->rows > shown ? ", ..." : "");
    }
    strbuf_add_text(html, "</table>\n");
}

typedef struct row_page {
    strbuf *html;
    const data_row_view *row;
    strbuf scratch;
} row_page;

/* Each token has its id on it: a pointer that rests there shows it. */
static void add_piece(void *context, int32_t t, const char *text, size_t n) {
    row_page *p = context;
    const char *tag = data_token_is_supervised(p->row, t) ? "mark" : "span";
    strbuf_printf(p->html, "<%s title=\"%d\">", tag, (int)p->row->ids[t]);
    strbuf_clear(&p->scratch);
    for (size_t i = 0; i < n; i++) /* svg_escape ends at a NUL */
        strbuf_add_char(&p->scratch, text[i] ? text[i] : ' ');
    svg_escape(p->html, strbuf_text(&p->scratch));
    strbuf_printf(p->html, "</%s>", tag);
}

static graft_status row_html(strbuf *html, const data_report *r, const data_row_view *row,
                             graft_error *err) {
    const char *path = dataset_path(r->data, row->source.file);
    row_page page = {.html = html, .row = row};
    strbuf_add_text(html, "<h2>");
    svg_escape(html, path ? path : "");
    strbuf_printf(html, ":%lld%s</h2>\n<p class=\"quiet\">%d tokens, %d supervised</p>\n",
                  (long long)row->source.line, data_answer_text(row), (int)row->n,
                  (int)row->supervised);
    strbuf_add_text(html, "<pre class=\"row\">");
    graft_status status = data_row_pieces(r, row, add_piece, &page, err);
    strbuf_add_text(html, "</pre>\n");
    strbuf_free(&page.scratch);
    return status;
}

graft_status data_report_html(strbuf *html, const data_report *r, graft_error *err) {
    graft_status status = GRAFT_OK;
    strbuf_add_text(html, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                          "<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    const char *path = dataset_path(r->data, 0);
    svg_escape(html, path ? path : "data");
    strbuf_printf(html,
                  "</title>\n<style>%s%s</style></head><body>\n<h1>What will be trained</h1>\n",
                  report_style, style);
    for (int32_t i = 0; (path = dataset_path(r->data, i)) != NULL; i++) {
        strbuf_add_text(html, i ? ", " : "<p class=\"quiet\">");
        svg_escape(html, path);
    }
    strbuf_add_text(html, "</p>\n");
    tiles(html, r);
    histogram(html, &r->summary);
    findings(html, r);
    if (r->end > r->first)
        strbuf_add_text(html, "<p>Marked text is supervised. A token shows its id under the "
                              "pointer.</p>\n");
    for (int64_t i = r->first; i < r->end && status == GRAFT_OK; i++) {
        data_row_view row = dataset_row(r->data, i);
        status = row_html(html, r, &row, err);
    }
    strbuf_add_text(html, "</body></html>\n");
    return status;
}
