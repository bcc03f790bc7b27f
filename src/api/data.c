/* graft_data: what will be trained, row by row, and a summary. */
#include "api/open.h"
#include "api/report.h"

#include "train/data/dataset_summary.h"

#include <math.h>
#include <string.h>

/* Is token t of the row one that the model is trained to say? The token before it predicts it. */
static bool is_supervised(const data_row_view *row, int32_t t) {
    return t > 0 && row->targets[t - 1] != NO_TARGET;
}

/* ---- Summary ---- */

static json_t *findings_json(const gate_report *gate) {
    json_t *object = json_object();
    for (int i = 0; i < N_GATE_FINDINGS; i++)
        if (gate->found[i].rows)
            report_set(&object, gate_name((gate_finding)i),
                       json_integer((json_int_t)gate->found[i].rows));
    return object;
}

static json_t *summary_json(const dataset_summary *s, const gate_report *gate) {
    json_t *object = json_object(), *lengths = json_array();
    for (int i = 0; i < LENGTH_BUCKETS; i++)
        report_add(&lengths, json_integer((json_int_t)s->lengths[i]));
    report_set(&object, "rows_read", json_integer((json_int_t)gate->rows_read));
    report_set(&object, "rows", json_integer((json_int_t)s->counts.rows));
    report_set(&object, "tokens", json_integer((json_int_t)s->counts.tokens));
    report_set(&object, "supervised_tokens", json_integer((json_int_t)s->counts.supervised));
    report_set(&object, "supervised_share", report_number(s->supervised_share));
    report_set(&object, "shortest", json_integer(s->shortest));
    report_set(&object, "median", json_integer(s->median));
    report_set(&object, "percentile_90", json_integer(s->percentile_90));
    report_set(&object, "percentile_99", json_integer(s->percentile_99));
    report_set(&object, "longest", json_integer(s->counts.longest));
    report_set(&object, "rows_by_power_of_two_of_length", lengths);
    report_set(&object, "findings", findings_json(gate));
    return object;
}

static void summary_text(strbuf *text, const dataset_summary *s) {
    report_line(text, "rows", "%s", count_text(s->counts.rows));
    report_line(text, "tokens", "%s, of them supervised %s (%.1f%%)", count_text(s->counts.tokens),
                count_text(s->counts.supervised), 100 * s->supervised_share);
    report_line(text, "row length", "%d to %d tokens, median %d, 90%% below %d, 99%% below %d",
                (int)s->shortest, (int)s->counts.longest, (int)s->median, (int)s->percentile_90,
                (int)s->percentile_99);
    int64_t most = 1;
    for (int i = 0; i < LENGTH_BUCKETS; i++)
        most = s->lengths[i] > most ? s->lengths[i] : most;
    for (int i = 0; i < LENGTH_BUCKETS; i++) {
        if (!s->lengths[i])
            continue;
        strbuf_printf(text, "  %8d-%-8d %8s ", 1 << i, (2 << i) - 1, count_text(s->lengths[i]));
        for (int64_t bar = 0; bar < (s->lengths[i] * 40 + most - 1) / most; bar++)
            strbuf_add_text(text, "█");
        strbuf_add_char(text, '\n');
    }
}

/* ---- Rows ---- */

/* The text that token t adds, or all of what is left after the last one, through the streaming
 * decoder. */
static graft_status next_piece(strbuf *piece, decode_stream *stream, const data_row_view *row,
                               int32_t t, graft_error *err) {
    strbuf_clear(piece);
    graft_status status = decode_stream_add(stream, piece, row->ids[t], err);
    if (status == GRAFT_OK && t + 1 == row->n)
        status = decode_stream_finish(stream, piece, err);
    if (status == GRAFT_OK && piece->failed)
        status = error_memory(err, piece->length, "a row's text");
    return status;
}

static json_t *token_json(const tokenizer *tok, const data_row_view *row, int32_t t,
                          const strbuf *piece) {
    json_t *object = json_object();
    const char *stored = tokenizer_token_text(tok, row->ids[t]);
    report_set(&object, "id", json_integer(row->ids[t]));
    report_set(&object, "token", stored ? report_string(stored, strlen(stored)) : json_null());
    report_set(&object, "text", report_string(strbuf_text(piece), piece->length));
    report_set(&object, "supervised", json_boolean(is_supervised(row, t)));
    return object;
}

static graft_status row_json(json_t **out, const dataset *data, const data_row_view *row,
                             const tokenizer *tok, graft_error *err) {
    decode_stream *stream = NULL;
    strbuf piece = {0}, whole = {0};
    json_t *tokens = json_array();
    graft_status status = decode_stream_create(&stream, tok, false, err);
    for (int32_t t = 0; t < row->n && status == GRAFT_OK; t++) {
        status = next_piece(&piece, stream, row, t, err);
        strbuf_add(&whole, strbuf_text(&piece), piece.length);
        report_add(&tokens, token_json(tok, row, t, &piece));
    }
    const char *path = dataset_path(data, row->source.file);
    *out = json_object();
    report_set(out, "file", path ? report_string(path, strlen(path)) : json_null());
    report_set(out, "line", json_integer((json_int_t)row->source.line));
    report_set(out, "tokens_count", json_integer(row->n));
    report_set(out, "supervised_count", json_integer(row->supervised));
    report_set(out, "text", whole.failed ? NULL : report_string(strbuf_text(&whole), whole.length));
    report_set(out, "tokens", tokens);
    strbuf_free(&whole);
    strbuf_free(&piece);
    decode_stream_destroy(&stream);
    return status;
}

