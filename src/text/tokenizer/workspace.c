#include "text/tokenizer/workspace.h"

#include "base/memory.h"

#include <oniguruma.h>
#include <stdlib.h>

/* Backtracking steps of one search: far above what any published pattern needs on a megabyte, and
 * under a second. */
enum { REGEX_STEPS_MAX = 20000000, REGEX_STACK_MAX = 4000000 };

graft_status workspace_create(workspace **out, graft_error *err) {
    workspace *w = mem_array(1, sizeof *w);
    if (!w)
        return error_memory(err, sizeof *w, "a tokenizer's workspace");
    w->region = onig_region_new();
    w->match_limits = onig_new_match_param();
    if (!w->region || !w->match_limits) {
        workspace_destroy(&w);
        return error_memory(err, sizeof *w, "a tokenizer's workspace");
    }
    onig_set_retry_limit_in_match_of_match_param(w->match_limits, REGEX_STEPS_MAX);
    onig_set_retry_limit_in_search_of_match_param(w->match_limits, REGEX_STEPS_MAX);
    onig_set_match_stack_limit_size_of_match_param(w->match_limits, REGEX_STACK_MAX);
    *out = w;
    return GRAFT_OK;
}

void workspace_destroy(workspace **address) {
    workspace *w = *address;
    if (!w)
        return;
    for (size_t i = 0; i < 2; i++) {
        aligned_text_free(&w->buffers[i]);
        aligned_text_free(&w->steps[i]);
    }
    free(w->changes.items);
    free(w->pieces.items);
    free(w->next_pieces.items);
    free(w->spans.items);
    free(w->symbols);
    free(w->heap);
    free(w->path);
    free(w->marks);
    free(w->spaces);
    strbuf_free(&w->scratch);
    if (w->region)
        onig_region_free(w->region, 1);
    if (w->match_limits)
        onig_free_match_param(w->match_limits);
    word_cache_free(&w->caches[0]);
    word_cache_free(&w->caches[1]);
    free(w);
    *address = NULL;
}

void piece_list_grow(piece_list *list) {
    if (!mem_reserve(&list->items, &list->capacity, list->n + 1, sizeof *list->items))
        list->failed = true;
}

void span_add(span_list *list, uint32_t begin, uint32_t end, bool match) {
    if (!mem_reserve(&list->items, &list->capacity, list->n + 1, sizeof *list->items)) {
        list->failed = true;
        return;
    }
    list->items[list->n++] = (span){begin, end, match};
}
