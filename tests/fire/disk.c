/* A layer between a process and its files, loaded with LD_PRELOAD: it writes down what happens below one folder, and makes
 * it fail where it is told to. It decides nothing about what survives a power cut; tests/fire/disk.rs does, from the trace.
 *
 *   QM2_DISK_ROOT     the folder, absolute and without links; without it the layer does nothing
 *   QM2_DISK_TRACE    the file that gets the trace, outside of the folder; all processes append to it
 *   QM2_DISK_JOURNAL  a file outside; what is appended to it stands in the trace, between the operations around it
 *   QM2_DISK_FAULT    a fault, for the first process only: those that it starts do not inherit it; see fault_read()
 *   QM2_DISK_HEALED   the fault is over once this file exists
 *   QM2_DISK_FIRED    this file is made when it comes to the fault
 *
 * An operation is in the trace after it was done, a sync before and after, and what leaves the process (a line of the
 * journal, output of qm2) before: so whatever somebody outside has seen is in the trace at a place that is not too late,
 * and nothing counts as durable that was not when its sync began.
 *
 * Not seen: stdio's own writes, memory maps (SQLite maps only its index of the log, which it never trusts after a crash).
 * Whether something else was missed is tested: at the end of a trace the folder must be what the trace makes of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum kind { MADE = 1, OPENED, WRITTEN, CUT, SYNC_BEGUN, SYNC_DONE, SYNC_FAILED, REMOVED, RENAMED, FOLDER, FOLDER_REMOVED, JOURNAL, SAID };

/* Before each entry; then the path, the second path, the data. */
struct head {
    uint32_t kind, pid, path_bytes, other_bytes;
    uint64_t data_bytes, file, at;
};

static char root[PATH_MAX], trace_path[PATH_MAX], journal[PATH_MAX], healed[PATH_MAX], fired[PATH_MAX], said_by[512];
static size_t root_bytes;
static int trace = -1, is_qm2;
static _Atomic uint64_t syncs;

