/*
 * Memory that a file is mapped to: touched in vain, written privately, and unmapped from before where it begins.
 *
 *	memory
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

static sigjmp_buf back;
static int caught;

static long must(long result, const char *what)
{
	if (result >= 0)
		return result;
	perror(what);
	exit(2);
}

static void on_signal(int number)
{
	caught = number;
	siglongjmp(back, 1);
}

/* Touch memory that can't be had. */
static void touch(volatile char *at, int writes, int expected)
{
	caught = 0;
	if (!sigsetjmp(back, 1)) {
		if (writes)
			*at = 1;
		else
			(void)*at;
	}
	if (caught != expected) {
		fprintf(stderr, "signal %d instead of %d\n", caught, expected);
		exit(4);
	}
}

static char *mapped(int fd, long pages, int protection, int flags, long first_page)
{
	char *at = mmap(NULL, pages * PAGE, protection, flags, fd, first_page * PAGE);

	must(at == MAP_FAILED ? -1 : 0, "mmap");
	return at;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	int fd = must(open("/tmp/short", O_CREAT | O_RDWR, 0600), "open");
	int source = must(open("/srv/verse.txt", O_RDONLY), "open");
	char *beyond, *forbidden, *constant, *own, *shared, *around;

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	must(ftruncate(fd, 8 * PAGE), "ftruncate");
	/* All of them at first, so that none of these calls comes between two touches. */
	beyond = mapped(fd, 32, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	forbidden = mapped(fd, 1, PROT_NONE, MAP_SHARED, 1);
	constant = mapped(fd, 1, PROT_READ, MAP_SHARED, 2);
	own = mapped(fd, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, 3);
	shared = mapped(fd, 1, PROT_READ | PROT_WRITE, MAP_SHARED, 4);

	touch(beyond + 20 * PAGE, 0, SIGBUS);
	touch(beyond + 21 * PAGE, 1, SIGBUS);
	touch(forbidden, 0, SIGSEGV);
	touch(constant, 1, SIGSEGV);
	if (read(source, beyond + 22 * PAGE, 10) != -1 || errno != EFAULT)
		return 5;
	touch(own, 1, 0);
	touch(shared, 1, 0);

	around = mmap(NULL, 16 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(around == MAP_FAILED ? -1 : 0, "mmap");
	if (mmap(around + 4 * PAGE, 3 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, PAGE) == MAP_FAILED)
		return 6;
	must(munmap(around, 16 * PAGE), "munmap");
	return 0;
}
