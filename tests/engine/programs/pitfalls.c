/*
 * What tracers get wrong, one subcommand each:
 *
 *	pitfalls chain N | storm N | share N | map FILE | remap FILE FILE | moves FILE | rename | denied FILE | pathless | reuse | aio FILE | nonsense | x32 | long | copyup FILE |
 *		 jail DIRECTORY NAME | threadexec PROGRAM | append N | arguments N
 *
 * Each does something of which the test knows the traces that it must leave.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static char data[65536];

static void fail(const char *what)
{
	perror(what);
	_exit(2);
}

static long must(long result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

/* Programs that run programs, and change who they are in between. */
static void chain(char *self, int left)
{
	char number[16];

	if (!left)
		return;
	if (left == 1)
		must(setuid(65534), "setuid");
	snprintf(number, sizeof(number), "%d", left - 1);
	execl(self, self, "chain", number, NULL);
	fail("exec");
}

static void storm(int count)
{
	for (int i = 0; i < count; i++) {
		pid_t child = must(fork(), "fork");

		if (!child) {
			int fd = must(open("/etc/passwd", O_RDONLY), "open");

			must(read(fd, data, 10), "read");
			_exit(i % 7);
		}
		/* Some at once, so that they run over each other. */
		if (i % 8 == 7)
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
	}
	while (wait(NULL) > 0)
		;
}

/* Two processes that write through one descriptor, so that each moves the other's position. */
static void share(int count)
{
	int fd = must(open("/tmp/shared", O_CREAT | O_RDWR | O_TRUNC, 0600), "open");
	pid_t child = must(fork(), "fork");

	for (int i = 0; i < count; i++)
		must(write(fd, data, 100), "write");
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
}

/* Two processes that append to one file through descriptors of their own. */
static void append(int count)
{
	pid_t child = must(fork(), "fork");
	int fd = must(open("/tmp/appended", O_CREAT | O_WRONLY | O_APPEND, 0600), "open");

	for (int i = 0; i < count; i++)
		must(write(fd, data, 100), "write");
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
}

/* Reads a file without a single read call. The pages lie too far apart to be mapped along with each other. */
static void map(const char *name)
{
	int fd = must(open(name, O_RDONLY), "open"), sum = 0;
	char *at = mmap(NULL, 256 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);

	if (at == MAP_FAILED)
		fail("mmap");
	close(fd);
	for (int page = 0; page < 256; page += 64)
		sum += at[page * PAGE];
	must(msync(at, 256 * PAGE, MS_ASYNC), "msync");
	must(munmap(at, 256 * PAGE), "munmap");
	fd = must(open("/tmp/mapped", O_CREAT | O_RDWR, 0600), "open");
	must(ftruncate(fd, 64 * PAGE), "ftruncate");
	at = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		fail("mmap");
	at[32 * PAGE] = sum;
	must(munmap(at, 64 * PAGE), "munmap");
}

/* One page of two files and of memory without a file, at the same address, one after the other. */
static void remap(const char *one, const char *other)
{
	int first = must(open(one, O_RDONLY), "open"), second = must(open(other, O_RDONLY), "open"), sum = 0;
	char *at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 3; i++) {
		mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, first, i * PAGE);
		sum += *(volatile char *)at;
		mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
		sum += *(volatile char *)at;
		mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, second, 0);
		sum += *(volatile char *)at;
	}
}

#define PATCHES 3000

static volatile int patched;

static void *churn(void *unused)
{
	while (!patched)
		munmap(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), PAGE);
	return unused;
}

