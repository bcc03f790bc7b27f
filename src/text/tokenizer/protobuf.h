/* The little of Protocol Buffers' wire format that SentencePiece models need. */
#ifndef GRAFT_TEXT_TOKENIZER_PROTOBUF_H
#define GRAFT_TEXT_TOKENIZER_PROTOBUF_H

#include "base/status.h"

typedef struct protobuf_field {
    uint32_t number;
    uint64_t value;             /* a varint, or the bits of a fixed number */
    const unsigned char *bytes; /* length-delimited: n bytes; NULL else */
    size_t n;
} protobuf_field;

typedef struct protobuf_reader {
    const unsigned char *at, *end;
} protobuf_reader;

typedef enum protobuf_result { PROTOBUF_FIELD, PROTOBUF_END, PROTOBUF_DAMAGED } protobuf_result;

protobuf_result protobuf_next(protobuf_reader *, protobuf_field *);
float protobuf_float(const protobuf_field *); /* of a 32-bit field */

#endif
