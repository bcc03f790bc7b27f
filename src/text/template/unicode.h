/* Characters as Python's str sees them. Text is valid UTF-8: it is checked where it comes in. */
#ifndef GRAFT_TEXT_TEMPLATE_UNICODE_H
#define GRAFT_TEXT_TEMPLATE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The character at text (n > 0 bytes are there) and its length in bytes. */
size_t char_at(uint32_t *character, const char *text, size_t n);
/* Length of the character that ends at text + n. */
size_t char_before(uint32_t *character, const char *text, size_t n);
size_t char_count(const char *text, size_t n);
/* The byte where character number `index` begins; n when there are fewer. */
size_t char_offset(const char *text, size_t n, size_t index);

bool char_is_space(uint32_t);
bool char_is_line_end(uint32_t); /* str.splitlines */
bool char_is_letter(uint32_t);
bool char_is_decimal(uint32_t);
bool char_is_digit(uint32_t);
bool char_is_numeric(uint32_t);
bool char_is_upper(uint32_t);
bool char_is_lower(uint32_t);
bool char_is_title(uint32_t);
bool char_is_printable(uint32_t);
bool char_is_cased(uint32_t);
bool char_is_case_ignorable(uint32_t);
/* May begin, or go on in, an identifier. */
bool char_begins_name(uint32_t);
bool char_continues_name(uint32_t);

typedef enum char_case { CASE_LOWER, CASE_UPPER, CASE_TITLE, CASE_FOLD } char_case;
/* Up to three characters; how many. */
size_t char_convert(uint32_t out[3], uint32_t character, char_case);

#endif