/* Touches one page of each of thousands of mappings of one page, while another thread changes the map all the time. */
static void patchwork(const char *name)
{
	int fd = must(open(name, O_RDONLY), "open"), sum = 0;
	char *at = mmap(NULL, PATCHES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t other;

	/* Neighbours are of pages that are none, so they stay apart. */
	for (long i = 0; i < PATCHES; i++)
		if (mmap(at + i * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, i * 7 % 256 * PAGE) == MAP_FAILED)
			fail("mmap");
	pthread_create(&other, NULL, churn, NULL);
	for (long i = 0; i < PATCHES; i++)
		sum += at[i * 1009 % PATCHES * PAGE];
	patched = 1 + !sum;
	pthread_join(other, NULL);
}

/* Bytes that never pass through the process. */
static void moves(const char *name)
{
	int in = must(open(name, O_RDONLY), "open"), out = must(open("/tmp/moved", O_CREAT | O_RDWR, 0600), "open");
	off_t offset = 100;
	loff_t from = 1000, to = 5000;
	int pipes[2];

	must(sendfile(out, in, &offset, 50), "sendfile");
	must(sendfile(out, in, NULL, 60), "sendfile");
	must(copy_file_range(in, &from, out, &to, 70, 0), "copy_file_range");
	must(pipe(pipes), "pipe");
	from = 2000;
	must(splice(in, &from, pipes[1], NULL, 80, 0), "splice");
	to = 9000;
	must(splice(pipes[0], NULL, out, &to, 80, 0), "splice");
}

static void renamed(void)
{
	int fd = must(open("/tmp/before", O_CREAT | O_RDWR, 0600), "open");

	must(write(fd, data, 11), "write");
	must(rename("/tmp/before", "/tmp/after"), "rename");
	must(pwrite(fd, data, 12, 0), "pwrite");
	must(unlink("/tmp/after"), "unlink");
	must(pwrite(fd, data, 13, 0), "pwrite");
	close(fd);
	/* The same name, another file. */
	fd = must(open("/tmp/before", O_CREAT | O_RDWR, 0600), "open");
	must(write(fd, data, 14), "write");
}

/* Calls that can't succeed: paths where no memory is, descriptors that are none. */
static void nonsense(void)
{
	long nowhere = 8;

	if (syscall(SYS_openat, AT_FDCWD, nowhere, O_RDONLY) != -1 || errno != EFAULT)
		fail("openat");
	if (syscall(SYS_renameat, AT_FDCWD, nowhere, AT_FDCWD, nowhere) != -1 || errno != EFAULT)
		fail("renameat");
	if (syscall(SYS_openat, 1234, "relative", O_RDONLY) != -1 || errno != EBADF)
		fail("openat");
	if (syscall(SYS_read, 1234, data, 10) != -1 || errno != EBADF)
		fail("read");
}

/* A call through an interface of x86 that kernels are built without. */
static void x32(void)
{
	if (syscall(0x40000000) != -1 || errno != ENOSYS)
		fail("x32");
}

static void *remove_file(void *name)
{
	if (!unlinkat(AT_FDCWD, name, 0) || errno != EACCES)
		fail("unlinkat");
	return NULL;
}

static void trapped(int signal)
{
	(void)signal;
}

/*
 * Calls that a seccomp filter answers: the kernel itself never sees them. With an error, also in a thread that makes no
 * other call; with a success that is none; with a signal.
 */
static void denied(char *name)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unlinkat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdirat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };
	struct open_how how = { .flags = O_RDONLY };
	pthread_t thread;

	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
	remove_file(name);
	must(-pthread_create(&thread, NULL, remove_file, name), "pthread_create");
	pthread_join(thread, NULL);
	must(mkdirat(AT_FDCWD, "/srv", 0700), "mkdirat");
	signal(SIGSYS, trapped);
	syscall(SYS_openat2, AT_FDCWD, name, &how, sizeof(how));
}

/* Files that never had a path. */
static void pathless(void)
{
	int fd = must(memfd_create("thing", 0), "memfd_create");
	long one = 1;
	char *shared;

	/* Many kinds of them have one inode. */
	close(must(epoll_create1(0), "epoll_create1"));

	must(write(fd, data, 31), "write");
	must(write(must(eventfd(0, 0), "eventfd"), &one, sizeof(one)), "write");
	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	shared[0] = 1;
}

/* Files and directories that are given the number of one that is gone, and a directory that gets another name. */
static void reuse(void)
{
	struct stat status;
	int fd;

	for (int i = 0; i < 5; i++) {
		char name[] = "/tmp/reused-0";

		name[12] += i;
		fd = must(open(name, O_CREAT | O_WRONLY, 0600), "open");
		must(write(fd, data, 100 + i), "write");
		must(unlink(name), "unlink");
		must(close(fd), "close");
	}
	must(mkdir("/tmp/first", 0700), "mkdir");
	must(chdir("/tmp/first"), "chdir");
	stat("nothing", &status);
	must(rename("/tmp/first", "/tmp/second"), "rename");
	stat("nothing", &status);
	must(chdir("/tmp"), "chdir");
	must(rmdir("/tmp/second"), "rmdir");
	must(mkdir("/tmp/third", 0700), "mkdir");
	must(chdir("third"), "chdir");
	stat("nothing", &status);
}