static int raw_open(int folder, const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

/* ---- faults ---- */

enum operation { OPEN = 1, READ = 2, WRITE = 4, SYNC = 8, TRUNCATE = 16, NAME = 32, UNNAME = 64 };

/* `first` to `last` of the operations of these kinds fail; or writes fail once the folder has grown by `space` bytes. */
static struct { unsigned operations; long first, last, space; int error, is_short, is_read_only; } fault;
static _Atomic long matched, grown;

/* In the place of an errno: the process is killed, as by kill -9, in front of the operation. */
#define KILL 9999

/* `OPERATIONS FIRST LAST ERRNO`, where operations are letters of "orwstnu", a write with errno 0 is only cut short;
 * `space BYTES`; `readonly ERRNO`. */
static void fault_read(const char *text) {
    char letters[16] = "";
    if (sscanf(text, "space %ld", &fault.space) == 1) return;
    if (sscanf(text, "readonly %d", &fault.error) == 1) { fault.is_read_only = 1; return; }
    if (sscanf(text, "%15s %ld %ld %d", letters, &fault.first, &fault.last, &fault.error) != 4) {
        fprintf(stderr, "disk.c: not a fault: %s\n", text);
        _exit(99);
    }
    for (char *letter = letters; *letter; letter++) {
        const char *all = "orwstnu", *at = strchr(all, *letter);
        if (at) fault.operations |= 1u << (at - all);
    }
    fault.is_short = fault.error == 0;
}

static int is_healed(void) { return healed[0] && syscall(SYS_faccessat, AT_FDCWD, healed, F_OK) == 0; }

static void fire(void) {
    int before = errno, fd = fired[0] ? raw_open(AT_FDCWD, fired, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) syscall(SYS_close, fd);
    errno = before;
}

/* Whether this operation fails: its errno, -1 for a write that is cut short, 0 if it does not. */
static int fails(enum operation operation) {
    int error = 0;
    if (fault.is_read_only && (operation & (WRITE | TRUNCATE | NAME | UNNAME))) error = fault.error;
    if (fault.operations & operation) {
        long now = ++matched;
        if (now >= fault.first && now <= fault.last) error = fault.is_short ? -1 : fault.error;
    }
    if (!error || is_healed()) return 0;
    fire();
    if (error == KILL) syscall(SYS_kill, getpid(), SIGKILL);
    return error;
}

static int refused(enum operation operation) {
    int error = fails(operation);
    if (error > 0) errno = error;
    return error > 0;
}

/* How much of a write that ends there fits on the disk. */
static size_t room(int fd, off_t at, size_t count) {
    struct stat found;
    if (!fault.space || fstat(fd, &found) != 0 || at + (off_t)count <= found.st_size) return count;
    if (is_healed()) return count;
    long more = (long)(at + (off_t)count - found.st_size), left = fault.space - grown;
    if (more <= left) { grown += more; return count; }
    fire();
    if (left > 0) grown += left; else left = 0;
    return count > (size_t)(more - left) ? count - (size_t)(more - left) : 0;
}

/* ---- the trace ---- */

static void trace_open(void) {
    int fd = raw_open(AT_FDCWD, trace_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    /* Out of the way of programs that count on small numbers. */
    trace = fcntl(fd, F_DUPFD_CLOEXEC, 300);
    syscall(SYS_close, fd);
}

static void note(enum kind kind, uint64_t file, uint64_t at, const char *path, const char *other, const struct iovec *data, int count) {
    int before = errno;
    struct head head = {kind, (uint32_t)getpid(), path ? strlen(path) : 0, other ? strlen(other) : 0, 0, file, at};
    struct iovec parts[67] = {{&head, sizeof head}, {(void *)path, head.path_bytes}, {(void *)other, head.other_bytes}};
    int used = 3;
    for (int i = 0; i < count && used < 67; i++, used++) {
        parts[used] = data[i];
        head.data_bytes += data[i].iov_len;
    }
    size_t bytes = sizeof head + head.path_bytes + head.other_bytes + head.data_bytes;
    /* One call, so that entries of many processes stand one after another. */
    for (int again = 0; trace_path[0] && again < 2; again++) {
        if (trace < 0) trace_open();
        if (syscall(SYS_writev, trace, parts, used) == (long)bytes) break;
        if (errno != EBADF) { static const char says[] = "disk.c: the trace is not whole\n"; syscall(SYS_write, 2, says, sizeof says - 1); _exit(99); }
        trace = -1;
    }
    errno = before;
}

/* ---- what is below the folder ---- */

static const char *below(const char *path) {
    return root_bytes && !strncmp(path, root, root_bytes) && (path[root_bytes] == '/' || !path[root_bytes]) ? path + root_bytes : NULL;
}

static int path_of_fd(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t count = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (count < 0) return 0;
    path[count] = 0;
    return 1;
}

/* The absolute path; the folders in it are never links here. */
static int absolute(int folder, const char *path, char *into) {
    if (!root_bytes) return 0;
    if (path[0] == '/') {
        snprintf(into, PATH_MAX, "%s", path);
        return 1;
    }
    if (folder == AT_FDCWD ? !getcwd(into, PATH_MAX) : !path_of_fd(folder, into)) return 0;
    size_t used = strlen(into);
    snprintf(into + used, PATH_MAX - used, "/%s", path);
    return 1;
}

/* Whether it is a file below the folder; then which one. */
static int is_ours(int fd, uint64_t *file, char *path) {
    struct stat found;
    int before = errno, ours = 0;
    if (root_bytes && fd != trace && fstat(fd, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)) && path_of_fd(fd, path)) {
        *file = S_ISDIR(found.st_mode) ? 0 : found.st_ino;
        ours = below(path) != NULL;
    }
    errno = before;
    return ours;
}

__attribute__((constructor)) static void begin(void) {
    const char *value;
    char program[PATH_MAX] = "";
    if (!(value = getenv("QM2_DISK_ROOT"))) return;
    snprintf(root, sizeof root, "%s", value);
    root_bytes = strlen(root);
    if ((value = getenv("QM2_DISK_TRACE"))) snprintf(trace_path, sizeof trace_path, "%s", value);
    if ((value = getenv("QM2_DISK_JOURNAL"))) snprintf(journal, sizeof journal, "%s", value);
    if ((value = getenv("QM2_DISK_HEALED"))) snprintf(healed, sizeof healed, "%s", value);
    if ((value = getenv("QM2_DISK_FIRED"))) snprintf(fired, sizeof fired, "%s", value);
    if ((value = getenv("QM2_DISK_FAULT"))) { fault_read(value); unsetenv("QM2_DISK_FAULT"); }
    ssize_t count = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", program, sizeof program - 1);
    is_qm2 = count > 4 && !strcmp(program + count - 4, "/qm2");
    int fd = is_qm2 ? raw_open(AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd >= 0) {
        count = syscall(SYS_read, fd, said_by, sizeof said_by - 1);
        for (ssize_t i = 0; i < count; i++) if (!said_by[i]) said_by[i] = ' ';
        syscall(SYS_close, fd);
    }
}

/* ---- opening ---- */

static int open_seen(int folder, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    struct stat found;
    const char *name;
    int fd, made = 0;
    if (!absolute(folder, path, full) || !(name = below(full))) return raw_open(folder, path, flags, mode);
    if (refused(OPEN)) return -1;
    if (fault.is_read_only && (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && !is_healed()) {
        /* A file that is not there says so first, unless it was to be made. */
        if ((flags & O_CREAT) || syscall(SYS_faccessat, folder, path, F_OK) == 0) { fire(); errno = fault.error; return -1; }
    }
    if ((flags & O_CREAT) && !(flags & O_EXCL)) {
        /* Whether it is made by this call must be known. */
        do {
            fd = raw_open(folder, path, flags & ~O_CREAT, mode);
            if (fd >= 0 || errno != ENOENT) break;
            if (refused(NAME)) return -1;
            fd = raw_open(folder, path, flags | O_EXCL, mode);
            made = fd >= 0;
        } while (fd < 0 && errno == EEXIST);
    } else {
        if ((flags & O_CREAT) && refused(NAME)) return -1;
        fd = raw_open(folder, path, flags, mode);
        made = fd >= 0 && (flags & O_CREAT);
    }
    int before = errno;
    if (fd >= 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode)) {
        note(made ? MADE : OPENED, found.st_ino, 0, name, NULL, NULL, 0);
        if ((flags & O_TRUNC) && !made) note(CUT, found.st_ino, 0, NULL, NULL, NULL, 0);
    }
    errno = before;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE(flags) return open_seen(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_seen(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return open_seen(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return open_seen(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_seen(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_seen(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ---- reading and writing ---- */

ssize_t read(int fd, void *into, size_t count) {
    uint64_t file;
    char path[PATH_MAX];
    if ((fault.operations & READ) && is_ours(fd, &file, path) && file && refused(READ)) return -1;
    return syscall(SYS_read, fd, into, count);
}

static ssize_t pread_seen(int fd, void *into, size_t count, off_t at) {
    uint64_t file;
    char path[PATH_MAX];
    if ((fault.operations & READ) && is_ours(fd, &file, path) && file && refused(READ)) return -1;
    return syscall(SYS_pread64, fd, into, count, at);
}
ssize_t pread(int fd, void *into, size_t count, off_t at) { return pread_seen(fd, into, count, at); }
ssize_t pread64(int fd, void *into, size_t count, off_t at) { return pread_seen(fd, into, count, at); }

/* Data that leaves the process where somebody may have seen it. */
static void note_leaving(int fd, const struct iovec *data, int count) {
    char path[PATH_MAX];
    if (is_qm2 && (fd == 1 || fd == 2)) note(SAID, (uint64_t)fd, 0, said_by, NULL, data, count);
    else if (journal[0] && fd != trace && path_of_fd(fd, path) && !strcmp(path, journal)) note(JOURNAL, 0, 0, NULL, NULL, data, count);
}

static ssize_t write_seen(int fd, const void *from, size_t count, off_t at, int is_at) {
    uint64_t file;
    char path[PATH_MAX];
    struct iovec data = {(void *)from, count};
    if (!root_bytes || fd == trace) return is_at ? syscall(SYS_pwrite64, fd, from, count, at) : syscall(SYS_write, fd, from, count);
    if (!is_ours(fd, &file, path)) {
        note_leaving(fd, &data, 1);
        return is_at ? syscall(SYS_pwrite64, fd, from, count, at) : syscall(SYS_write, fd, from, count);
    }
    int error = fails(WRITE);
    if (error > 0) { errno = error; return -1; }
    size_t allowed = error < 0 ? count / 2 : count;
    off_t place = at;
    if (!is_at) {
        struct stat found;
        place = (fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &found) == 0 ? found.st_size : lseek(fd, 0, SEEK_CUR);
    }
    allowed = room(fd, place, allowed);
    if (!allowed && count) { errno = ENOSPC; return -1; }
    ssize_t done = is_at ? syscall(SYS_pwrite64, fd, from, allowed, at) : syscall(SYS_write, fd, from, allowed);
    if (done > 0) {
        if (!is_at) place = lseek(fd, 0, SEEK_CUR) - done;
        data.iov_len = (size_t)done;
        note(WRITTEN, file, (uint64_t)place, NULL, NULL, &data, 1);
    }
    return done;
}

ssize_t write(int fd, const void *from, size_t count) { return write_seen(fd, from, count, 0, 0); }
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) { return write_seen(fd, from, count, at, 1); }
ssize_t pwrite64(int fd, const void *from, size_t count, off_t at) { return write_seen(fd, from, count, at, 1); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    uint64_t file;
    char path[PATH_MAX];
    ssize_t all = 0;
    if (!root_bytes || fd == trace) return syscall(SYS_writev, fd, parts, count);
    if (!is_ours(fd, &file, path)) {
        note_leaving(fd, parts, count > 64 ? 64 : count);
        return syscall(SYS_writev, fd, parts, count);
    }
    for (int i = 0; i < count; i++) {
        ssize_t done = write_seen(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
        if (done < 0) return all ? all : done;
        all += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return all;
}

static int cut_seen(int fd, off_t bytes) {
    uint64_t file;
    char path[PATH_MAX];
    int ours = is_ours(fd, &file, path);
    if (ours && refused(TRUNCATE)) return -1;
    int done = (int)syscall(SYS_ftruncate, fd, bytes);
    if (!done && ours) note(CUT, file, (uint64_t)bytes, NULL, NULL, NULL, 0);
    return done;
}
int ftruncate(int fd, off_t bytes) { return cut_seen(fd, bytes); }
int ftruncate64(int fd, off_t bytes) { return cut_seen(fd, bytes); }

/* What would change a file past this layer. */
static int unseen(int fd, const char *what) {
    uint64_t file;
    char path[PATH_MAX];
    if (!is_ours(fd, &file, path)) return 0;
    fprintf(stderr, "disk.c: %s of %s is not traced\n", what, path);
    _exit(99);
}
int fallocate(int fd, int mode, off_t at, off_t bytes) { unseen(fd, "fallocate"); return (int)syscall(SYS_fallocate, fd, mode, at, bytes); }
int fallocate64(int fd, int mode, off_t at, off_t bytes) { unseen(fd, "fallocate"); return (int)syscall(SYS_fallocate, fd, mode, at, bytes); }
ssize_t copy_file_range(int from, off_t *at, int to, off_t *to_at, size_t count, unsigned flags) {
    unseen(to, "copy_file_range");
    return syscall(SYS_copy_file_range, from, at, to, to_at, count, flags);
}

/* ---- syncing ---- */

static int sync_seen(int fd, long call) {
    uint64_t file;
    char path[PATH_MAX];
    if (!is_ours(fd, &file, path)) return (int)syscall(call, fd);
    const char *folder = file ? NULL : below(path);
    uint64_t number = ((uint64_t)getpid() << 32) | ++syncs;
    note(SYNC_BEGUN, file, number, folder, NULL, NULL, 0);
    int failed = refused(SYNC);
    int done = failed ? -1 : (int)syscall(call, fd);
    note(done ? SYNC_FAILED : SYNC_DONE, file, number, folder, NULL, NULL, 0);
    return done;
}
int fsync(int fd) { return sync_seen(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_seen(fd, SYS_fdatasync); }

/* ---- names ---- */

static int renameat_seen(int folder, const char *from, int other_folder, const char *to, unsigned flags) {
    char first[PATH_MAX], second[PATH_MAX];
    const char *old = absolute(folder, from, first) ? below(first) : NULL, *new = absolute(other_folder, to, second) ? below(second) : NULL;
    if ((old || new) && refused(NAME)) return -1;
    int done = (int)syscall(SYS_renameat2, folder, from, other_folder, to, flags);
    if (!done && (old || new)) {
        if (!old || !new || flags) { fprintf(stderr, "disk.c: rename of %s to %s is not traced\n", first, second); _exit(99); }
        note(RENAMED, 0, 0, old, new, NULL, 0);
    }
    return done;
}
int rename(const char *from, const char *to) { return renameat_seen(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int folder, const char *from, int other, const char *to) { return renameat_seen(folder, from, other, to, 0); }
int renameat2(int folder, const char *from, int other, const char *to, unsigned flags) { return renameat_seen(folder, from, other, to, flags); }

static int unlinkat_seen(int folder, const char *path, int flags) {
    char full[PATH_MAX];
    const char *name = absolute(folder, path, full) ? below(full) : NULL;
    if (name && refused(UNNAME)) return -1;
    int done = (int)syscall(SYS_unlinkat, folder, path, flags);
    if (!done && name) note(flags & AT_REMOVEDIR ? FOLDER_REMOVED : REMOVED, 0, 0, name, NULL, NULL, 0);
    return done;
}
int unlink(const char *path) { return unlinkat_seen(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return unlinkat_seen(folder, path, flags); }
int rmdir(const char *path) { return unlinkat_seen(AT_FDCWD, path, AT_REMOVEDIR); }

static int mkdirat_seen(int folder, const char *path, mode_t mode) {
    char full[PATH_MAX];
    const char *name = absolute(folder, path, full) ? below(full) : NULL;
    if (name && refused(NAME)) return -1;
    int done = (int)syscall(SYS_mkdirat, folder, path, mode);
    if (!done && name) note(FOLDER, 0, 0, name, NULL, NULL, 0);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat_seen(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return mkdirat_seen(folder, path, mode); }

/* A socket is a name, too; it is not in the trace, because nothing of it outlives its process. */
int bind(int fd, const struct sockaddr *address, socklen_t bytes) {
    const struct sockaddr_un *local = (const struct sockaddr_un *)address;
    if (address->sa_family == AF_UNIX && below(local->sun_path) && refused(NAME)) return -1;
    return (int)syscall(SYS_bind, fd, address, bytes);
}

static int linkat_seen(int folder, const char *from, int other, const char *to, int flags) {
    char full[PATH_MAX];
    if (absolute(other, to, full) && below(full)) { fprintf(stderr, "disk.c: link of %s is not traced\n", full); _exit(99); }
    return (int)syscall(SYS_linkat, folder, from, other, to, flags);
}
int link(const char *from, const char *to) { return linkat_seen(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int folder, const char *from, int other, const char *to, int flags) { return linkat_seen(folder, from, other, to, flags); }
