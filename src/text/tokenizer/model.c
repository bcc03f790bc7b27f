#include "text/tokenizer/model.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_free(model *m) {
    vocab_free(&m->tokens);
    free(m->is_special);
    free(m->unk_token);
    bpe_free(&m->bpe);
    unigram_free(&m->unigram);
    wordpiece_free(&m->wordpiece);
    *m = (model){0};
}

graft_status model_tokenize(const model *m, token_writer *writer, graft_error *err) {
    switch (m->kind) {
    case MODEL_BPE:
        return bpe_tokenize(m, writer, err);
    case MODEL_UNIGRAM:
        return unigram_tokenize(m, writer, err);
    case MODEL_WORDPIECE:
        return wordpiece_tokenize(m, writer, err);
    case MODEL_WORDLEVEL:
        return wordlevel_tokenize(m, writer, err);
    }
    return GRAFT_OK;
}

graft_status model_set_unk(model *m, const char *token, graft_error *err) {
    m->unk_id = UNK_NONE;
    if (!token)
        return GRAFT_OK;
    m->unk_token = mem_text(token, strlen(token));
    if (!m->unk_token)
        return error_memory(err, strlen(token), "the unknown token");
    m->unk_id = vocab_find(&m->tokens, token, strlen(token));
    if (m->unk_id < 0)
        m->unk_id = UNK_MISSING;
    return GRAFT_OK;
}

graft_status model_unk_needed(const model *m, graft_error *err) {
    if (m->unk_token)
        return error_set(err, GRAFT_E_INPUT,
                         "the text has something unknown, and the tokenizer's unknown token \"%s\" "
                         "is not in its vocabulary",
                         m->unk_token);
    return error_set(err, GRAFT_E_INPUT,
                     "the text has something unknown, and the tokenizer names no unknown token");
}

void byte_tokens_find(int32_t ids[256], const vocab *tokens) {
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        int n = snprintf(text, sizeof text, "<0x%02X>", byte);
        ids[byte] = vocab_find(tokens, text, (size_t)n);
    }
}
