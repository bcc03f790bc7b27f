/* graft_data for people, on a terminal and in a file. */
#include "api/data_report.h"

enum { BAR_COLUMNS_MAX = 60, LABEL_COLUMNS = 32, COLUMNS_DEFAULT = 80 };

static void summary_text(strbuf *text, const data_report *r) {
    const dataset_summary *s = &r->summary;
    const gate_report *gate = dataset_gate(r->data);
    int64_t duplicates = gate->found[GATE_DUPLICATE].rows + gate->found[GATE_DUPLICATE_OUT].rows;
    int64_t near = gate->found[GATE_NEAR_DUPLICATE].rows;
    strbuf scripts = {0};
    data_scripts_text(&scripts, dataset_scripts(r->data));
    report_line(text, "rows", "%s, from %s read", count_text(s->counts.rows),
                count_text(gate->rows_read));
    report_line(text, "tokens", "%s, of them supervised %s (%.1f%%)", count_text(s->counts.tokens),
                count_text(s->counts.supervised), 100 * s->supervised_share);
    report_line(text, "row length", "%d to %d tokens, median %d, 90%% up to %d, 99%% up to %d",
                (int)s->shortest, (int)s->counts.longest, (int)s->median, (int)s->percentile_90,
                (int)s->percentile_99);
    report_line(text, "cut", "%s", count_text(gate->found[GATE_CUT].rows));
    report_line(text, "duplicates", "%s%s%s%s", count_text(duplicates), near ? ", and " : "",
                near ? count_text(near) : "", near ? " nearly" : "");
    if (scripts.length)
        report_line(text, "scripts", "%s", strbuf_text(&scripts));
    strbuf_free(&scripts);
}

static void histogram_text(strbuf *text, const dataset_summary *s, int columns) {
    int64_t most = 1;
    int width = (columns > 0 ? columns : COLUMNS_DEFAULT) - LABEL_COLUMNS;
    width = width < 10 ? 10 : width > BAR_COLUMNS_MAX ? BAR_COLUMNS_MAX : width;
    for (int32_t i = 0; i < s->n_bins; i++)
        most = s->lengths[i] > most ? s->lengths[i] : most;
    for (int32_t i = s->counts.rows ? s->shortest / s->bin_tokens : 0; i < s->n_bins; i++) {
        int64_t eighths = (s->lengths[i] * width * 8 + most - 1) / most;
        strbuf_printf(text, "  %8d-%-8d %8s ", (int)(i * s->bin_tokens),
                      (int)((i + 1) * s->bin_tokens - 1), count_text(s->lengths[i]));
        for (; eighths >= 8; eighths -= 8)
            strbuf_add_text(text, "█");
        if (eighths > 0) /* U+2588 is the whole block, U+258F an eighth */
            strbuf_printf(text, "\xE2\x96%c", (char)(0x90 - eighths));
        strbuf_add_char(text, '\n');
    }
}

typedef struct row_marks {
    strbuf *text;
    const data_row_view *row;
    const char *on, *off;
    bool is_terminal, was;
} row_marks;

/* What a terminal would obey is shown instead. */
static void add_visible(strbuf *out, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F)
            strbuf_printf(out, "\\x%02x", (unsigned)c);
        else
            strbuf_add_char(out, text[i]);
    }
}

static void mark_piece(void *context, int32_t t, const char *piece, size_t n) {
    row_marks *m = context;
    bool is = data_token_is_supervised(m->row, t);
    if (is != m->was)
        strbuf_add_text(m->text, is ? m->on : m->off);
    m->was = is;
    if (m->is_terminal)
        add_visible(m->text, piece, n);
    else
        strbuf_add(m->text, piece, n);
}

/* Supervised text is green on a terminal and stands between ⟦ and ⟧ elsewhere. */
static graft_status row_text(strbuf *text, const data_report *r, const data_row_view *row,
                             bool is_terminal, graft_error *err) {
    row_marks marks = {.text = text,
                       .row = row,
                       .on = is_terminal ? "\033[32m" : "⟦",
                       .off = is_terminal ? "\033[0m" : "⟧",
                       .is_terminal = is_terminal};
    const char *path = dataset_path(r->data, row->source.file);
    strbuf_printf(text, "\n%s:%lld%s  %d tokens, %d supervised", path ? path : "",
                  (long long)row->source.line, data_answer_text(row), (int)row->n,
                  (int)row->supervised);
    if (row->weight < 1 || row->weight > 1)
        strbuf_printf(text, ", weight %g", (double)row->weight);
    if (row->task)
        strbuf_printf(text, ", task %d", (int)row->task);
    strbuf_add_char(text, '\n');
    graft_status status = data_row_pieces(r, row, mark_piece, &marks, err);
    strbuf_printf(text, "%s\n  ids:", marks.was ? marks.off : "");
    for (int32_t t = 0; t < row->n; t++)
        strbuf_printf(text, data_token_is_supervised(row, t) ? " %d*" : " %d", (int)row->ids[t]);
    strbuf_add_text(text, "\n");
    return status;
}

graft_status data_report_text(strbuf *text, const data_report *r, graft_format format,
                              graft_error *err) {
    graft_status status = GRAFT_OK;
    summary_text(text, r);
    histogram_text(text, &r->summary, format.columns);
    for (int64_t i = r->first; i < r->end && status == GRAFT_OK; i++) {
        data_row_view row = dataset_row(r->data, i);
        status = row_text(text, r, &row, format.is_terminal, err);
    }
    if (r->end > r->first)
        strbuf_printf(text, "\n%s; a * marks supervised ids.\n",
                      format.is_terminal ? "Green is supervised"
                                         : "Text between ⟦ and ⟧ is supervised");
    return status;
}
