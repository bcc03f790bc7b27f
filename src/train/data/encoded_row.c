#include "train/data/encoded_row.h"

#include "base/memory.h"

#include <stdlib.h>

void encoded_row_clear(encoded_row *row) {
    strbuf_clear(&row->text);
    row->n = 0;
    row->findings = 0;
    row->is_document = false;
}

void encoded_row_free(encoded_row *row) {
    strbuf_free(&row->text);
    free(row->tokens);
    *row = (encoded_row){0};
}

bool encoded_row_append(encoded_row *row, const encoding *from, size_t first, size_t last,
                        int64_t shift) {
    if (!mem_reserve(&row->tokens, &row->capacity, row->n + (last - first), sizeof *row->tokens))
        return false;
    for (size_t i = first; i < last; i++)
        row->tokens[row->n++] = (row_token){
            .id = from->ids[i],
            .label = NOT_TRAINED,
            .begin = (uint32_t)((int64_t)from->begin[i] + shift),
            .end = (uint32_t)((int64_t)from->end[i] + shift),
            .is_added = from->special[i] != 0,
        };
    return true;
}

bool encoded_row_append_token(encoded_row *row, row_token token) {
    if (!mem_reserve(&row->tokens, &row->capacity, row->n + 1, sizeof *row->tokens))
        return false;
    row->tokens[row->n++] = token;
    return true;
}
