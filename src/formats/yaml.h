/* YAML recipes: one mapping of option names to scalars or lists of scalars, read through libfyaml.
 */
#ifndef GRAFT_FORMATS_YAML_H
#define GRAFT_FORMATS_YAML_H

#include "base/strbuf.h"

/* Called for each scalar value, in order: a list calls once per element (index 0, 1, ...), a plain
 * scalar once with index -1; null gives value NULL. A nested mapping is given with dotted keys
 * ("lora.r" -> key "lora.r"). */
typedef graft_status (*yaml_scalar_fn)(void *context, const char *key, int index, const char *value,
                                       int line, graft_error *);
graft_status yaml_read_file(const char *path, yaml_scalar_fn, void *context, graft_error *);
graft_status yaml_read_text(const char *text, size_t n, const char *origin, yaml_scalar_fn,
                            void *context, graft_error *);
/* Appends a scalar, quoted where plain text would be read as something else. */
void yaml_write_scalar(strbuf *, const char *value);

#endif
