/* Post-processors: tokens put around the text's, and offsets trimmed of white space. Sequences are
 * flattened. */
#ifndef GRAFT_TEXT_TOKENIZER_POSTPROCESSOR_H
#define GRAFT_TEXT_TOKENIZER_POSTPROCESSOR_H

#include "formats/json.h"
#include "text/tokenizer/model.h"

enum { TEMPLATE_PIECES_MAX = 4096, TRIMS_MAX = 8, TEMPLATE_TEXT = -1 };

typedef struct postprocessor {
    bool has_template;
    int32_t *template_ids; /* [n_template] a token, or TEMPLATE_TEXT for the tokens of the text */
    size_t n_template, template_capacity;
    size_t n_trims; /* ByteLevel and Roberta processors that trim offsets */
    bool trim_keeps_prefix_space[TRIMS_MAX];
} postprocessor;

/* `json` may be NULL or null. */
graft_status postprocessor_read(postprocessor *, const json_t *json, const char *place,
                                graft_error *);
graft_status postprocessor_add_id(postprocessor *, int32_t id, const char *place, graft_error *);
void postprocessor_free(postprocessor *);

/* w->spaces holds the spaces of out's tokens when n_trims > 0; text is the whole input. */
graft_status postprocessor_apply(const postprocessor *, workspace *w, encoding *out,
                                 const char *text, bool add_special_tokens, graft_error *);

#endif
