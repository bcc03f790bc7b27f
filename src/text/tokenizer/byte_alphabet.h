/* GPT-2's alphabet: a printable character for each byte, so that a vocabulary over bytes can be
 * text. */
#ifndef GRAFT_TEXT_TOKENIZER_BYTE_ALPHABET_H
#define GRAFT_TEXT_TOKENIZER_BYTE_ALPHABET_H

#include <stddef.h>
#include <stdint.h>

enum { BYTE_ALPHABET_END = 0x144 }; /* all its characters are below */

static inline uint32_t byte_to_character(unsigned char byte) {
    if ((byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD))
        return byte;
    /* The 68 others take the places from 256 on, in order. */
    return 256 + (byte <= 0x20 ? byte : byte <= 0xA0 ? byte - 0x7F + 33u : 67u);
}

/* -1 when the character stands for no byte. */
static inline int character_to_byte(uint32_t character) {
    if (character < 256)
        return byte_to_character((unsigned char)character) == character ? (int)character : -1;
    if (character >= BYTE_ALPHABET_END)
        return -1;
    unsigned place = character - 256;
    return (int)(place <= 0x20 ? place : place < 67 ? place - 33 + 0x7F : 0xADu);
}

#endif
