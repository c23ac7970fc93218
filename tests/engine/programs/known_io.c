/*
 * Does reads and writes at random offsets, of every kind, over dup and fork, and writes down what it did:
 *
 *	known_io SEED ROUNDS TRUTH-FILE
 *
 * A line of the truth is "file op offset size". The truth itself is written at the end through one write call to a file
 * of its own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_SIZE (1 << 20)
#define MAX_SIZE 5000

static char *truth;
static size_t *truth_size;
static char data[MAX_SIZE * 2];

static void note(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	*truth_size += vsprintf(truth + *truth_size, format, arguments);
	va_end(arguments);
}

static void must(long result, long wanted)
{
	if (result != wanted) {
		perror("known_io");
		_exit(2);
	}
}

static void one(int fd, const char *name)
{
	long offset = random() % (FILE_SIZE - 2 * MAX_SIZE), size = 1 + random() % MAX_SIZE, half = 1 + random() % size;
	struct iovec two[] = { { data, half }, { data + MAX_SIZE, size } };
	long both = half + size;
	void *map;

	switch (random() % 9) {
	case 0:
		must(lseek(fd, offset, SEEK_SET), offset);
		must(read(fd, data, size), size);
		note("%s read %ld %ld\n", name, offset, size);
		break;
	case 1:
		must(pread(fd, data, size, offset), size);
		note("%s pread64 %ld %ld\n", name, offset, size);
		break;
	case 2:
		must(lseek(fd, offset, SEEK_SET), offset);
		must(readv(fd, two, 2), both);
		note("%s readv %ld %ld\n", name, offset, both);
		break;
	case 3:
		must(preadv(fd, two, 2, offset), both);
		note("%s preadv %ld %ld\n", name, offset, both);
		break;
	case 4:
		must(lseek(fd, offset, SEEK_SET), offset);
		must(write(fd, data, size), size);
		note("%s write %ld %ld\n", name, offset, size);
		break;
	case 5:
		must(pwrite(fd, data, size, offset), size);
		note("%s pwrite64 %ld %ld\n", name, offset, size);
		break;
	case 6:
		must(lseek(fd, offset, SEEK_SET), offset);
		must(writev(fd, two, 2), both);
		note("%s writev %ld %ld\n", name, offset, both);
		break;
	case 7:
		must(pwritev(fd, two, 2, offset), both);
		note("%s pwritev %ld %ld\n", name, offset, both);
		break;
	case 8:
		offset &= -sysconf(_SC_PAGESIZE);
		map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, offset);
		must(map == MAP_FAILED, 0);
		munmap(map, size);
		note("%s mmap %ld %ld\n", name, offset, size);
		break;
	}
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[2]) : 100, fds[3], output, appended;
	long at = 0;

	srandom(argc > 1 ? atoi(argv[1]) : 1);
	truth = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	truth_size = (size_t *)truth;
	truth += sizeof(*truth_size);
	fds[0] = open("/tmp/a", O_RDWR | O_CREAT, 0644);
	must(ftruncate(fds[0], FILE_SIZE), 0);
	fds[1] = dup(fds[0]);
	fds[2] = open("/tmp/b", O_RDWR | O_CREAT, 0644);
	must(ftruncate(fds[2], FILE_SIZE), 0);
	for (int i = 0; i < rounds; i++) {
		int which = random() % 3;

		if (random() % 10 == 0) {
			/* The child shares the descriptors' positions, and the parent's truth. */
			pid_t child = fork();

			if (child == 0) {
				one(fds[which], which == 2 ? "/tmp/b" : "/tmp/a");
				_exit(0);
			}
			must(waitpid(child, NULL, 0), child);
			random();
		} else {
			one(fds[which], which == 2 ? "/tmp/b" : "/tmp/a");
		}
	}
	appended = open("/tmp/c", O_WRONLY | O_CREAT | O_APPEND, 0644);
	for (int i = 0; i < 10; i++) {
		long size = 1 + random() % MAX_SIZE;

		/* Wherever the position is, an append goes to the end. */
		lseek(appended, 0, SEEK_SET);
		must(write(appended, data, size), size);
		note("/tmp/c write %ld %ld\n", at, size);
		at += size;
	}
	output = argc > 3 ? open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0644) : 1;
	must(write(output, truth, *truth_size), *truth_size);
	return 0;
}
