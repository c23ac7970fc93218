/*
 * Calls at the corners of what a trace has to know, on files of its own below the working directory. Whether each of
 * them succeeds does not matter: the trace is compared with strace's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char data[8192];
static int checked;

/* What is called only for its trace. */
#define TRY(call) (checked += (call) >= 0)

static int made(const char *name, int flags)
{
	int fd = open(name, flags | O_CREAT, 0600);

	if (fd < 0) {
		perror(name);
		exit(2);
	}
	return fd;
}

static void append(void)
{
	struct iovec parts[] = { { data, 10 }, { data, 20 } };
	int fd = made("appended", O_RDWR | O_APPEND), other = made("other", O_RDWR);

	TRY(write(fd, data, 5000));
	TRY(pwrite(fd, data, 30, 7));
	TRY(pwritev(fd, parts, 2, 9));
	TRY(pwritev2(other, parts, 2, 11, RWF_APPEND));
	TRY(pread(fd, data, 10, 3));
	TRY(sendfile(fd, other, NULL, 10));
}

static void link_and_rename(void)
{
	int one = made("one", O_RDWR), two;

	TRY(link("one", "two"));
	two = open("two", O_RDWR);
	TRY(write(one, data, 11));
	TRY(write(two, data, 12));
	TRY(rename("two", "three"));
	TRY(write(one, data, 13));
	TRY(unlink("one"));
	TRY(write(one, data, 14));
	TRY(syscall(SYS_renameat2, AT_FDCWD, "three", AT_FDCWD, "other", 2 /* RENAME_EXCHANGE */));
	TRY(write(two, data, 15));
	TRY(rename("three", "three/below"));
}

