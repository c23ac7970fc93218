/*
 * Calls that look at files or change them without their data, on files of its own below /tmp. The trace is compared with
 * strace's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static void must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(2);
	}
}

int main(void)
{
	struct timespec moments[2] = { { 3, 0 }, { 4, 0 } };
	struct utimbuf past = { 5, 6 };
	struct statfs status;
	char value[64];
	int fd;

	must(chdir("/tmp"), "chdir");
	fd = open("attributes", O_CREAT | O_RDWR, 0600);
	must(fd, "open");
	must(write(fd, value, sizeof(value)), "write");
	must(statfs("attributes", &status), "statfs");
	must(fstatfs(fd, &status), "fstatfs");
	must(utime("attributes", &past), "utime");
#ifdef SYS_utimes
	/* Which later architectures were not given any more. */
	struct timeval times[2] = { { 1, 0 }, { 2, 0 } };

	must(syscall(SYS_utimes, "attributes", times), "utimes");
	must(syscall(SYS_futimesat, AT_FDCWD, "attributes", times), "futimesat");
#endif
	must(utimensat(AT_FDCWD, "attributes", moments, AT_SYMLINK_NOFOLLOW), "utimensat");
	must(futimens(fd, moments), "futimens"); /* utimensat without a path */
	must(mknod("fifo", S_IFIFO | 0600, 0), "mknod");
	must(syscall(SYS_mknodat, AT_FDCWD, "fifo2", S_IFIFO | 0600, 0), "mknodat");
	/* Whether the file system has attributes or not: what is compared is what was called. */
	setxattr("attributes", "user.one", "1", 1, 0);
	lsetxattr("attributes", "user.two", "2", 1, 0);
	fsetxattr(fd, "user.three", "3", 1, 0);
	getxattr("attributes", "user.one", value, sizeof(value));
	lgetxattr("attributes", "user.none", value, sizeof(value));
	fgetxattr(fd, "user.three", value, sizeof(value));
	listxattr("attributes", value, sizeof(value));
	llistxattr("attributes", value, sizeof(value));
	flistxattr(fd, value, sizeof(value));
	removexattr("attributes", "user.one");
	lremovexattr("attributes", "user.two");
	fremovexattr(fd, "user.three");
	must(readahead(fd, 0, 4096), "readahead");
	must(posix_fadvise(fd, 100, 200, POSIX_FADV_WILLNEED), "fadvise");
	must(sync_file_range(fd, 10, 20, SYNC_FILE_RANGE_WRITE), "sync_file_range");
	must(syncfs(fd), "syncfs");
	must(chroot("/srv"), "chroot");
	if (statfs("/nowhere", &status) == 0 || errno != ENOENT)
		return 3;
	return 0;
}
