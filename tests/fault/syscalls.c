/* A save is stopped, and made to fail, at every system call it makes (F2, F3, F4). A child saves
 * checkpoint-2 beside a good checkpoint-1; its parent follows it call by call. Whatever the place:
 * a checkpoint that verifies is there, and a failed save leaves no trace.
 *
 * x86-64 Linux, where the calls of a process can be counted and changed; elsewhere, and where
 * tracing is not allowed, skipped. */
#include "tests/train/tiny.h"

#include "base/atomic_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS_MAX = 2000, NO_TRACING = 77 };

typedef enum fault { FAULT_NONE, FAULT_KILL, FAULT_FAIL } fault;

/* What to do at the n-th call (from 0) that can fail for want of a disk. */
typedef struct fault_plan {
    fault kind;
    int at;
    int code; /* errno of FAULT_FAIL */
} fault_plan;

typedef struct outcome {
    int calls;       /* calls of that kind seen */
    int exit_status; /* -1: killed */
    bool could_trace;
} outcome;

static bool touches_the_disk(long long call) {
    switch (call) {
    case SYS_write:
    case SYS_fsync:
    case SYS_close:
    case SYS_rename:
    case SYS_mkdir:
    case SYS_openat:
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_rmdir:
    case SYS_ftruncate:
        return true;
    default:
        return false;
    }
}

/* Removals cannot run out of space, and a failed close of a file that is read means nothing. */
static bool can_fail(long long call) {
    return call == SYS_write || call == SYS_fsync || call == SYS_rename || call == SYS_mkdir;
}

static void child_main(tiny_run *tiny, const char *output) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(NO_TRACING);
    raise(SIGSTOP);
    _exit(tiny_save(tiny, output, TINY_RUN_A, 2, NULL) == GRAFT_OK ? 0 : 1);
}

/* Lets the child go to its next entry into, or exit from, a call. False when it ended. */
static bool next_stop(pid_t child, outcome *out) {
    int code;
    if (ptrace(PTRACE_SYSCALL, child, NULL, NULL) != 0 || waitpid(child, &code, 0) != child)
        return false;
    if (WIFSTOPPED(code))
        return true;
    out->exit_status = WIFEXITED(code) ? WEXITSTATUS(code) : -1;
    return false;
}

/* At the entry of a call: the kernel is told to do nothing, and at its exit the answer is an error.
 */
static bool fail_call(pid_t child, int code, outcome *out) {
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, child, NULL, &regs);
    regs.orig_rax = (unsigned long long)-1;
    ptrace(PTRACE_SETREGS, child, NULL, &regs);
    if (!next_stop(child, out))
        return false;
    ptrace(PTRACE_GETREGS, child, NULL, &regs);
    regs.rax = (unsigned long long)-code;
    ptrace(PTRACE_SETREGS, child, NULL, &regs);
    return true;
}

static void follow(pid_t child, const fault_plan *planned, outcome *out) {
    while (next_stop(child, out)) {
        struct user_regs_struct regs;
        if (ptrace(PTRACE_GETREGS, child, NULL, &regs) != 0)
            break;
        long long call = (long long)regs.orig_rax;
        bool counts = planned->kind == FAULT_FAIL ? can_fail(call) : touches_the_disk(call);
        bool is_it = counts && planned->kind != FAULT_NONE && out->calls == planned->at;
        out->calls += counts;
        if (is_it && planned->kind == FAULT_KILL) {
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
            out->exit_status = -1;
            return;
        }
        if (is_it ? !fail_call(child, planned->code, out) : !next_stop(child, out))
            return; /* that was the exit from the call */
    }
}

static outcome save_with(tiny_run *tiny, const char *output, const fault_plan *planned) {
    outcome out = {.could_trace = true};
    int code;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        child_main(tiny, output);
    assert_int_equal(waitpid(child, &code, 0), child);
    if (!WIFSTOPPED(code)) {
        out.could_trace = false;
        return out;
    }
    follow(child, planned, &out);
    return out;
}

