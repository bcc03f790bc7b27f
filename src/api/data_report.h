/* What graft_data shows, in three forms. */
#ifndef GRAFT_API_DATA_REPORT_H
#define GRAFT_API_DATA_REPORT_H

#include "api/open.h"
#include "api/report.h"
#include "train/data/dataset_summary.h"
#include "train/data/rows.h"

typedef struct data_report {
    const dataset *data;
    const tokenizer *tokenizer;
    dataset_summary summary;
    int64_t first, end; /* rows shown */
} data_report;

graft_status data_report_json(json_t **, const data_report *, graft_error *);
graft_status data_report_text(strbuf *, const data_report *, graft_format, graft_error *);
/* One page that needs nothing else. */
graft_status data_report_html(strbuf *, const data_report *, graft_error *);

/* Calls take with the text that each token adds, in order; what a decoder holds back comes with the
 * last. */
typedef void data_piece(void *context, int32_t t, const char *text, size_t n);
graft_status data_row_pieces(const data_report *, const data_row_view *, data_piece *take,
                             void *context, graft_error *);

/* Is token t one that the model is trained to say? The token before it predicts it. */
static inline bool data_token_is_supervised(const data_row_view *row, int32_t t) {
    return t > 0 && row->targets[t - 1] != NO_TARGET;
}

/* " (chosen)", " (rejected)", or "" of a row that says nothing of its answer. */
const char *data_answer_text(const data_row_view *);
/* "Latin 97.1%, Han 2.9%"; "" without letters. */
void data_scripts_text(strbuf *, const script_counts *);

#endif
