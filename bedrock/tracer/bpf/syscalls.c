// SPDX-License-Identifier: Apache-2.0
#include "syscalls.h"

#include "calls.h"

#include <sys/syscall.h>

void fill_new_operations(uint8_t *op_of)
{
	op_of[452] = BDT_OP_FCHMODAT2;
	op_of[463] = BDT_OP_SETXATTRAT;
	op_of[464] = BDT_OP_GETXATTRAT;
	op_of[465] = BDT_OP_LISTXATTRAT;
	op_of[466] = BDT_OP_REMOVEXATTRAT;
	op_of[468] = BDT_OP_FILE_GETATTR;
	op_of[469] = BDT_OP_FILE_SETATTR;
}

void fill_operations(uint8_t *op_of)
{
#define IS(name, op) op_of[__NR_##name] = BDT_OP_##op
#ifdef __NR_open
	IS(open, OPEN);
	IS(creat, CREAT);
	IS(dup2, DUP2);
	IS(stat, STAT);
	IS(lstat, LSTAT);
	IS(access, ACCESS);
	IS(readlink, READLINK);
	IS(getdents, GETDENTS);
	IS(rename, RENAME);
	IS(unlink, UNLINK);
	IS(link, LINK);
	IS(symlink, SYMLINK);
	IS(mkdir, MKDIR);
	IS(rmdir, RMDIR);
	IS(chmod, CHMOD);
	IS(chown, CHOWN);
	IS(lchown, LCHOWN);
	IS(utime, UTIME);
	IS(utimes, UTIMES);
	IS(futimesat, FUTIMESAT);
	IS(mknod, MKNOD);
	IS(fork, FORK);
	IS(vfork, FORK);
#endif
#ifdef __NR_renameat
	IS(renameat, RENAMEAT);
#endif
	IS(openat, OPENAT);
	IS(openat2, OPENAT2);
	IS(close, CLOSE);
	IS(close_range, CLOSE_RANGE);
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
	IS(munmap, MUNMAP);
	IS(msync, MSYNC);
	IS(dup, DUP);
	IS(dup3, DUP3);
	IS(fcntl, FCNTL_DUPFD);
	IS(execve, EXECVE);
	IS(execveat, EXECVEAT);
	IS(sendfile, SENDFILE);
	IS(copy_file_range, COPY_FILE_RANGE);
	IS(splice, SPLICE);
	IS(fstat, FSTAT);
	IS(newfstatat, NEWFSTATAT);
	IS(statx, STATX);
	IS(faccessat, FACCESSAT);
	IS(faccessat2, FACCESSAT2);
	IS(readlinkat, READLINKAT);
	IS(getdents64, GETDENTS64);
	IS(truncate, TRUNCATE);
	IS(ftruncate, FTRUNCATE);
	IS(fallocate, FALLOCATE);
	IS(fsync, FSYNC);
	IS(fdatasync, FDATASYNC);
	IS(sync_file_range, SYNC_FILE_RANGE);
	IS(syncfs, SYNCFS);
	IS(renameat2, RENAMEAT2);
	IS(unlinkat, UNLINKAT);
	IS(linkat, LINKAT);
	IS(symlinkat, SYMLINKAT);
	IS(mkdirat, MKDIRAT);
	IS(mknodat, MKNODAT);
	IS(fchmod, FCHMOD);
	IS(fchmodat, FCHMODAT);
	IS(fchown, FCHOWN);
	IS(fchownat, FCHOWNAT);
	IS(utimensat, UTIMENSAT);
	IS(chdir, CHDIR);
	IS(fchdir, FCHDIR);
	IS(chroot, CHROOT);
	IS(statfs, STATFS);
	IS(fstatfs, FSTATFS);
	IS(getxattr, GETXATTR);
	IS(lgetxattr, LGETXATTR);
	IS(fgetxattr, FGETXATTR);
	IS(listxattr, LISTXATTR);
	IS(llistxattr, LLISTXATTR);
	IS(flistxattr, FLISTXATTR);
	IS(setxattr, SETXATTR);
	IS(lsetxattr, LSETXATTR);
	IS(fsetxattr, FSETXATTR);
	IS(removexattr, REMOVEXATTR);
	IS(lremovexattr, LREMOVEXATTR);
	IS(fremovexattr, FREMOVEXATTR);
	IS(readahead, READAHEAD);
	IS(fadvise64, FADVISE64);
	IS(name_to_handle_at, NAME_TO_HANDLE_AT);
	IS(open_by_handle_at, OPEN_BY_HANDLE_AT);
	IS(ioctl, IOCTL_CLONE);
	IS(io_submit, IO_SUBMIT);
	IS(bind, BIND);
	IS(inotify_add_watch, INOTIFY_ADD_WATCH);
	IS(sync, SYNC);
	IS(flock, FLOCK);
	IS(recvmsg, RECEIVE_FD);
	IS(clone, FORK);
	IS(clone3, FORK);
	fill_new_operations(op_of);
#undef IS
}