/* Supervised text is green on a terminal and stands between ⟦ and ⟧ elsewhere. */
static graft_status row_text(strbuf *text, const dataset *data, const data_row_view *row,
                             const tokenizer *tok, bool is_terminal, graft_error *err) {
    const char *on = is_terminal ? "\033[32m" : "⟦", *off = is_terminal ? "\033[0m" : "⟧";
    const char *path = dataset_path(data, row->source.file);
    strbuf_printf(text, "\n%s:%lld  %d tokens, %d supervised\n", path ? path : "",
                  (long long)row->source.line, (int)row->n, (int)row->supervised);
    decode_stream *stream = NULL;
    strbuf piece = {0};
    bool was = false;
    graft_status status = decode_stream_create(&stream, tok, false, err);
    for (int32_t t = 0; t < row->n && status == GRAFT_OK; t++) {
        bool is = is_supervised(row, t);
        if (is != was)
            strbuf_add_text(text, is ? on : off);
        was = is;
        status = next_piece(&piece, stream, row, t, err);
        strbuf_add(text, strbuf_text(&piece), piece.length);
    }
    strbuf_printf(text, "%s\n  ids:", was ? off : "");
    for (int32_t t = 0; t < row->n; t++)
        strbuf_printf(text, is_supervised(row, t) ? " %d*" : " %d", (int)row->ids[t]);
    strbuf_add_text(text, "\n");
    strbuf_free(&piece);
    decode_stream_destroy(&stream);
    return status;
}

typedef struct row_range {
    int64_t first, end;
} row_range;

static row_range shown_rows(const graft_recipe *recipe, const dataset *data) {
    int64_t n = dataset_rows(data), first = recipe_integer(recipe, "first_row") - 1;
    int64_t count = recipe_integer(recipe, "rows");
    first = first < n ? first : n;
    return (row_range){first, count < n - first ? first + count : n};
}

static graft_status write_json(const graft_sink *sink, const opened *o, const dataset *data,
                               const dataset_summary *summary, graft_error *err) {
    row_range range = shown_rows(o->recipe, data);
    json_t *rows = json_array();
    graft_status status = GRAFT_OK;
    for (int64_t i = range.first; i < range.end && status == GRAFT_OK; i++) {
        data_row_view row = dataset_row(data, i);
        json_t *one = NULL;
        status = row_json(&one, data, &row, o->tokenizer, err);
        report_add(&rows, one);
    }
    json_t *document = json_object();
    report_set(&document, "summary", summary_json(summary, dataset_gate(data)));
    report_set(&document, "rows", rows);
    if (status != GRAFT_OK) {
        json_decref(document);
        return status;
    }
    return report_finish_json(sink, document, err);
}

static graft_status write_text(const graft_sink *sink, const opened *o, graft_format format,
                               const dataset *data, const dataset_summary *summary,
                               graft_error *err) {
    row_range range = shown_rows(o->recipe, data);
    strbuf text = {0};
    summary_text(&text, summary);
    graft_status status = GRAFT_OK;
    for (int64_t i = range.first; i < range.end && status == GRAFT_OK; i++) {
        data_row_view row = dataset_row(data, i);
        status = row_text(&text, data, &row, o->tokenizer, format.is_terminal, err);
    }
    if (range.end > range.first)
        strbuf_printf(&text, "\n%s; a * marks supervised ids.\n",
                      format.is_terminal ? "Green is supervised"
                                         : "Text between ⟦ and ⟧ is supervised");
    if (status == GRAFT_OK)
        return report_finish(sink, &text, err);
    strbuf_free(&text);
    return status;
}

graft_status graft_data(const graft_sink *sink, graft_format format, const graft_recipe *recipe,
                        const graft_observer *observer, graft_error *err) {
    opened o = opened_begin(recipe, observer);
    dataset *data = NULL;
    dataset_summary summary;
    graft_status status = open_spec(&o, err);
    if (status == GRAFT_OK)
        status = open_text(&o, err);
    if (status == GRAFT_OK)
        status = open_data(&data, &o, "data", false, err);
    if (status == GRAFT_OK)
        status = dataset_summarise(&summary, data, err);
    if (status == GRAFT_OK)
        status = format.json ? write_json(sink, &o, data, &summary, err)
                             : write_text(sink, &o, format, data, &summary, err);
    dataset_close(&data);
    opened_close(&o);
    return status;
}
