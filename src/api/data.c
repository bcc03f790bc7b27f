/* graft_data: what will be trained, row by row, and a summary. */
#include "api/data_report.h"

#include "base/atomic_file.h"

#include <string.h>

/* ---- Rows and texts ---- */

graft_status data_row_pieces(const data_report *r, const data_row_view *row, data_piece *take,
                             void *context, graft_error *err) {
    decode_stream *stream = NULL;
    strbuf piece = {0};
    graft_status status = decode_stream_create(&stream, r->tokenizer, false, err);
    for (int32_t t = 0; t < row->n && status == GRAFT_OK; t++) {
        strbuf_clear(&piece);
        status = decode_stream_add(stream, &piece, row->ids[t], err);
        if (status == GRAFT_OK && t + 1 == row->n)
            status = decode_stream_finish(stream, &piece, err);
        if (status == GRAFT_OK && piece.failed)
            status = error_memory(err, piece.length, "a row's text");
        if (status == GRAFT_OK)
            take(context, t, strbuf_text(&piece), piece.length);
    }
    strbuf_free(&piece);
    decode_stream_destroy(&stream);
    return status;
}

const char *data_answer_text(const data_row_view *row) {
    return row->source.answer == ANSWER_CHOSEN     ? " (chosen)"
           : row->source.answer == ANSWER_REJECTED ? " (rejected)"
                                                   : "";
}

void data_scripts_text(strbuf *out, const script_counts *counts) {
    bool is_first = true;
    for (size_t i = 0; i < N_SCRIPTS; i++) {
        double share = counts->total ? (double)counts->letters[i] / (double)counts->total : 0;
        if (share < 0.0005)
            continue;
        strbuf_printf(out, "%s%s %.1f%%", is_first ? "" : ", ", script_name(i), 100 * share);
        is_first = false;
    }
}

/* ---- JSON ---- */

static json_t *findings_json(const gate_report *gate) {
    json_t *object = json_object();
    for (int i = 0; i < N_GATE_FINDINGS; i++)
        if (gate->found[i].rows)
            report_set(&object, gate_name((gate_finding)i),
                       json_integer((json_int_t)gate->found[i].rows));
    return object;
}

static json_t *scripts_json(const script_counts *counts) {
    json_t *object = json_object();
    for (size_t i = 0; i < N_SCRIPTS; i++)
        if (counts->letters[i])
            report_set(&object, script_name(i), json_integer((json_int_t)counts->letters[i]));
    return object;
}

static json_t *summary_json(const data_report *r) {
    const dataset_summary *s = &r->summary;
    const gate_report *gate = dataset_gate(r->data);
    json_t *object = json_object(), *lengths = json_array();
    for (int32_t i = 0; i < s->n_bins; i++)
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
    report_set(&object, "bin_tokens", json_integer(s->bin_tokens));
    report_set(&object, "rows_by_bin_of_length", lengths);
    report_set(&object, "letters_by_script", scripts_json(dataset_scripts(r->data)));
    report_set(&object, "findings", findings_json(gate));
    return object;
}

typedef struct row_document {
    const data_report *report;
    const data_row_view *row;
    json_t *tokens;
    strbuf text;
} row_document;

static void add_token(void *context, int32_t t, const char *text, size_t n) {
    row_document *d = context;
    json_t *object = json_object();
    const char *stored = tokenizer_token_text(d->report->tokenizer, d->row->ids[t]);
    report_set(&object, "id", json_integer(d->row->ids[t]));
    report_set(&object, "token", stored ? report_string(stored, strlen(stored)) : json_null());
    report_set(&object, "text", report_string(text, n));
    report_set(&object, "supervised", json_boolean(data_token_is_supervised(d->row, t)));
    report_add(&d->tokens, object);
    strbuf_add(&d->text, text, n);
}

