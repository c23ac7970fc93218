// SPDX-License-Identifier: Apache-2.0
#include "syscalls.h"

#include <sys/syscall.h>

void fill_operations(uint8_t *op_of)
{
#define IS(name, op) op_of[__NR_##name] = BDT_OP_##op
#ifdef __NR_open
	IS(open, OPEN);
	IS(creat, CREAT);
	IS(dup2, DUP2);
#endif
	IS(openat, OPENAT);
	IS(openat2, OPENAT2);
	IS(close, CLOSE);
	IS(read, READ);
	IS(pread64, PREAD64);
	IS(readv, READV);
	IS(preadv, PREADV);
	IS(preadv2, PREADV2);
	IS(write, WRITE);
	IS(pwrite64, PWRITE64);
	IS(writev, WRITEV);
	IS(pwritev, PWRITEV);
	IS(pwritev2, PWRITEV2);
	IS(lseek, LSEEK);
	IS(mmap, MMAP);
	IS(dup, DUP);
	IS(dup3, DUP3);
	IS(fcntl, FCNTL_DUPFD);
	IS(execve, EXECVE);
	IS(execveat, EXECVEAT);
	IS(sendfile, SENDFILE);
	IS(copy_file_range, COPY_FILE_RANGE);
	IS(splice, SPLICE);
#undef IS
}

void fill_shapes(uint8_t *op_of, struct bdt_shape *shapes)
{
#define IS(name, op, ...)                                                            \
	do {                                                                         \
		op_of[__NR_##name] = BDT_OP_##op;                                    \
		shapes[BDT_OP_##op] = (struct bdt_shape){ __VA_ARGS__ };                 \
	} while (0)
#ifdef __NR_stat
	IS(stat, STAT, .path = 1);
	IS(lstat, LSTAT, .path = 1);
	IS(access, ACCESS, .path = 1, .arg = 2);
	IS(readlink, READLINK, .path = 1, .size = 3);
	IS(getdents, GETDENTS, .fd = 1, .size = 3);
	IS(rename, RENAME, .path = 1, .second = 2);
	IS(unlink, UNLINK, .path = 1);
	IS(link, LINK, .path = 1, .second = 2);
	IS(symlink, SYMLINK, .path = 2, .second = 1);
	IS(mkdir, MKDIR, .path = 1, .arg = 2);
	IS(rmdir, RMDIR, .path = 1);
	IS(chmod, CHMOD, .path = 1, .arg = 2);
	IS(chown, CHOWN, .path = 1, .arg = 2);
	IS(lchown, LCHOWN, .path = 1, .arg = 2);
	IS(renameat, RENAMEAT, .path = 2, .second = 4, .base = 1);
#endif
	IS(fstat, FSTAT, .fd = 1);
	IS(newfstatat, NEWFSTATAT, .path = 2, .base = 1, .arg = 4);
	IS(statx, STATX, .path = 2, .base = 1, .arg = 3);
	IS(faccessat, FACCESSAT, .path = 2, .base = 1, .arg = 3);
	IS(faccessat2, FACCESSAT2, .path = 2, .base = 1, .arg = 3);
	IS(readlinkat, READLINKAT, .path = 2, .base = 1, .size = 4);
	IS(getdents64, GETDENTS64, .fd = 1, .size = 3);
	IS(truncate, TRUNCATE, .path = 1, .size = 2);
	IS(ftruncate, FTRUNCATE, .fd = 1, .size = 2);
	IS(fallocate, FALLOCATE, .fd = 1, .size = 4, .arg = 3);
	IS(fsync, FSYNC, .fd = 1);
	IS(fdatasync, FDATASYNC, .fd = 1);
	IS(renameat2, RENAMEAT2, .path = 2, .second = 4, .base = 1, .arg = 5);
	IS(unlinkat, UNLINKAT, .path = 2, .base = 1, .arg = 3);
	IS(linkat, LINKAT, .path = 2, .second = 4, .base = 1, .arg = 5);
	IS(symlinkat, SYMLINKAT, .path = 3, .second = 1, .base = 2);
	IS(mkdirat, MKDIRAT, .path = 2, .base = 1, .arg = 3);
	IS(fchmod, FCHMOD, .fd = 1, .arg = 2);
	IS(fchmodat, FCHMODAT, .path = 2, .base = 1, .arg = 3);
	IS(fchown, FCHOWN, .fd = 1, .arg = 2);
	IS(fchownat, FCHOWNAT, .path = 2, .base = 1, .arg = 3);
	IS(chdir, CHDIR, .path = 1);
	IS(fchdir, FCHDIR, .fd = 1);
	IS(munmap, MUNMAP);
	IS(msync, MSYNC, .arg = 3);
	IS(close_range, CLOSE_RANGE, .size = 2, .arg = 1);
#undef IS
}
