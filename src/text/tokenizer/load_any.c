/* Which file of a model directory is the tokenizer, and what is in it. */
#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"
#include "text/tokenizer/parts.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *ending) {
    size_t n = strlen(text), n_ending = strlen(ending);
    return n >= n_ending && strcmp(text + n - n_ending, ending) == 0;
}

static graft_status no_path_memory(graft_error *err) {
    return error_memory(err, 0, "a path");
}

/* The file `name` beside `path`; NULL when out of memory. */
static char *beside(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    strbuf joined = {0};
    strbuf_add(&joined, path, n);
    strbuf_add_text(&joined, name);
    return strbuf_take(&joined);
}

/* *out stays NULL when the folder has no such file. */
static graft_status find_in(char **out, const char *folder, const char *name, graft_error *err) {
    char *path = path_join(folder, name);
    if (!path)
        return no_path_memory(err);
    if (path_exists(path)) {
        *out = path;
        return GRAFT_OK;
    }
    free(path);
    return GRAFT_OK;
}

/* The only .tiktoken file, if there is one; two are not chosen from. */
static graft_status find_tiktoken(char **out, const char *folder, graft_error *err) {
    DIR *entries = opendir(folder);
    graft_status status = GRAFT_OK;
    for (struct dirent *entry; entries && status == GRAFT_OK && (entry = readdir(entries));) {
        if (!ends_with(entry->d_name, ".tiktoken"))
            continue;
        if (*out)
            status = error_set(err, GRAFT_E_INPUT,
                               "%s: several .tiktoken files; name the one to use", folder);
        else
            status = find_in(out, folder, entry->d_name, err);
    }
    if (entries)
        closedir(entries);
    return status;
}

static graft_status find_file(char **out, const char *folder, graft_error *err) {
    static const char *const names[] = {"tokenizer.json", "merges.txt", "tokenizer.model",
                                        "spiece.model"};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !*out; i++) {
        graft_status status = find_in(out, folder, names[i], err);
        if (status != GRAFT_OK)
            return status;
    }
    if (!*out) {
        graft_status status = find_tiktoken(out, folder, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (*out)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT,
                     "%s: no tokenizer; expected tokenizer.json, vocab.json with merges.txt, "
                     "tokenizer.model or a .tiktoken file",
                     folder);
}

static graft_status load_pair(tokenizer *t, char **file, const tokenizer_config *c,
                              const message_sink *sink, graft_error *err) {
    char *merges = beside(*file, "merges.txt");
    char *vocabulary = beside(*file, "vocab.json");
    graft_status status = merges && vocabulary
                              ? load_vocab_merges(t, vocabulary, merges, c, sink, err)
                              : no_path_memory(err);
    free(merges);
    free(vocabulary);
    return status;
}

/* tokenizer.model is SentencePiece's, or (Llama 3) tiktoken's; a protobuf message of pieces begins
 * with the byte 0x0A, a line of base64 does not. */
static graft_status load_model_file(tokenizer *t, const char *path, const tokenizer_config *c,
                                    const message_sink *sink, graft_error *err) {
    file_map map = {0};
    graft_status status = file_map_open(&map, path, err);
    if (status != GRAFT_OK)
        return status;
    bool is_tiktoken = map.size > 0 && map.data[0] >= '+' && map.data[0] <= 'z';
    file_map_close(&map);
    return is_tiktoken ? load_tiktoken(t, path, c, sink, err)
                       : load_sentencepiece(t, path, c, sink, err);
}

graft_status load_any(tokenizer *t, char **file, const char *path, const tokenizer_config *c,
                      const message_sink *sink, graft_error *err) {
    graft_status status = GRAFT_OK;
    if (path_is_folder(path))
        status = find_file(file, path, err);
    else if (!(*file = mem_text(path, strlen(path))))
        status = no_path_memory(err);
    if (status != GRAFT_OK)
        return status;
    if (ends_with(*file, "vocab.json") || ends_with(*file, "merges.txt"))
        return load_pair(t, file, c, sink, err);
    if (ends_with(*file, ".model"))
        return load_model_file(t, *file, c, sink, err);
    if (ends_with(*file, ".tiktoken"))
        return load_tiktoken(t, *file, c, sink, err);
    return load_tokenizer_json(t, *file, sink, err);
}
