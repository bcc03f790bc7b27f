/* What a finished run leaves in its output folder. Everything is written into a folder beside first
 * and renamed file by file when all of it is there: a full disk publishes nothing. */
#include "train/run.h"

#include "adapter/model_card.h"
#include "base/atomic_file.h"
#include "train/folder.h"
#include "train/optimizer.h"
#include "train/optimizer_kind.h"
#include "train/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char ASIDE[] = ".publish.tmp";

static graft_status write_report(const run *r, const train_result *result, const char *folder,
                                 graft_error *err) {
    strbuf html = {0};
    const report_source source = {
        .result = result,
        .config = r->config,
        .history = &r->log.history,
        .method = r->in->adapter->method->name,
        .total_steps = r->count.total,
    };
    graft_status status = report_write(&html, &source, err);
    if (status == GRAFT_OK)
        status = folder_write(folder, "report.html", html.data, html.length, err);
    strbuf_free(&html);
    return status;
}

enum { DATA_FILES_SHOWN = 64 };

static graft_status write_card(const run *r, const train_result *result, const char *folder,
                               graft_error *err) {
    const train_config *c = r->config;
    const run_progress *done = &r->progress;
    const char *paths[DATA_FILES_SHOWN];
    size_t n_paths = 0;
    while (n_paths < DATA_FILES_SHOWN && run_data_path(r, (int32_t)n_paths)) {
        paths[n_paths] = run_data_path(r, (int32_t)n_paths);
        n_paths++;
    }
    const model_card card = {
        .base_name = c->base_name,
        .data = paths,
        .n_data = n_paths,
        .rows = r->order ? done->cursor.epoch * r->count.rows + done->cursor.index
                         : done->step * r->count.rows_per_step,
        .supervised_tokens = done->supervised_tokens,
        .steps = done->step,
        .epochs = run_epochs(r),
        .learning_rate = c->learning_rate,
        .schedule = schedule_name(c->schedule),
        .optimizer = optimizer_of(c)->name,
        .rows_per_step = r->count.rows_per_step,
        .max_length = run_longest_row(r),
        .seed = c->seed,
        .first_loss = result->first_loss,
        .last_loss = result->last_loss,
        .eval_loss = result->eval_loss,
    };
    return model_card_write(&card, r->in->adapter, folder, err);
}

static graft_status write_all(const run *r, const train_result *result, const char *folder,
                              graft_error *err) {
    const train_config *c = r->config;
    graft_status status =
        adapter_save(r->in->adapter, r->in->dev, r->in->weights, folder, c->base_name, err);
    if (status == GRAFT_OK)
        status = write_card(r, result, folder, err);
    if (status == GRAFT_OK)
        status = write_report(r, result, folder, err);
    return status;
}

static int is_file(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static graft_status move_up(const char *from, const char *to, const char *name, graft_error *err) {
    graft_status status = GRAFT_OK;
    char *old = path_join(from, name), *new = path_join(to, name);
    if (!old || !new)
        status = error_memory(err, strlen(from), "a file name");
    else if (rename(old, new) != 0)
        status = error_set(err, GRAFT_E_IO, "%s: cannot be put in place: %s", new, strerror(errno));
    free(old);
    free(new);
    return status;
}

static graft_status publish_folder(const char *from, const char *to, graft_error *err) {
    folder_list list;
    graft_status status = folder_list_read(&list, from, is_file, err);
    for (int i = 0; i < list.n && status == GRAFT_OK; i++)
        status = move_up(from, to, list.entries[i]->d_name, err);
    folder_list_free(&list);
    return status == GRAFT_OK ? folder_sync(to, err) : status;
}

/* Nothing that is not a number may leave this program. */
static graft_status check_values(const run *r, graft_error *err) {
    const char *key = optimizer_bad_value(r->in->adapter, r->in->dev);
    if (!key)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_NUMERIC,
                     "%s holds values that are not finite: nothing was published; last good "
                     "checkpoint: %s",
                     key, r->saved_path ? r->saved_path : "none");
}

graft_status run_publish(run *r, const train_result *result, graft_error *err) {
    const char *output_dir = r->config->output_dir;
    graft_status status = check_values(r, err);
    if (status == GRAFT_OK)
        status = safetensors_verify_unchanged(weight_source_files(r->in->weights), err);
    if (status != GRAFT_OK)
        return status;
    char *aside = path_join(output_dir, ASIDE);
    if (!aside)
        return error_memory(err, strlen(output_dir), "a file name");
    status = folder_remove(aside, err);
    if (status == GRAFT_OK)
        status = folder_create(aside, err);
    if (status == GRAFT_OK)
        status = write_all(r, result, aside, err);
    if (status == GRAFT_OK)
        status = publish_folder(aside, output_dir, err);
    folder_remove(aside, NULL);
    free(aside);
    if (status != GRAFT_OK)
        return status;
    const train_observer *observer = r->in->observer;
    if (observer && observer->on_saved)
        observer->on_saved(observer->context, output_dir);
    return GRAFT_OK;
}
