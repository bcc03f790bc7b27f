/* graft_methods: the adapter methods there are, and what each trains of a model. */
#include "adapter/adapter.h"
#include "api/open.h"
#include "api/report.h"

#include <stdio.h>

/* Parameters that the method trains with its default settings; -1: it has none for this model, and
 * err says why. */
static int64_t trained_of(const adapter_method *m, const model_spec *spec, graft_error *err) {
    adapter_config config = {0};
    adapter *a = NULL;
    int64_t trained = -1;
    graft_status status = adapter_config_default(&config, m->name, err);
    if (status == GRAFT_OK)
        status = adapter_create(&a, &config, spec, 0, NULL, err);
    if (status == GRAFT_OK)
        trained = adapter_trained_count(a);
    adapter_destroy(&a);
    adapter_config_free(&config);
    return trained;
}

static json_t *method_json(const adapter_method *m) {
    json_t *object = json_object();
    report_set(&object, "name", json_string(m->name));
    report_set(&object, "peft_type", m->keys ? json_string(m->peft_type) : json_null());
    report_set(&object, "family", json_string(m->family));
    report_set(&object, "summary", json_string(m->summary));
    report_set(&object, "merges", json_boolean(m->merge != NULL));
    report_set(&object, "quantized_base", json_boolean(!m->needs_plain_base));
    report_set(&object, "paper", m->paper ? json_string(m->paper) : json_null());
    return object;
}

static void add_method(json_t **list, strbuf *text, const adapter_method *m,
                       const model_spec *spec) {
    graft_error err = {0};
    char trained[64] = "";
    json_t *object = method_json(m);
    if (spec) {
        int64_t count = trained_of(m, spec, &err);
        double share = 100.0 * (double)count / (double)model_parameters(spec);
        report_set(&object, "trained", count >= 0 ? json_integer(count) : json_null());
        if (count < 0)
            report_set(&object, "needs", json_string(err.message));
        if (count >= 0)
            snprintf(trained, sizeof trained, "%14s  %7.3f%%  ", count_text(count), share);
        else
            snprintf(trained, sizeof trained, "%14s  %8s  ", "needs settings", "");
    }
    report_line(text, m->name, "%s%-7s %s%s%s%s", trained, m->merge ? "merges" : "", m->summary,
                m->paper ? " [" : "", m->paper ? m->paper : "", m->paper ? "]" : "");
    report_add(list, object);
}

graft_status graft_methods(const graft_sink *sink, graft_format format, const graft_recipe *recipe,
                           const graft_observer *observer, graft_error *err) {
    json_t *list = json_array();
    strbuf text = {0};
    opened o = opened_begin(recipe, observer);
    bool has_model = recipe && recipe_text(recipe, "model");
    graft_status status = has_model ? open_spec(&o, err) : GRAFT_OK;
    for (size_t i = 0; adapter_method_at(i) && status == GRAFT_OK; i++)
        add_method(&list, &text, adapter_method_at(i), has_model ? &o.spec : NULL);
    if (status == GRAFT_OK && format.json)
        status = report_finish_json(sink, json_incref(list), err);
    else if (status == GRAFT_OK)
        status = report_finish(sink, &text, err);
    if (status != GRAFT_OK || format.json)
        strbuf_free(&text);
    json_decref(list);
    opened_close(&o);
    return status;
}
