/* Where models put the tokens of a piece: writes ids and offsets into an encoding. */
#ifndef GRAFT_TEXT_TOKENIZER_TOKEN_WRITER_H
#define GRAFT_TEXT_TOKENIZER_TOKEN_WRITER_H

#include "text/tokenizer/workspace.h"

typedef struct token_writer {
    encoding *out;
    workspace *w;
    text_view piece;     /* being tokenized */
    uint32_t text_bytes; /* of the whole input */
    bool counts_spaces;  /* fill w->spaces */
    bool is_plain;       /* text must not become control tokens */
} token_writer;

/* Adds a token over bytes [begin, end) of the piece. `text` (n bytes) is what the token says,
 * looked at only when spaces are counted. False when out of memory. */
bool token_write(token_writer *, int32_t id, size_t begin, size_t end, const char *text, size_t n);

bool encoding_reserve(encoding *, size_t needed);

#endif
