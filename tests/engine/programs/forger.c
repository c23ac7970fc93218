/*
 * One thread makes calls on a path in a buffer that another thread overwrites meanwhile.
 *
 *	forger blocked | race N
 *
 * blocked: in calls that wait in the kernel, so the buffer certainly changes between beginning and end. race: N times
 * the buffer names the secret when unlink is called, and names the decoy soon after. Which of the two files is gone is
 * found out by their descriptors, and printed, a word for each unlink.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIFO "/tmp/secret"
#define LEASED "/dev/shm/secret"
#define DECOY "/tmp/public"

static char path[64];
static volatile int caller, turn;

static long must(long result, const char *what)
{
	if (result >= 0)
		return result;
	perror(what);
	exit(2);
}

/* Return when a thread waits in the kernel. */
static void wait_for_sleep(int thread)
{
	char name[64], status[512], *state;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", thread);
	for (;;) {
		int fd = must(open(name, O_RDONLY), "open");
		long size = must(read(fd, status, sizeof(status) - 1), "read");

		close(fd);
		status[size] = 0;
		state = strrchr(status, ')');
		if (state && state[2] == 'S')
			return;
		sched_yield();
	}
}

static void *open_fifo(void *unused)
{
	strcpy(path, FIFO);
	caller = gettid();
	must(open(path, O_RDONLY), "open");
	return unused;
}

/* Waits until the other one gives its lease back. */
static void *truncate_leased(void *unused)
{
	strcpy(path, LEASED);
	caller = gettid();
	must(truncate(path, 7), "truncate");
	return unused;
}

static void blocked(void)
{
	pthread_t thread;
	int fd;

	must(mkfifo(FIFO, 0600), "mkfifo");
	must(-pthread_create(&thread, NULL, open_fifo, NULL), "pthread_create");
	while (!caller)
		;
	wait_for_sleep(caller);
	strcpy(path, DECOY);
	must(open(FIFO, O_WRONLY), "open");
	pthread_join(thread, NULL);

	caller = 0;
	signal(SIGIO, SIG_IGN);
	fd = must(open(LEASED, O_CREAT | O_RDWR, 0600), "open");
	must(fcntl(fd, F_SETLEASE, F_WRLCK), "F_SETLEASE");
	must(-pthread_create(&thread, NULL, truncate_leased, NULL), "pthread_create");
	while (!caller)
		;
	wait_for_sleep(caller);
	strcpy(path, DECOY);
	must(fcntl(fd, F_SETLEASE, F_UNLCK), "F_SETLEASE");
	pthread_join(thread, NULL);
}

/* How long the other one waits before it overwrites the buffer. */
static volatile int delay;

static void *overwrite(void *unused)
{
	for (;;) {
		while (turn == 0)
			;
		if (turn < 0)
			return unused;
		for (int i = 0; i < delay; i++)
			__asm__ volatile("");
		memcpy(path, "/tmp/public", 12);
		turn = 0;
	}
}

static int is_gone(int fd)
{
	struct stat status;

	must(fstat(fd, &status), "fstat");
	return status.st_nlink == 0;
}

static void race(int count)
{
	pthread_t thread;

	must(-pthread_create(&thread, NULL, overwrite, NULL), "pthread_create");
	for (int i = 0; i < count; i++) {
		int secret = must(open("/tmp/secret", O_CREAT | O_RDWR, 0600), "open");
		int decoy = must(open("/tmp/public", O_CREAT | O_RDWR, 0600), "open");
		int result;

		memcpy(path, "/tmp/secret", 12);
		delay = i % 400 * 4;
		turn = 1;
		result = unlink(path);
		while (turn)
			;
		puts(result ? "none" : is_gone(secret) ? "secret" : is_gone(decoy) ? "public" : "other");
		close(secret);
		close(decoy);
	}
	turn = -1;
	pthread_join(thread, NULL);
}

int main(int count, char **argument)
{
	if (count == 2 && !strcmp(argument[1], "blocked"))
		blocked();
	else if (count == 3 && !strcmp(argument[1], "race"))
		race(atoi(argument[2]));
	else
		return 1;
	return 0;
}