typedef struct stage {
    tiny_run tiny;
    char output[256];
} stage;

static void stage_open(stage *s, const char *name) {
    tiny_open(&s->tiny);
    snprintf(s->output, sizeof s->output, "%s/%s", test_folder(), name);
    assert_ok(folder_create(s->output, &test_error));
    tiny_fill(&s->tiny, 1);
    assert_ok(tiny_save(&s->tiny, s->output, TINY_RUN_A, 1, &test_error));
    tiny_fill(&s->tiny, 2);
}

static char *inside(const stage *s, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", s->output, name);
    return path;
}

/* The newest that verifies: 1 or 2. */
static int newest(const stage *s) {
    char *path = NULL;
    assert_ok(checkpoint_newest(&path, s->output, TINY_RUN_A, NULL, &test_error));
    int step = atoi(strrchr(path, '-') + 1);
    free(path);
    return step;
}

static void clear(const stage *s) {
    checkpoint_sweep(s->output);
    assert_ok(folder_remove(inside(s, "checkpoint-2"), &test_error));
}

static void killed_at_every_call_leaves_old_or_new(void **state) {
    (void)state;
    stage s;
    bool was_old = false, was_new = false;
    stage_open(&s, "kill");
    for (int at = 0; at < CALLS_MAX; at++) {
        const fault_plan planned = {FAULT_KILL, at, 0};
        outcome out = save_with(&s.tiny, s.output, &planned);
        if (!out.could_trace) {
            tiny_close(&s.tiny);
            skip();
        }
        int step = newest(&s);
        was_old = was_old || step == 1;
        was_new = was_new || (step == 2 && out.exit_status == -1);
        clear(&s);
        if (out.exit_status == 0) {
            assert_true(at > 20 && was_old && was_new);
            assert_int_equal(step, 2);
            tiny_close(&s.tiny);
            return;
        }
    }
    fail_msg("a save makes more than %d calls", CALLS_MAX);
}

static void fail_every_call(int code, const char *name) {
    stage s;
    stage_open(&s, name);
    for (int at = 0; at < CALLS_MAX; at++) {
        const fault_plan planned = {FAULT_FAIL, at, code};
        outcome out = save_with(&s.tiny, s.output, &planned);
        if (!out.could_trace) {
            tiny_close(&s.tiny);
            skip();
        }
        int step = newest(&s);
        if (out.exit_status == 0 && out.calls <= at) {
            assert_true(at > 10);
            tiny_close(&s.tiny);
            return;
        }
        if (out.exit_status != 1)
            fail_msg("call %d failed with %s, and the save ended with %d", at, strerror(code),
                     out.exit_status);
        assert_false(path_exists(inside(&s, "checkpoint-2.tmp")));
        /* All but the last sync of the parent folder: there the new one is whole and in its place.
         */
        if (step == 1)
            assert_false(path_exists(inside(&s, "checkpoint-2")));
        clear(&s);
    }
    fail_msg("a save makes more than %d calls", CALLS_MAX);
}

static void disk_full_at_every_call_keeps_the_old(void **state) {
    (void)state;
    fail_every_call(ENOSPC, "full");
}

static void disk_error_at_every_call_keeps_the_old(void **state) {
    (void)state;
    fail_every_call(EIO, "error");
}

#else

static void killed_at_every_call_leaves_old_or_new(void **state) {
    (void)state;
    skip();
}

static void disk_full_at_every_call_keeps_the_old(void **state) {
    (void)state;
    skip();
}

static void disk_error_at_every_call_keeps_the_old(void **state) {
    (void)state;
    skip();
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_every_call_leaves_old_or_new),
        cmocka_unit_test(disk_full_at_every_call_keeps_the_old),
        cmocka_unit_test(disk_error_at_every_call_keeps_the_old),
    };
    return cmocka_run_group_tests_name("system calls of a save", tests, NULL, NULL);
}
