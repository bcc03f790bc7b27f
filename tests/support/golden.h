/* What tests on the goldens of PEFT share. */
#ifndef GRAFT_TESTS_GOLDEN_H
#define GRAFT_TESTS_GOLDEN_H

#include "tests/support/support.h"

/* The folder of a golden's start adapter. Where PEFT's file lacks trained tensors (encoders of
 * virtual tokens), it is a copy that has them where Graft looks for them. Valid like test_data's.
 */
const char *golden_adapter(const char *name);

#endif
