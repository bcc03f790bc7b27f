/* manifest.json of a checkpoint: which files it has, how long they are and what they hash to. It is
 * written last, so that a folder with a manifest that verifies is whole. */
#ifndef GRAFT_TRAIN_MANIFEST_H
#define GRAFT_TRAIN_MANIFEST_H

#include "base/status.h"

enum { CHECKPOINT_FORMAT_VERSION = 1, RUN_ID_BYTES = 33 };

/* Hashes every file of the folder (not of its subfolders) and writes the manifest, synced. */
graft_status manifest_write(const char *folder, const char *run_id, graft_error *);
/* Reads the manifest and every file it names. GRAFT_E_INPUT says what does not match; run_id may be
 * NULL. */
graft_status manifest_verify(char run_id[RUN_ID_BYTES], const char *folder, graft_error *);

#endif
