#include "text/tokenizer/protobuf.h"

#include <string.h>

static bool read_varint(protobuf_reader *r, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        unsigned char byte = *r->at++;
        *out |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool read_fixed(protobuf_reader *r, size_t n, uint64_t *out) {
    if ((size_t)(r->end - r->at) < n)
        return false;
    *out = 0;
    for (size_t i = 0; i < n; i++)
        *out |= (uint64_t)r->at[i] << 8 * i;
    r->at += n;
    return true;
}

static bool read_bytes(protobuf_reader *r, protobuf_field *field) {
    uint64_t n;
    if (!read_varint(r, &n) || n > (uint64_t)(r->end - r->at))
        return false;
    field->bytes = r->at;
    field->n = (size_t)n;
    r->at += n;
    return true;
}

protobuf_result protobuf_next(protobuf_reader *r, protobuf_field *field) {
    enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };
    uint64_t tag;
    bool ok = false;
    *field = (protobuf_field){0};
    if (r->at == r->end)
        return PROTOBUF_END;
    if (!read_varint(r, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
        return PROTOBUF_DAMAGED;
    field->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case VARINT:
        ok = read_varint(r, &field->value);
        break;
    case FIXED64:
        ok = read_fixed(r, 8, &field->value);
        break;
    case FIXED32:
        ok = read_fixed(r, 4, &field->value);
        break;
    case BYTES:
        ok = read_bytes(r, field);
        break;
    default:
        break;
    }
    return ok ? PROTOBUF_FIELD : PROTOBUF_DAMAGED;
}

float protobuf_float(const protobuf_field *field) {
    uint32_t bits = (uint32_t)field->value;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
