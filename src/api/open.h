/* Opening what a recipe names: backend, model, text, adapter, data. Each part is opened when asked
 * for, and all are closed together. */
#ifndef GRAFT_API_OPEN_H
#define GRAFT_API_OPEN_H

#include "adapter/adapter.h"
#include "api/recipe.h"
#include "model/weights.h"
#include "text/tokenizer/tokenizer.h"
#include "train/data/data_files.h"
#include "train/data/data_stream.h"
#include "train/data/dataset.h"
#include "train/data/templates.h"

typedef struct opened {
    const graft_recipe *recipe;     /* borrowed */
    const graft_observer *observer; /* borrowed; may be NULL */
    message_sink messages;          /* to the observer */
    char *folder;                   /* of the model */
    backend *dev;
    model_spec spec;
    weight_source *weights;
    tokenizer *tokenizer;
    data_templates templates; /* of the model, or of --chat-template */
    adapter *adapter;
    model_hooks hooks;
    void *adapter_memory;
} opened;

/* Remembers recipe and observer; opens nothing. */
opened opened_begin(const graft_recipe *, const graft_observer *);
void opened_close(opened *);

graft_status open_backend(opened *, graft_error *);
/* config.json only (for plans and data). */
graft_status open_spec(opened *, graft_error *);
graft_status open_weights(opened *, graft_error *);
/* Tokenizer and chat templates. */
graft_status open_text(opened *, graft_error *);
/* Closed early where the rest takes long: the memory goes back to the system. */
void close_text(opened *);
/* Chat templates only; a folder is needed unless --chat-template names one. */
graft_status open_templates(opened *, graft_error *);
/* The adapter that a training recipe describes: created against the spec, not laid out. */
graft_status open_new_adapter(opened *, graft_error *);
/* Gives the new adapter the tokens of the text that it starts from, if it starts from one. */
graft_status open_start_text(opened *, graft_error *);
/* --adapter DIR, loaded with its values (and room for gradients when asked) and bound to the hooks;
 * without --adapter the hooks are empty. */
graft_status open_trained_adapter(opened *, bool gradients, graft_error *);
/* The files that a list option ("data", "eval_data") names. */
graft_status data_files_of(data_files *, const graft_recipe *, const char *option, graft_error *);
/* Their rows. */
graft_status open_data(dataset **, opened *, const char *option, bool for_evaluation,
                       graft_error *);
/* Evaluation rows: of --eval-data, or the --eval-split of `data` (NULL: streamed); else *out is
 * NULL. */
graft_status open_held_out(dataset **out, dataset *data, opened *, graft_error *);
/* The same rows, as they are read (--streaming). */
graft_status open_stream(data_stream **, opened *, const char *option, graft_error *);
/* What --train-on and the text options make of rows, without the paths. */
graft_status data_options(dataset_options *, opened *, bool for_evaluation, graft_error *);

/* Is there a file of this name? */
bool folder_has(const char *folder, const char *name);
/* GRAFT_E_USAGE "--NAME is needed" when the option has no value. */
graft_status need_option(const graft_recipe *, const char *name, graft_error *);

/* The clock of templates: --now, else this moment. */
graft_status recipe_time(int64_t *out, const graft_recipe *, graft_error *);
/* --compute; auto is f32. */
compute_type recipe_compute(const graft_recipe *);
/* cpu features of this machine within --cpu-features. */
graft_status recipe_features(cpu_features *, const graft_recipe *, graft_error *);

#endif
