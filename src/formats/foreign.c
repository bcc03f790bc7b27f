#include "formats/foreign.h"

#include <string.h>

#define LFS_POINTER "version https://git-lfs.github.com/spec/"

static const struct {
    const char *start;
    size_t length;
    const char *advice;
} known[] = {
#define START(text) text, sizeof text - 1
    {START(LFS_POINTER),
     "a Git-LFS pointer, not the file itself; run `git lfs pull` in its folder"},
    {START("\xFF\xFE"), "UTF-16 text; save it as UTF-8"},
    {START("\xFE\xFF"), "UTF-16 text; save it as UTF-8"},
    {START("\x1F\x8B"), "gzip data; unpack it with `gunzip`, or give it a name that ends in .gz"},
    {START("\x28\xB5\x2F\xFD"),
     "zstd data; unpack it with `unzstd`, or give it a name that ends in .zst"},
    {START("PK\x03\x04"), "a zip archive (PyTorch's .bin and .pt are such, and hold code); use the "
                          "safetensors form of the model"},
    {START("\x80\x02"), "a Python pickle, which holds code; use the safetensors form of the model"},
    {START("\x89HDF"), "an HDF5 file; use the safetensors form of the model"},
    {START("GGUF"), "a GGUF model"},
    {START("PAR1"), "a Parquet file; convert it to .jsonl"},
    {START("<!DOCTYPE"), "a web page, not the file itself; download the file again"},
    {START("<!doctype"), "a web page, not the file itself; download the file again"},
    {START("<html"), "a web page, not the file itself; download the file again"},
#undef START
};

const char *foreign_format(const void *bytes, size_t n) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (n >= known[i].length && !memcmp(bytes, known[i].start, known[i].length))
            return known[i].advice;
    return NULL;
}

bool foreign_is_lfs_pointer(const void *bytes, size_t n) {
    size_t length = sizeof LFS_POINTER - 1;
    return n >= length && !memcmp(bytes, LFS_POINTER, length);
}
