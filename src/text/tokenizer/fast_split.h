/* Hand-written equals of the split patterns that most models share. */
#ifndef GRAFT_TEXT_TOKENIZER_FAST_SPLIT_H
#define GRAFT_TEXT_TOKENIZER_FAST_SPLIT_H

#include <stddef.h>

/* The end of the match that begins at byte `at` < n. Each of these patterns matches everywhere. */
typedef size_t (*fast_splitter)(const char *text, size_t at, size_t n);

/* The patterns of GPT-2 (built into the ByteLevel pre-tokenizer), of cl100k and Llama 3, and of
 * Qwen 2. */
extern const char *const gpt2_pattern, *const llama3_pattern, *const qwen2_pattern;

size_t split_gpt2(const char *text, size_t at, size_t n);

/* The splitter of a pattern, by its text; NULL when there is none. chars_initialize() comes first.
 */
fast_splitter fast_splitter_of(const char *regex, size_t n);

#endif