static void no_name(void)
{
	char name[64];
	int fd = open(".", O_TMPFILE | O_RDWR, 0600), memory = memfd_create("memory", 0), pair[2];

	TRY(write(fd, data, 10));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	TRY(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	TRY(write(fd, data, 20));
	TRY(write(memory, data, 100));
	TRY(pread(memory, data, 10, 50));
	TRY(pipe(pair));
	TRY(write(pair[1], data, 50));
	TRY(splice(pair[0], NULL, memory, &(loff_t){ 10 }, 30, 0));
	TRY(pread(pair[0], data, 10, 0));
	TRY(lseek(pair[0], 0, SEEK_CUR));
	TRY(close(pair[0]));
	TRY(close(pair[1]));
}

static void directories(void)
{
	struct open_how in_root = { .flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT };
	int top, fd;

	TRY(mkdir("top", 0700));
	TRY(mkdir("top/sub", 0700));
	close(made("top/sub/file", O_WRONLY));
	top = open("top", O_RDONLY | O_DIRECTORY);
	fd = syscall(SYS_openat2, top, "/sub/file", &in_root, sizeof(in_root));
	TRY(read(fd, data, 10));
	TRY(syscall(SYS_openat2, top, "/sub/nothing", &in_root, sizeof(in_root)));
	TRY(syscall(SYS_openat2, top, "../../sub/nothing", &in_root, sizeof(in_root)));
	TRY(chdir("top/sub"));
	TRY(open("../nothing", O_RDONLY));
	TRY(rename("../sub", "../moved"));
	TRY(open("nothing", O_RDONLY));
	TRY(fchdir(top));
	TRY(faccessat(AT_FDCWD, "moved/file", R_OK, AT_EACCESS));
	TRY(symlink("moved", "way"));
	TRY(open("way/../moved/file", O_RDONLY));
	TRY(openat(top, "way", O_PATH | O_NOFOLLOW));
	TRY(mkdir("gone", 0700));
	TRY(chdir("gone"));
	TRY(rmdir("../gone"));
	TRY(open("nothing", O_RDONLY));
	TRY(fchdir(top));
	TRY(chdir(".."));
}

static void descriptors(void)
{
	int fd = made("described", O_RDWR), child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	TRY(dup2(fd, fd));
	TRY(dup2(fd, 90));
	TRY(dup3(fd, 91, O_CLOEXEC));
	TRY(dup2(-1, 92));
	TRY(fcntl(fd, F_DUPFD_CLOEXEC, 100));
	TRY(close_range(95, 120, 0));
	TRY(read(12345, data, 1));
	TRY(syscall(SYS_write, fd, 1, 10));
	TRY(syscall(SYS_openat, AT_FDCWD, 1, O_RDONLY));
	TRY(close(syscall(SYS_pidfd_open, child, 0)));
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
}

static void map(void)
{
	int fd = made("mapped", O_RDWR);
	char *memory;

	TRY(ftruncate(fd, 8 * 4096));
	memory = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mmap(memory + 4 * 4096, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 4096);
	memory[5 * 4096] = 1;
	TRY(msync(memory + 4 * 4096, 4096, MS_SYNC));
	TRY(munmap(memory + 7 * 4096, 4096));
	TRY(munmap(memory, 16 * 4096));
}

static void on_signal(int number)
{
	(void)number;
}

static void interrupt(int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
	struct itimerval soon = { .it_value = { .tv_usec = 20000 } };
	int pair[2], child;

	TRY(pipe(pair));
	child = fork();
	if (!child) {
		usleep(60000);
		TRY(write(pair[1], data, 1));
		_exit(0);
	}
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	TRY(read(pair[0], data, 10));
	waitpid(child, NULL, 0);
}

/* A thread that is still in a call when its process ends, and one whose process becomes another program. */
static void *wait_for_ever(void *pair)
{
	TRY(read(((int *)pair)[0], data, 10));
	return NULL;
}

static int outlive(void *parent)
{
	while (getppid() == *(pid_t *)parent)
		usleep(1000);
	TRY(open("nothing", O_RDONLY));
	return 0;
}

/*
 * A process that does nothing that is traced until its parent has ended, and one that can't be made. The first shares
 * its parent's memory, which has touched all pages that it needs: a page fault would be traced, too.
 */
static void fork_otherwise(void)
{
	static char stack[65536];
	static pid_t self;
	pid_t child = fork();

	if (!child) {
		TRY(outlive(&self));
		self = getpid();
		usleep(1);
		memset(stack, 0, sizeof(stack));
		TRY(clone(outlive, stack + sizeof(stack), CLONE_VM | SIGCHLD, &self));
		_exit(0);
	}
	waitpid(child, NULL, 0);
	TRY(syscall(SYS_clone, CLONE_THREAD, NULL, NULL, NULL, NULL));
}

static void run(const char *file)
{
	static char *empty[] = { NULL }, *arguments[] = { "corners", "nothing", NULL };
	int pair[2], self = open(file, O_RDONLY | O_CLOEXEC), srv = open("/srv", O_RDONLY | O_DIRECTORY);
	pthread_t thread;

	if (!fork()) {
		TRY(execve("/nowhere", arguments, empty));
		TRY(syscall(SYS_execveat, srv, "nothing", arguments, empty, 0));
		TRY(syscall(SYS_execveat, self, "", arguments, empty, AT_EMPTY_PATH));
		_exit(1);
	}
	wait(NULL);
	if (!fork()) {
		TRY(pipe(pair));
		TRY(pthread_create(&thread, NULL, wait_for_ever, pair));
		usleep(20000);
		if (checked % 2)
			exit(0);
		TRY(execve(file, arguments, empty));
	}
	wait(NULL);
	for (int i = 0; i < 2; i++)
		if (!fork()) {
			TRY(execve("/proc/self/exe", arguments, empty));
			_exit(1);
		}
	while (wait(NULL) > 0)
		;
}

int main(int count, char **argument)
{
	if (count > 1)
		return open(argument[1], O_RDONLY) < 0 ? 0 : 3;
	append();
	link_and_rename();
	no_name();
	directories();
	descriptors();
	map();
	interrupt(0);
	interrupt(SA_RESTART);
	fork_otherwise();
	run("/usr/local/bin/corners");
	return checked > 30 ? 0 : 4;
}
