/*
 * Processes and what happens to their calls: interrupted ones, forks that fail, numbers of processes.
 *
 *	lives interrupted | forks | names
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static char data[64];

static long must(long result, const char *what)
{
	if (result >= 0)
		return result;
	perror(what);
	exit(2);
}

static int rang, ends[2];

static void on_alarm(int number)
{
	(void)number;
	/* The second time there is something to read, for the call that goes on after the signal. */
	if (rang++)
		must(write(ends[1], data, 5), "write");
}

/* A read that a signal ends, and one that the kernel makes again behind the signal. */
static void be_interrupted(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval again_and_again = { .it_value = { .tv_usec = 20000 }, .it_interval = { .tv_usec = 20000 } };
	struct itimerval never = {};

	must(pipe(ends), "pipe");
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &again_and_again, NULL);
	if (read(ends[0], data, 10) != -1 || errno != EINTR)
		exit(4);
	setitimer(ITIMER_REAL, &never, NULL);
	rang = 1;
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &again_and_again, NULL);
	must(read(ends[0], data, 20), "read");
	setitimer(ITIMER_REAL, &never, NULL);
}

/* A process's own numbers, as a path that names nothing. */
static void say(const char *who)
{
	char name[64];

	snprintf(name, sizeof(name), "/%s/%d/%d", who, getpid(), gettid());
	if (open(name, O_RDONLY) >= 0)
		exit(4);
}

static void *be_thread(void *unused)
{
	say("thread");
	return unused;
}

static void make_processes(void)
{
	struct rlimit nothing = {};
	pthread_t thread;
	int status;

	if (!must(fork(), "fork")) {
		say("child");
		if (!must(fork(), "fork")) {
			say("grandchild");
			_exit(0);
		}
		wait(NULL);
		_exit(0);
	}
	wait(NULL);
	must(-pthread_create(&thread, NULL, be_thread, NULL), "pthread_create");
	pthread_join(thread, NULL);
	/* Threads share their memory, or else are none. */
	if (syscall(SYS_clone, CLONE_THREAD, NULL, NULL, NULL, NULL) != -1 || errno != EINVAL)
		exit(4);
	if (!must(fork(), "fork")) {
		must(setrlimit(RLIMIT_NPROC, &nothing), "setrlimit");
		must(setuid(65534), "setuid");
		_exit(fork() == -1 && errno == EAGAIN ? 0 : 4);
	}
	wait(&status);
	if (status)
		exit(5);
}

static void use_names(char *self)
{
	struct open_how in_root = { .flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT };
	char *arguments[] = { "again", "nothing", NULL }, *empty[] = { NULL };
	int top, fd, srv;

	must(mkdir("/tmp/top", 0700), "mkdir");
	must(mkdir("/tmp/top/sub", 0700), "mkdir");
	close(must(open("/tmp/top/sub/file", O_CREAT | O_WRONLY, 0600), "open"));
	top = must(open("/tmp/top", O_RDONLY | O_DIRECTORY), "open");
	must(syscall(SYS_openat2, top, "/sub/file", &in_root, sizeof(in_root)), "openat2");
	must(syscall(SYS_openat2, top, "../../sub/file", &in_root, sizeof(in_root)), "openat2");
	syscall(SYS_openat2, top, "/sub/nothing", &in_root, sizeof(in_root));
	syscall(SYS_openat2, top, "sub/nothing", &in_root, sizeof(in_root));
	syscall(SYS_openat2, top, "/../nothing", &in_root, sizeof(in_root));
	syscall(SYS_openat2, top, "../../sub/nothing", &in_root, sizeof(in_root));
	fd = must(syscall(SYS_pidfd_open, getpid(), 0), "pidfd_open");
	must(close(fd), "close");
	srv = must(open("/bin", O_RDONLY | O_DIRECTORY), "open");
	syscall(SYS_execveat, srv, "nothing", arguments, empty, 0);
	if (!must(fork(), "fork")) {
		fd = must(open(self, O_RDONLY | O_CLOEXEC), "open");
		must(syscall(SYS_execveat, fd, "", arguments, empty, AT_EMPTY_PATH), "execveat");
	}
	wait(NULL);
	if (!must(fork(), "fork")) {
		fd = must(fcntl(srv, F_DUPFD_CLOEXEC, 123), "fcntl");
		must(syscall(SYS_execveat, fd, "../bin/lives", arguments, empty, 0), "execveat");
	}
	wait(NULL);
	must(syscall(SYS_execveat, srv, "./lives", arguments, empty, 0), "execveat");
}

int main(int count, char **argument)
{
	const char *what = count == 2 ? argument[1] : "";

	if (!strcmp(what, "interrupted"))
		be_interrupted();
	else if (!strcmp(what, "forks"))
		make_processes();
	else if (!strcmp(what, "names"))
		use_names(argument[0]);
	else if (strcmp(what, "nothing"))
		return 1;
	return 0;
}
