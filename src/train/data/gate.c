#include "train/data/gate.h"

#include <stdio.h>
#include <string.h>

typedef struct finding_text {
    const char *name;
    const char *what; /* after "N of M rows " */
    const char *kept; /* the same when nothing was left out; NULL: as `what` */
    message_level level;
} finding_text;

static const finding_text texts[N_GATE_FINDINGS] = {
    [GATE_EMPTY] = {"empty", "have no token and are left out", NULL, MESSAGE_WARNING},
    [GATE_ONE_TOKEN] = {"one_token", "have one token, which predicts nothing, and are left out",
                        "have one token, which predicts nothing", MESSAGE_WARNING},
    [GATE_UNSUPERVISED] = {"no_supervised_token",
                           "have no supervised token within the length limit and are left out",
                           "have no supervised token within the length limit", MESSAGE_WARNING},
    [GATE_CUT] = {"cut",
                  "are longer than max_length and were cut at the end; a larger --max-length keeps "
                  "them whole",
                  NULL, MESSAGE_WARNING},
    [GATE_DOUBLED_BOS] =
        {"doubled_bos",
         "began with two BOS tokens (one in the text, one from the tokenizer); one was dropped",
         NULL, MESSAGE_INFO},
    [GATE_DOUBLED_BOS_KEPT] = {"doubled_bos_kept",
                               "are pre-tokenised and begin with two BOS tokens; taken as they are",
                               NULL, MESSAGE_WARNING},
    [GATE_CONTROL_TEXT] = {"control_text",
                           "hold the text of a control token inside a message; it stays plain text",
                           NULL, MESSAGE_WARNING},
    [GATE_NO_STOP] = {"no_end_of_turn",
                      "have a last supervised turn that ends in no control token: the model will "
                      "not learn where to stop. "
                      "Look at the chat template's {% generation %} blocks",
                      NULL, MESSAGE_WARNING},
    [GATE_EOS_ADDED] =
        {"eos_added",
         "end in no end-of-turn token in the chat template's words; EOS was added, supervised",
         NULL, MESSAGE_INFO},
    [GATE_NO_EOS] =
        {"no_eos",
         "have a completion that cannot end in EOS, because the tokenizer names no eos_token", NULL,
         MESSAGE_WARNING},
    [GATE_EMPTY_ANSWER] = {"empty_completion", "have an empty completion: only its end is trained",
                           NULL, MESSAGE_WARNING},
    [GATE_TOOLS_NOT_SHOWN] =
        {"tools_not_shown",
         "have tools or tool calls, which the chat template does not print; calls are given as "
         "their JSON, tool lists are lost",
         NULL, MESSAGE_WARNING},
    [GATE_EXTRA_COLUMNS] = {"extra_columns", "have columns that are not used", NULL, MESSAGE_INFO},
    [GATE_REJECTED] = {"rejected", "are judged bad (label false) and are left out", NULL,
                       MESSAGE_INFO},
    [GATE_WEIGHT_0] = {"weight_0", "have weight 0 and are left out", "have weight 0", MESSAGE_INFO},
    [GATE_DUPLICATE] = {"duplicate",
                        "are the same as an earlier row; --dedup exact leaves them out", NULL,
                        MESSAGE_INFO},
    [GATE_DUPLICATE_OUT] = {"duplicate_left_out",
                            "are the same as an earlier row and are left out (dedup)", NULL,
                            MESSAGE_INFO},
    [GATE_NEAR_DUPLICATE] = {"near_duplicate_left_out",
                             "are nearly the same as an earlier row and are left out (dedup near)",
                             NULL, MESSAGE_INFO},
};

void gate_add(gate_report *report, gate_finding finding, data_source source) {
    gate_count *count = &report->found[finding];
    if (count->rows < GATE_SHOWN_MAX)
        count->shown[count->rows] = source;
    count->rows++;
}

void gate_merge(gate_report *into, const gate_report *seen) {
    into->rows_read = seen->rows_read;
    memcpy(into->extra_columns, seen->extra_columns, sizeof into->extra_columns);
    for (int i = 0; i < N_GATE_FINDINGS; i++)
        if (seen->found[i].rows)
            into->found[i] = seen->found[i];
}

static bool column_is_listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += n) {
        bool begins = at == list || at[-1] == ' ';
        if (begins && (at[n] == '\0' || at[n] == ','))
            return true;
    }
    return false;
}

void gate_add_column(gate_report *report, const char *name) {
    char *list = report->extra_columns;
    size_t used = strlen(list), n = strlen(name);
    if (!n || column_is_listed(list, name) || used + n + 3 > sizeof report->extra_columns)
        return;
    snprintf(list + used, sizeof report->extra_columns - used, "%s%s", used ? ", " : "", name);
}

const char *gate_name(gate_finding finding) {
    return texts[finding].name;
}

bool gate_is_warning(gate_finding finding) {
    return texts[finding].level == MESSAGE_WARNING;
}

void gate_add_places(strbuf *out, const gate_count *count, const char *const *paths) {
    int64_t shown = count->rows < GATE_SHOWN_MAX ? count->rows : GATE_SHOWN_MAX;
    int32_t file = -1;
    for (int64_t i = 0; i < shown; i++) {
        const data_source *source = &count->shown[i];
        strbuf_add_text(out, i ? ", " : "");
        if (source->file != file)
            strbuf_add_text(out, paths[source->file]);
        strbuf_printf(out, ":%lld", (long long)source->line);
        file = source->file;
    }
    if (count->rows > shown)
        strbuf_add_text(out, ", ...");
}

void gate_tell(const gate_report *report, const char *const *paths, bool left_out,
               const message_sink *sink) {
    for (int i = 0; i < N_GATE_FINDINGS; i++) {
        const gate_count *count = &report->found[i];
        if (!count->rows)
            continue;
        const finding_text *text = &texts[i];
        strbuf places = {0};
        gate_add_places(&places, count, paths);
        bool lists_columns = i == GATE_EXTRA_COLUMNS;
        message_emit(sink, text->level, "%lld of %lld rows %s%s%s (%s)", (long long)count->rows,
                     (long long)report->rows_read,
                     !left_out && text->kept ? text->kept : text->what, lists_columns ? ": " : "",
                     lists_columns ? report->extra_columns : "", strbuf_text(&places));
        strbuf_free(&places);
    }
}
