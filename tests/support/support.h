/* What every test needs. Include this instead of cmocka.h. */
#ifndef GRAFT_TESTS_SUPPORT_H
#define GRAFT_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/status.h"

/* Whether a test may replace the C library's allocator: sanitizers bring their own. */
#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define TEST_MALLOC_IS_OURS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_MALLOC_IS_OURS 0
#endif
#endif
#ifndef TEST_MALLOC_IS_OURS
#define TEST_MALLOC_IS_OURS 1
#endif

/* PATH under GRAFT_TEST_DATA; skips the running test when the variable is not set or the file is not there. Valid until
 * the fourth call after it. */
const char *test_data(const char *path);
/* PATH under tests/fixtures. */
const char *test_fixture(const char *path);
/* A fresh empty folder of this process, removed at exit. */
const char *test_folder(void);
/* Writes a file into test_folder() and returns its path (valid like test_data's). */
const char *test_file(const char *name, const void *bytes, size_t n);
/* Fails, with the error's message, unless status is GRAFT_OK. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        graft_error *shown_ = &test_error;                                                         \
        if ((call) != GRAFT_OK)                                                                    \
            fail_msg("%s: %s", #call, shown_->message);                                            \
    } while (0)
/* Fails unless the call fails with this status and the message (test_error) holds `text`. */
#define assert_refused(call, status, text) test_assert_refused((call), (status), (text), #call)
extern graft_error test_error; /* pass &test_error to the call */
void test_assert_refused(graft_status got, graft_status expected, const char *text, const char *call);
/* |a - b| <= absolute + relative * |b|, NaN fails. */
void test_assert_near(double a, double b, double absolute, double relative, const char *what);

#endif
