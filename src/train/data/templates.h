/* Which chat template the rows go through. */
#ifndef GRAFT_TRAIN_DATA_TEMPLATES_H
#define GRAFT_TRAIN_DATA_TEMPLATES_H

#include "text/template/template.h"

typedef struct data_templates {
    chat_template *chat; /* NULL: none */
    chat_template
        *tools; /* for rows with tools, where the model has another one for them; else NULL */
} data_templates;

/* choice: NULL or "": the model folder's own (which may have none); "none": none; a built-in name;
 * a file. */
graft_status data_templates_load(data_templates *, const char *model_folder, const char *choice,
                                 graft_error *);
void data_templates_free(data_templates *);

#endif
