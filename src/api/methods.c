/* graft_methods: the adapter methods there are. */
#include "adapter/adapter.h"
#include "api/report.h"

static json_t *method_json(const adapter_method *m) {
    json_t *object = json_object();
    report_set(&object, "name", json_string(m->name));
    report_set(&object, "peft_type", json_string(m->peft_type));
    report_set(&object, "summary", json_string(m->summary));
    return object;
}

graft_status graft_methods(const graft_sink *sink, graft_format format, graft_error *err) {
    json_t *list = json_array();
    strbuf text = {0};
    for (size_t i = 0; adapter_method_at(i); i++) {
        report_add(&list, method_json(adapter_method_at(i)));
        report_line(&text, adapter_method_at(i)->name, "%s", adapter_method_at(i)->summary);
    }
    if (format.json) {
        strbuf_free(&text);
        return report_finish_json(sink, list, err);
    }
    json_decref(list);
    return report_finish(sink, &text, err);
}
