/*
 * Lets user-mode-linux run on processors with more register state than it knows (AVX-512, AMX).
 *
 * The kernel in the process keeps each of its threads' extended registers in a buffer of fixed
 * size, and panics when PTRACE_SETREGSET refuses one that is shorter than the processor's state.
 * Such a request is made again here with the whole state: what the thread has now, and over it
 * what the caller gave. Preloaded by uml.py; everything else passes through.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <linux/ptrace.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WHOLE_STATE = 64 * 1024 };

static long request_whole(long pid, void *kind, const struct iovec *given)
{
    static _Thread_local char whole[WHOLE_STATE] __attribute__((aligned(64)));
    struct iovec state = { whole, sizeof whole };

    if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, kind, &state) < 0)
        return -1;
    memcpy(whole, given->iov_base, given->iov_len < state.iov_len ? given->iov_len : state.iov_len);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, kind, &state);
}

long ptrace(int request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, int);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSR) {
        /* The C library returns the word that the system call stores. */
        long word = 0;
        if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
            return -1;
        errno = 0;
        return word;
    }
    long result = syscall(SYS_ptrace, request, pid, address, data);
    if (result < 0 && request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
        result = request_whole(pid, address, data);
    return result;
}
