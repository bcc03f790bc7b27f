/* graft_merge: a base and its adapter made one model. */
#include "adapter/merge.h"
#include "api/open.h"
#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "base/peak_memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dtype dtype_of(const char *text) {
    return !strcmp(text, "f32")    ? DTYPE_F32
           : !strcmp(text, "bf16") ? DTYPE_BF16
           : !strcmp(text, "f16")  ? DTYPE_F16
                                   : N_DTYPES;
}

/* Nothing that is there may be mixed with the new model. */
static graft_status check_output(const char *folder, graft_error *err) {
    DIR *listing = path_exists(folder) ? opendir(folder) : NULL;
    bool is_empty = listing != NULL || !path_exists(folder);
    for (struct dirent *entry; listing && is_empty && (entry = readdir(listing));)
        is_empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    if (listing)
        closedir(listing);
    return is_empty ? GRAFT_OK
                    : error_set(err, GRAFT_E_INPUT,
                                "%s: is there already, and not an empty folder; name another "
                                "output_dir, or remove it",
                                folder);
}

/* Written aside; it takes its name when all of it is there. */
static graft_status write_model(merge_summary *summary, opened *o, const char *folder,
                                graft_error *err) {
    strbuf aside = {0};
    strbuf_printf(&aside, "%s.merge.tmp", folder);
    if (aside.failed)
        return error_memory(err, strlen(folder), "a path");
    graft_status status = folder_remove(strbuf_text(&aside), err);
    if (status == GRAFT_OK)
        status = adapter_merge_model(summary, o->adapter, o->dev, o->weights,
                                     dtype_of(recipe_text(o->recipe, "dtype")), strbuf_text(&aside),
                                     &o->messages, err);
    if (status == GRAFT_OK)
        status = folder_sync(strbuf_text(&aside), err);
    if (status == GRAFT_OK && rename(strbuf_text(&aside), folder) != 0)
        status =
            error_set(err, GRAFT_E_IO, "%s: cannot be put in place: %s", folder, strerror(errno));
    if (status != GRAFT_OK)
        folder_remove(strbuf_text(&aside), NULL);
    strbuf_free(&aside);
    return status;
}

graft_status graft_merge(graft_merge_result *out, const graft_recipe *recipe,
                         const graft_observer *observer, graft_error *err) {
    *out = (graft_merge_result){0};
    double began = clock_seconds();
    opened o = opened_begin(recipe, observer);
    merge_summary summary = {0};
    const char *folder = recipe_text(recipe, "output_dir");
    graft_status status = need_option(recipe, "adapter", err);
    if (status == GRAFT_OK)
        status = need_option(recipe, "output_dir", err);
    if (status == GRAFT_OK)
        status = check_output(folder, err);
    if (status == GRAFT_OK)
        status = open_weights(&o, err);
    if (status == GRAFT_OK)
        status = open_trained_adapter(&o, false, err);
    if (status == GRAFT_OK)
        status = write_model(&summary, &o, folder, err);
    opened_close(&o);
    if (status == GRAFT_OK)
        *out = (graft_merge_result){.tensors = (int64_t)summary.tensors,
                                    .changed = (int64_t)summary.changed,
                                    .unties = summary.unties,
                                    .seconds = clock_seconds() - began,
                                    .peak_memory_bytes = peak_memory_bytes()};
    return status;
}
