// SPDX-License-Identifier: Apache-2.0
/* The numbers of the 32-bit interface, which no other file may see: the names are the same. */
#include "syscalls.h"

#ifdef __x86_64__
#include <asm/unistd_32.h>

#include "abi32.h"

void fill_operations32(uint8_t *op_of, uint8_t *form_of)
{
#define IS(name, op, form)                             \
	do {                                           \
		op_of[__NR_##name] = BDT_OP_##op;      \
		form_of[__NR_##name] = ABI32_##form;   \
	} while (0)
	IS(open, OPEN, ALIKE);
	IS(creat, CREAT, ALIKE);
	IS(openat, OPENAT, ALIKE);
	IS(openat2, OPENAT2, ALIKE);
	IS(close, CLOSE, ALIKE);
	IS(close_range, CLOSE_RANGE, ALIKE);
	IS(read, READ, ALIKE);
	IS(pread64, PREAD64, OFFSET);
	IS(readv, READV, ALIKE);
	IS(preadv, PREADV, OFFSET);
	IS(preadv2, PREADV2, OFFSET);
	IS(write, WRITE, ALIKE);
	IS(pwrite64, PWRITE64, OFFSET);
	IS(writev, WRITEV, ALIKE);
	IS(pwritev, PWRITEV, OFFSET);
	IS(pwritev2, PWRITEV2, OFFSET);
	IS(lseek, LSEEK, SEEK);
	IS(_llseek, LSEEK, LONG_SEEK);
	IS(mmap, MMAP, BLOCK);
	IS(mmap2, MMAP, PAGES);
	IS(munmap, MUNMAP, ALIKE);
	IS(msync, MSYNC, ALIKE);
	IS(dup, DUP, ALIKE);
	IS(dup2, DUP2, ALIKE);
	IS(dup3, DUP3, ALIKE);
	IS(fcntl, FCNTL_DUPFD, ALIKE);
	IS(fcntl64, FCNTL_DUPFD, ALIKE);
	IS(execve, EXECVE, ALIKE);
	IS(execveat, EXECVEAT, ALIKE);
	IS(sendfile, SENDFILE, SHORT_OFFSET);
	IS(sendfile64, SENDFILE, ALIKE);
	IS(copy_file_range, COPY_FILE_RANGE, ALIKE);
	IS(splice, SPLICE, ALIKE);
	IS(oldstat, STAT, ALIKE);
	IS(stat, STAT, ALIKE);
	IS(stat64, STAT, ALIKE);
	IS(oldlstat, LSTAT, ALIKE);
	IS(lstat, LSTAT, ALIKE);
	IS(lstat64, LSTAT, ALIKE);
	IS(oldfstat, FSTAT, ALIKE);
	IS(fstat, FSTAT, ALIKE);
	IS(fstat64, FSTAT, ALIKE);
	IS(fstatat64, NEWFSTATAT, ALIKE);
	IS(statx, STATX, ALIKE);
	IS(access, ACCESS, ALIKE);
	IS(faccessat, FACCESSAT, ALIKE);
	IS(faccessat2, FACCESSAT2, ALIKE);
	IS(readlink, READLINK, ALIKE);
	IS(readlinkat, READLINKAT, ALIKE);
	IS(readdir, GETDENTS, ALIKE);
	IS(getdents, GETDENTS, ALIKE);
	IS(getdents64, GETDENTS64, ALIKE);
	IS(truncate, TRUNCATE, ALIKE);
	IS(truncate64, TRUNCATE, LENGTH);
	IS(ftruncate, FTRUNCATE, ALIKE);
	IS(ftruncate64, FTRUNCATE, LENGTH);
	IS(fallocate, FALLOCATE, MODE_RANGE);
	IS(fsync, FSYNC, ALIKE);
	IS(fdatasync, FDATASYNC, ALIKE);
	IS(sync_file_range, SYNC_FILE_RANGE, RANGE);
	IS(syncfs, SYNCFS, ALIKE);
	IS(rename, RENAME, ALIKE);
	IS(renameat, RENAMEAT, ALIKE);
	IS(renameat2, RENAMEAT2, ALIKE);
	IS(unlink, UNLINK, ALIKE);
	IS(unlinkat, UNLINKAT, ALIKE);
	IS(link, LINK, ALIKE);
	IS(linkat, LINKAT, ALIKE);
	IS(symlink, SYMLINK, ALIKE);
	IS(symlinkat, SYMLINKAT, ALIKE);
	IS(mkdir, MKDIR, ALIKE);
	IS(mkdirat, MKDIRAT, ALIKE);
	IS(rmdir, RMDIR, ALIKE);
	IS(mknod, MKNOD, ALIKE);
	IS(mknodat, MKNODAT, ALIKE);
	IS(chmod, CHMOD, ALIKE);
	IS(fchmod, FCHMOD, ALIKE);
	IS(fchmodat, FCHMODAT, ALIKE);
	IS(chown, CHOWN, ALIKE);
	IS(chown32, CHOWN, ALIKE);
	IS(lchown, LCHOWN, ALIKE);
	IS(lchown32, LCHOWN, ALIKE);
	IS(fchown, FCHOWN, ALIKE);
	IS(fchown32, FCHOWN, ALIKE);
	IS(fchownat, FCHOWNAT, ALIKE);
	IS(utime, UTIME, ALIKE);
	IS(utimes, UTIMES, ALIKE);
	IS(futimesat, FUTIMESAT, ALIKE);
	IS(utimensat, UTIMENSAT, ALIKE);
	IS(utimensat_time64, UTIMENSAT, ALIKE);
	IS(chdir, CHDIR, ALIKE);
	IS(fchdir, FCHDIR, ALIKE);
	IS(chroot, CHROOT, ALIKE);
	IS(statfs, STATFS, ALIKE);
	IS(statfs64, STATFS, ALIKE);
	IS(fstatfs, FSTATFS, ALIKE);
	IS(fstatfs64, FSTATFS, ALIKE);
	IS(getxattr, GETXATTR, ALIKE);
	IS(lgetxattr, LGETXATTR, ALIKE);
	IS(fgetxattr, FGETXATTR, ALIKE);
	IS(listxattr, LISTXATTR, ALIKE);
	IS(llistxattr, LLISTXATTR, ALIKE);
	IS(flistxattr, FLISTXATTR, ALIKE);
	IS(setxattr, SETXATTR, ALIKE);
	IS(lsetxattr, LSETXATTR, ALIKE);
	IS(fsetxattr, FSETXATTR, ALIKE);
	IS(removexattr, REMOVEXATTR, ALIKE);
	IS(lremovexattr, LREMOVEXATTR, ALIKE);
	IS(fremovexattr, FREMOVEXATTR, ALIKE);
	IS(readahead, READAHEAD, START);
	IS(fadvise64, FADVISE64, START);
	IS(fadvise64_64, FADVISE64, RANGE);
	IS(name_to_handle_at, NAME_TO_HANDLE_AT, ALIKE);
	IS(open_by_handle_at, OPEN_BY_HANDLE_AT, ALIKE);
	IS(ioctl, IOCTL_CLONE, ALIKE);
	IS(io_submit, IO_SUBMIT, ALIKE);
	IS(bind, BIND, ALIKE);
	IS(inotify_add_watch, INOTIFY_ADD_WATCH, ALIKE);
	IS(sync, SYNC, ALIKE);
	IS(flock, FLOCK, ALIKE);
	IS(recvmsg, RECEIVE_FD, ALIKE);
	IS(fork, FORK, ALIKE);
	IS(vfork, FORK, ALIKE);
	IS(clone, FORK, ALIKE);
	IS(clone3, FORK, ALIKE);
	fill_new_operations(op_of);
#undef IS
}
#else
void fill_operations32(uint8_t *op_of, uint8_t *form_of)
{
	/* Calls of 32-bit programs are counted as lost here: see abi_of. */
	(void)op_of;
	(void)form_of;
}
#endif