void fill_shapes(struct bdt_shape *shapes)
{
#define TAKES(op, ...) shapes[BDT_OP_##op] = (struct bdt_shape){ __VA_ARGS__ }
	TAKES(OPEN, .path = 1);
	TAKES(CREAT, .path = 1);
	TAKES(OPENAT, .path = 2, .base = 1);
	TAKES(OPENAT2, .path = 2, .base = 1);
	TAKES(EXECVE, .path = 1);
	TAKES(EXECVEAT, .path = 2, .base = 1);
	/* Its address has the path behind the family. */
	TAKES(BIND, .path = 2);
	TAKES(INOTIFY_ADD_WATCH, .path = 2, .arg = 3);
	TAKES(IOCTL_SETFLAGS, .fd = 1, .arg = 3);
	TAKES(FLOCK, .fd = 1, .arg = 2);
	TAKES(STAT, .path = 1);
	TAKES(LSTAT, .path = 1);
	TAKES(FSTAT, .fd = 1);
	TAKES(NEWFSTATAT, .path = 2, .base = 1, .arg = 4);
	TAKES(STATX, .path = 2, .base = 1, .arg = 3);
	TAKES(ACCESS, .path = 1, .arg = 2);
	TAKES(FACCESSAT, .path = 2, .base = 1, .arg = 3);
	TAKES(FACCESSAT2, .path = 2, .base = 1, .arg = 3);
	TAKES(READLINK, .path = 1, .size = 3);
	TAKES(READLINKAT, .path = 2, .base = 1, .size = 4);
	TAKES(GETDENTS, .fd = 1, .size = 3);
	TAKES(GETDENTS64, .fd = 1, .size = 3);
	TAKES(TRUNCATE, .path = 1, .size = 2);
	TAKES(FTRUNCATE, .fd = 1, .size = 2);
	TAKES(FALLOCATE, .fd = 1, .offset = 3, .size = 4, .arg = 2);
	TAKES(FSYNC, .fd = 1);
	TAKES(FDATASYNC, .fd = 1);
	TAKES(SYNC_FILE_RANGE, .fd = 1, .offset = 2, .size = 3, .arg = 4);
	TAKES(SYNCFS, .fd = 1);
	TAKES(RENAME, .path = 1, .second = 2, .second_base = WORKING_DIRECTORY);
	TAKES(RENAMEAT, .path = 2, .second = 4, .base = 1, .second_base = 3);
	TAKES(RENAMEAT2, .path = 2, .second = 4, .base = 1, .second_base = 3, .arg = 5);
	TAKES(UNLINK, .path = 1);
	TAKES(UNLINKAT, .path = 2, .base = 1, .arg = 3);
	TAKES(LINK, .path = 1, .second = 2, .second_base = WORKING_DIRECTORY);
	TAKES(LINKAT, .path = 2, .second = 4, .base = 1, .second_base = 3, .arg = 5);
	TAKES(SYMLINK, .path = 2, .second = 1);
	TAKES(SYMLINKAT, .path = 3, .second = 1, .base = 2);
	TAKES(MKDIR, .path = 1, .arg = 2);
	TAKES(MKDIRAT, .path = 2, .base = 1, .arg = 3);
	TAKES(RMDIR, .path = 1);
	TAKES(MKNOD, .path = 1, .arg = 2);
	TAKES(MKNODAT, .path = 2, .base = 1, .arg = 3);
	TAKES(CHMOD, .path = 1, .arg = 2);
	TAKES(FCHMOD, .fd = 1, .arg = 2);
	TAKES(FCHMODAT, .path = 2, .base = 1, .arg = 3);
	TAKES(FCHMODAT2, .path = 2, .base = 1, .arg = 3);
	TAKES(CHOWN, .path = 1, .arg = 2);
	TAKES(LCHOWN, .path = 1, .arg = 2);
	TAKES(FCHOWN, .fd = 1, .arg = 2);
	TAKES(FCHOWNAT, .path = 2, .base = 1, .arg = 3);
	TAKES(UTIME, .path = 1);
	TAKES(UTIMES, .path = 1);
	TAKES(FUTIMESAT, .path = 2, .base = 1);
	TAKES(UTIMENSAT, .path = 2, .base = 1, .arg = 4);
	TAKES(CHDIR, .path = 1);
	TAKES(FCHDIR, .fd = 1);
	TAKES(CHROOT, .path = 1);
	TAKES(STATFS, .path = 1);
	TAKES(FSTATFS, .fd = 1);
	TAKES(GETXATTR, .path = 1, .second = 2, .size = 4);
	TAKES(LGETXATTR, .path = 1, .second = 2, .size = 4);
	TAKES(FGETXATTR, .fd = 1, .second = 2, .size = 4);
	TAKES(LISTXATTR, .path = 1, .size = 3);
	TAKES(LLISTXATTR, .path = 1, .size = 3);
	TAKES(FLISTXATTR, .fd = 1, .size = 3);
	TAKES(SETXATTR, .path = 1, .second = 2, .size = 4, .arg = 5);
	TAKES(LSETXATTR, .path = 1, .second = 2, .size = 4, .arg = 5);
	TAKES(FSETXATTR, .fd = 1, .second = 2, .size = 4, .arg = 5);
	TAKES(REMOVEXATTR, .path = 1, .second = 2);
	TAKES(LREMOVEXATTR, .path = 1, .second = 2);
	TAKES(FREMOVEXATTR, .fd = 1, .second = 2);
	TAKES(READAHEAD, .fd = 1, .offset = 2, .size = 3);
	TAKES(FADVISE64, .fd = 1, .offset = 2, .size = 3, .arg = 4);
	TAKES(CLOSE_RANGE, .size = 2, .arg = 1);
	TAKES(NAME_TO_HANDLE_AT, .path = 2, .base = 1, .arg = 5);
	TAKES(OPEN_BY_HANDLE_AT, .fd = 1, .arg = 3);
	TAKES(IOCTL_CLONE, .fd = 1, .arg = 3);
	TAKES(SETXATTRAT, .path = 2, .base = 1, .second = 4, .arg = 3);
	TAKES(GETXATTRAT, .path = 2, .base = 1, .second = 4, .arg = 3);
	TAKES(LISTXATTRAT, .path = 2, .base = 1, .size = 5, .arg = 3);
	TAKES(REMOVEXATTRAT, .path = 2, .base = 1, .second = 4, .arg = 3);
	TAKES(FILE_GETATTR, .path = 2, .base = 1, .arg = 5);
	TAKES(FILE_SETATTR, .path = 2, .base = 1, .arg = 5);
#undef TAKES
	for (int op = 0; op < OPS; op++)
		shapes[op].has_text = shapes[op].path || shapes[op].second;
}
