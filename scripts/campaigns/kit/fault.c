/* A library to be loaded into the daemon (LD_PRELOAD): its k-th call of some system call on a file of the store dies, fails or is torn.
 *
 * Calls are counted over all threads together, which a tracer does not do, and calls on other files are not counted.
 * FAULT_PAGE names a file that holds struct page and is shared with whoever stages the fault; FAULT_STORE is the store's path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { WRITE, PWRITE, FSYNC, FDATASYNC, RENAME, UNLINK, LINK, FTRUNCATE, CREATE, FALLOCATE, READ, PREAD, MKDIR, OPEN, CALLS };
enum action { COUNT, KILL_BEFORE, KILL_AFTER, FAIL, TORN };

struct page {
    _Atomic uint32_t armed;  /* Nothing is counted before. */
    uint32_t mask;           /* A bit for each call that counts. */
    int64_t at;              /* The call that meets the fault, from 1. */
    uint32_t action, error;
    uint32_t sticky;         /* Later calls fail too. */
    uint32_t unused;
    _Atomic int64_t counted, fired;
    _Atomic int64_t each[CALLS];
};

static struct page *page;
static char store[4096];
static size_t store_length;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULT_PAGE"), *of = getenv("FAULT_STORE");
    if (!path || !of || strlen(of) >= sizeof store) return;
    store_length = strlen(strcpy(store, of));
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (mapped != MAP_FAILED) page = mapped;
}

static int in_store(const char *path) {
    return !strncmp(path, store, store_length) && (path[store_length] == '/' || !path[store_length]);
}

static int of_store(int file) {
    char link[64], path[4200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return in_store(path);
}

static int of_store_at(int dir, const char *path) {
    return path[0] == '/' || dir == AT_FDCWD ? in_store(path) : of_store(dir);
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

/* Returns the action that this call meets. */
static enum action meets(enum call call) {
    if (!page || !page->armed || !(page->mask & 1u << call)) return COUNT;
    page->each[call]++;
    int64_t number = ++page->counted;
    if (number != page->at && !(page->sticky && number > page->at)) return COUNT;
    page->fired++;
    if (page->action == KILL_BEFORE) die();
    return page->action;
}

#define REAL(name, type) \
    static type real; \
    if (!real) real = (type)dlsym(RTLD_NEXT, name)

/* Does CALL on the store under the fault: it never happens, or the process dies behind it. */
#define GUARDED(call, concerned, result_type, failed, really) \
    do { \
        int saved = errno; \
        enum action action = page && page->armed && (concerned) ? meets(call) : COUNT; \
        errno = saved; \
        if (action == FAIL) { errno = page->error; return failed; } \
        result_type result = really; \
        if (action == KILL_AFTER) die(); \
        return result; \
    } while (0)

typedef ssize_t (*pwrite_type)(int, const void *, size_t, off_t);
typedef ssize_t (*write_type)(int, const void *, size_t);

#define WRITES(call, half, whole) \
    do { \
        enum action action = page && page->armed && of_store(file) ? meets(call) : COUNT; \
        if (action == FAIL) { errno = page->error; return -1; } \
        if (action == TORN) { half; die(); } \
        ssize_t result = whole; \
        if (action == KILL_AFTER) die(); \
        return result; \
    } while (0)

ssize_t pwrite64(int file, const void *bytes, size_t length, off_t offset) {
    REAL("pwrite64", pwrite_type);
    WRITES(PWRITE, real(file, bytes, length / 2, offset), real(file, bytes, length, offset));
}
ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) { return pwrite64(file, bytes, length, offset); }

ssize_t write(int file, const void *bytes, size_t length) {
    REAL("write", write_type);
    WRITES(WRITE, real(file, bytes, length / 2), real(file, bytes, length));
}

typedef ssize_t (*pread_type)(int, void *, size_t, off_t);
typedef ssize_t (*read_type)(int, void *, size_t);

ssize_t pread64(int file, void *bytes, size_t length, off_t offset) {
    REAL("pread64", pread_type);
    GUARDED(PREAD, of_store(file), ssize_t, -1, real(file, bytes, length, offset));
}
ssize_t pread(int file, void *bytes, size_t length, off_t offset) { return pread64(file, bytes, length, offset); }

ssize_t read(int file, void *bytes, size_t length) {
    REAL("read", read_type);
    GUARDED(READ, of_store(file), ssize_t, -1, real(file, bytes, length));
}

typedef int (*file_type)(int);
int fsync(int file) {
    REAL("fsync", file_type);
    GUARDED(FSYNC, of_store(file), int, -1, real(file));
}
int fdatasync(int file) {
    REAL("fdatasync", file_type);
    GUARDED(FDATASYNC, of_store(file), int, -1, real(file));
}

typedef int (*length_type)(int, off_t);
int ftruncate64(int file, off_t length) {
    REAL("ftruncate64", length_type);
    GUARDED(FTRUNCATE, of_store(file), int, -1, real(file, length));
}
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

typedef int (*fallocate_type)(int, int, off_t, off_t);
int fallocate64(int file, int mode, off_t offset, off_t length) {
    REAL("fallocate64", fallocate_type);
    GUARDED(FALLOCATE, of_store(file), int, -1, real(file, mode, offset, length));
}
int fallocate(int file, int mode, off_t offset, off_t length) { return fallocate64(file, mode, offset, length); }

typedef int (*paths_type)(const char *, const char *);
typedef int (*path_type)(const char *);
int rename(const char *old, const char *new) {
    REAL("rename", paths_type);
    GUARDED(RENAME, in_store(new), int, -1, real(old, new));
}
typedef int (*renameat_type)(int, const char *, int, const char *);
int renameat(int old_dir, const char *old, int new_dir, const char *new) {
    REAL("renameat", renameat_type);
    GUARDED(RENAME, of_store_at(new_dir, new), int, -1, real(old_dir, old, new_dir, new));
}
int link(const char *old, const char *new) {
    REAL("link", paths_type);
    GUARDED(LINK, in_store(new), int, -1, real(old, new));
}
typedef int (*linkat_type)(int, const char *, int, const char *, int);
int linkat(int old_dir, const char *old, int new_dir, const char *new, int flags) {
    REAL("linkat", linkat_type);
    GUARDED(LINK, of_store_at(new_dir, new), int, -1, real(old_dir, old, new_dir, new, flags));
}
int unlink(const char *path) {
    REAL("unlink", path_type);
    GUARDED(UNLINK, in_store(path), int, -1, real(path));
}
typedef int (*unlinkat_type)(int, const char *, int);
int unlinkat(int dir, const char *path, int flags) {
    REAL("unlinkat", unlinkat_type);
    GUARDED(UNLINK, of_store_at(dir, path), int, -1, real(dir, path, flags));
}
typedef int (*mkdir_type)(const char *, mode_t);
int mkdir(const char *path, mode_t mode) {
    REAL("mkdir", mkdir_type);
    GUARDED(MKDIR, in_store(path), int, -1, real(path, mode));
}

typedef int (*openat_type)(int, const char *, int, ...);
int openat64(int dir, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    REAL("openat64", openat_type);
    GUARDED(flags & O_CREAT ? CREATE : OPEN, of_store_at(dir, path), int, -1, real(dir, path, flags, mode));
}
int openat(int dir, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return openat64(dir, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return openat64(AT_FDCWD, path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return openat64(AT_FDCWD, path, flags, mode);
}
