/* What the files that read safetensors share: one file's header, and the open set of files. */
#ifndef GRAFT_FORMATS_SAFETENSORS_PARTS_H
#define GRAFT_FORMATS_SAFETENSORS_PARTS_H

#include "formats/safetensors.h"

/* Limits, named in messages and in docs/bad-input.md. */
enum {
    SAFETENSORS_HEADER_MAX = 100000000, /* bytes, as in the safetensors library */
    SAFETENSORS_SHARDS_MAX = 4096,
    SAFETENSORS_INDEX_MAX = 128 << 20, /* bytes of an index */
    SAFETENSORS_NAME_MAX = 1024        /* bytes of a tensor's name */
};

typedef struct st_entry {
    const char *name; /* in the file's `names` */
    tensor_view view;
    size_t begin; /* byte of the file's data */
    uint32_t file;
} st_entry;

typedef struct st_pair {
    const char *key, *value; /* in the file's `names` */
} st_pair;

typedef struct st_file {
    char *path;
    file_map map;
    char *names;   /* the header's strings, decoded */
    void *aligned; /* copies of tensors that lie misaligned in the file; NULL when there are none */
    st_pair *pairs; /* __metadata__ */
    size_t n_pairs, pairs_capacity;
} st_file;

struct safetensors {
    st_file *files;
    size_t n_files;
    st_entry *entries; /* sorted by name once all files are read */
    size_t n, capacity;
};

/* Reads and checks the header of files[file], whose map is open, and appends its tensors to the
 * entries. */
graft_status safetensors_read_header(safetensors *, uint32_t file, graft_error *);

/* Opens one more file (files has room for it) with its header. */
graft_status safetensors_add_file(safetensors *, const char *path, graft_error *);
/* Sorts by name; refuses a name that is there twice. */
graft_status safetensors_sort(safetensors *, graft_error *);

#endif
