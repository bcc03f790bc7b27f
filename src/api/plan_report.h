/* What graft_plan found, as text for people or as JSON. */
#ifndef GRAFT_API_PLAN_REPORT_H
#define GRAFT_API_PLAN_REPORT_H

#include "api/open.h"
#include "plan/advice.h"
#include "plan/estimate.h"

typedef struct plan_facts {
    const opened *opened;
    const char *title; /* the model, as it was named */
    const train_config *config;
    data_shape shape; /* of the data, else of steps full of rows of max_length */
    bool has_data;
    int64_t tokens, supervised; /* of the data */
    int64_t steps;              /* of the whole run; 0: not known */

    memory_plan memory;
    int64_t limit_bytes;   /* memory_limit, else what the machine has free */
    int64_t machine_bytes; /* all that the machine has */
    size_t kv_token_bytes; /* that generation keeps a token */
    bool fits;
    graft_error reason; /* why it does not */
    advice advice[ADVICE_MAX];
    int n_advice;

    step_cost cost;
    time_estimate time;
} plan_facts;

json_t *plan_json(const plan_facts *);
void plan_text(strbuf *, const plan_facts *);

#endif