static graft_status row_json(json_t **out, const data_report *r, const data_row_view *row,
                             graft_error *err) {
    row_document d = {.report = r, .row = row, .tokens = json_array()};
    graft_status status = data_row_pieces(r, row, add_token, &d, err);
    const char *path = dataset_path(r->data, row->source.file);
    *out = json_object();
    report_set(out, "file", path ? report_string(path, strlen(path)) : json_null());
    report_set(out, "line", json_integer((json_int_t)row->source.line));
    if (row->source.answer != ANSWER_PLAIN)
        report_set(out, "answer",
                   json_string(row->source.answer == ANSWER_CHOSEN ? "chosen" : "rejected"));
    report_set(out, "weight", report_number((double)row->weight));
    report_set(out, "task_id", json_integer(row->task));
    report_set(out, "tokens_count", json_integer(row->n));
    report_set(out, "supervised_count", json_integer(row->supervised));
    report_set(out, "text",
               d.text.failed ? NULL : report_string(strbuf_text(&d.text), d.text.length));
    report_set(out, "tokens", d.tokens);
    strbuf_free(&d.text);
    return status;
}

graft_status data_report_json(json_t **out, const data_report *r, graft_error *err) {
    json_t *rows = json_array();
    graft_status status = GRAFT_OK;
    for (int64_t i = r->first; i < r->end && status == GRAFT_OK; i++) {
        data_row_view row = dataset_row(r->data, i);
        json_t *one = NULL;
        status = row_json(&one, r, &row, err);
        report_add(&rows, one);
    }
    *out = json_object();
    report_set(out, "summary", summary_json(r));
    report_set(out, "rows", rows);
    if (status != GRAFT_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return status;
}

/* ---- The verb ---- */

static void choose_rows(data_report *r, const graft_recipe *recipe) {
    int64_t n = dataset_rows(r->data), first = recipe_integer(recipe, "first_row") - 1;
    int64_t count = recipe_integer(recipe, "rows");
    r->first = first < n ? first : n;
    r->end = count < n - r->first ? r->first + count : n;
}

static graft_status write_page(const data_report *r, const char *path, graft_error *err) {
    strbuf html = {0};
    graft_status status = data_report_html(&html, r, err);
    if (status == GRAFT_OK && html.failed)
        status = error_memory(err, html.length, "the page");
    if (status == GRAFT_OK)
        status = file_write_atomic(path, strbuf_text(&html), html.length, err);
    strbuf_free(&html);
    return status;
}

static graft_status write_report(const graft_sink *sink, const data_report *r, graft_format format,
                                 graft_error *err) {
    graft_status status;
    if (format.json) {
        json_t *document = NULL;
        status = data_report_json(&document, r, err);
        return status == GRAFT_OK ? report_finish_json(sink, document, err) : status;
    }
    strbuf text = {0};
    status = data_report_text(&text, r, format, err);
    if (status == GRAFT_OK)
        return report_finish(sink, &text, err);
    strbuf_free(&text);
    return status;
}

graft_status graft_data(const graft_sink *sink, graft_format format, const graft_recipe *recipe,
                        const graft_observer *observer, graft_error *err) {
    opened o = opened_begin(recipe, observer);
    dataset *data = NULL;
    data_report r = {0};
    const char *page = recipe_text(recipe, "html");
    graft_status status = open_spec(&o, err);
    if (status == GRAFT_OK)
        status = open_text(&o, err);
    if (status == GRAFT_OK)
        status = open_data(&data, &o, "data", false, err);
    if (status == GRAFT_OK)
        status = dataset_summarise(&r.summary, data, err);
    if (status == GRAFT_OK) {
        r.data = data;
        r.tokenizer = o.tokenizer;
        choose_rows(&r, recipe);
    }
    if (status == GRAFT_OK && page)
        status = write_page(&r, page, err);
    if (status == GRAFT_OK)
        status = write_report(sink, &r, format, err);
    dataset_close(&data);
    opened_close(&o);
    return status;
}