/* Requests whose ends the kernel writes into memory, for whoever looks there. */
static void aio(const char *name)
{
	int in = must(open(name, O_RDONLY), "open"), out = must(open("/tmp/by-aio", O_CREAT | O_RDWR, 0600), "open");
	struct iovec vector[] = { { data, 30 }, { data + 100, 12 } };
	struct iocb requests[] = {
		{ .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = in, .aio_buf = (long)data, .aio_nbytes = 100, .aio_offset = 5 },
		{ .aio_lio_opcode = IOCB_CMD_PWRITEV, .aio_fildes = out, .aio_buf = (long)vector, .aio_nbytes = 2, .aio_offset = 9 },
		{ .aio_lio_opcode = IOCB_CMD_FSYNC, .aio_fildes = out },
	};
	struct iocb *pointers[] = { &requests[0], &requests[1], &requests[2] };
	struct io_event events[3];
	aio_context_t context = 0;

	must(syscall(SYS_io_setup, 8, &context), "io_setup");
	must(syscall(SYS_io_submit, context, 3, pointers), "io_submit");
	must(syscall(SYS_io_getevents, context, 3, 3, events, NULL), "io_getevents");
}

/* A path longer than any buffer of a page, and names that are no text. */
static void long_names(void)
{
	char name[201];
	int fd;

	memset(name, 'd', 200);
	name[200] = 0;
	must(chdir("/tmp"), "chdir");
	for (int i = 0; i < 15; i++) {
		name[0] = 'a' + i;
		must(mkdir(name, 0700), "mkdir");
		must(chdir(name), "chdir");
	}
	fd = must(open("deep", O_CREAT | O_WRONLY, 0600), "open");
	must(write(fd, data, 21), "write");
	fd = must(open("/tmp/\xff\xfe{\n}", O_CREAT | O_WRONLY, 0600), "open");
	must(write(fd, data, 22), "write");
	must(chdir("/tmp"), "chdir");
	for (int i = 0; i < 1000; i++) {
		must(mkdir("x", 0700), "mkdir");
		must(chdir("x"), "chdir");
	}
	fd = must(open("many", O_CREAT | O_WRONLY, 0600), "open");
	must(write(fd, data, 23), "write");
}

/* A file of a lower layer that is written: from then on it is another file below the same name. */
static void copy_up(const char *name)
{
	int fd = must(open(name, O_RDONLY), "open"), written;

	must(pread(fd, data, 10, 0), "pread");
	written = must(open(name, O_WRONLY), "open");
	must(pwrite(written, data, 20, 5), "pwrite");
	must(pread(fd, data, 30, 0), "pread");
}

static void jail(const char *directory, const char *name)
{
	struct stat status;

	must(chroot(directory), "chroot");
	must(chdir("/"), "chdir");
	must(read(must(open(name, O_RDONLY), "open"), data, 5), "read");
	if (!stat("/nothing/here", &status) || open("nor/here", O_RDONLY) >= 0)
		fail("stat");
}

static void *run_program(void *program)
{
	execl(program, program, NULL);
	fail("exec");
	return NULL;
}

static void thread_exec(char *program)
{
	pthread_t thread;

	must(-pthread_create(&thread, NULL, run_program, program), "pthread_create");
	pthread_join(thread, NULL);
}

static void arguments(char *self, int count)
{
	char **vector = calloc(count + 3, sizeof(char *));

	vector[0] = self;
	vector[1] = "none";
	for (int i = 0; i < count; i++)
		vector[i + 2] = "0123456789abcdef";
	execv(self, vector);
	fail("exec");
}

int main(int count, char **argument)
{
	const char *what = count > 1 ? argument[1] : "";

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 31;
	if (!strcmp(what, "chain"))
		chain(argument[0], atoi(argument[2]));
	else if (!strcmp(what, "storm"))
		storm(atoi(argument[2]));
	else if (!strcmp(what, "share"))
		share(atoi(argument[2]));
	else if (!strcmp(what, "append"))
		append(atoi(argument[2]));
	else if (!strcmp(what, "map"))
		map(argument[2]);
	else if (!strcmp(what, "remap"))
		remap(argument[2], argument[3]);
	else if (!strcmp(what, "patchwork"))
		patchwork(argument[2]);
	else if (!strcmp(what, "moves"))
		moves(argument[2]);
	else if (!strcmp(what, "rename"))
		renamed();
	else if (!strcmp(what, "denied"))
		denied(argument[2]);
	else if (!strcmp(what, "aio"))
		aio(argument[2]);
	else if (!strcmp(what, "pathless"))
		pathless();
	else if (!strcmp(what, "reuse"))
		reuse();
	else if (!strcmp(what, "nonsense"))
		nonsense();
	else if (!strcmp(what, "x32"))
		x32();
	else if (!strcmp(what, "long"))
		long_names();
	else if (!strcmp(what, "copyup"))
		copy_up(argument[2]);
	else if (!strcmp(what, "jail"))
		jail(argument[2], argument[3]);
	else if (!strcmp(what, "threadexec"))
		thread_exec(argument[2]);
	else if (!strcmp(what, "arguments"))
		arguments(argument[0], atoi(argument[2]));
	else if (strcmp(what, "none"))
		return 1;
	return 0;
}
