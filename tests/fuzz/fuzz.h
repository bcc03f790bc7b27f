/* What a fuzz target is: one function that must survive any bytes. libFuzzer drives it in a build
 * with -Dfuzz=true; in every build replay_main.c runs the files of corpus/TARGET through it as
 * tests. */
#ifndef GRAFT_TESTS_FUZZ_H
#define GRAFT_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
