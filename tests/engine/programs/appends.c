/*
 * Writes that go to the end of a file whatever offset they name, each of them checked by reading what it wrote.
 *
 *	appends calls | ring
 *
 * Each write is of another character.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/uio.h>

#include "ring.h"

static char data[8192];
static struct iovec parts[] = { { data, 10 }, { data + 10, 20 } };
static const char *looked_at;
static int failure = 4;

static void next_character(void)
{
	static char character = 'a';

	memset(data, character++, sizeof(data));
}

/* End unless a write has put its bytes there. */
static void went_to(long offset, long size, long written, const char *what)
{
	static char found[sizeof(data)];
	int fd = must(open(looked_at, O_RDONLY), "open");

	if (must(written, what) != size || pread(fd, found, size, offset) != size || memcmp(found, data, size)) {
		fprintf(stderr, "%s did not write %ld bytes at %ld\n", what, size, offset);
		exit(failure);
	}
	close(fd);
	next_character();
}

static void by_calls(void)
{
	int fd = must(open("/tmp/always", O_CREAT | O_WRONLY | O_APPEND, 0600), "open"), other;

	looked_at = "/tmp/always";
	went_to(0, 5000, write(fd, data, 5000), "write");
	went_to(5000, 30, pwrite(fd, data, 30, 7), "pwrite64");
	went_to(5030, 30, pwritev(fd, parts, 2, 9), "pwritev");
	went_to(5060, 30, pwritev2(fd, parts, 2, 11, 0), "pwritev2");
	must(lseek(fd, 3, SEEK_SET), "lseek");
	went_to(5090, 40, write(fd, data, 40), "write");
	went_to(5130, 30, writev(fd, parts, 2), "writev");

	other = must(open("/tmp/sometimes", O_CREAT | O_WRONLY, 0600), "open");
	looked_at = "/tmp/sometimes";
	went_to(0, 100, pwrite(other, data, 100, 0), "pwrite64");
	/* Overlays of some kernels leave this flag out, and write to the offset. */
	failure = 5;
	went_to(100, 30, pwritev2(other, parts, 2, 11, RWF_APPEND), "pwritev2");
	failure = 4;
	went_to(130, 30, pwritev2(other, parts, 2, -1, RWF_APPEND), "pwritev2");
	went_to(160, 50, write(other, data, 50), "write");
	went_to(20, 30, pwritev(other, parts, 2, 20), "pwritev");
}

static int write_by(struct ring *ring, int fd, unsigned size, long offset, int rw_flags)
{
	struct io_uring_sqe entry = {
		.opcode = IORING_OP_WRITE,
		.fd = fd,
		.addr = (unsigned long)data,
		.len = size,
		.off = offset,
		.rw_flags = rw_flags,
	};

	return submit(ring, &entry);
}

static void by_ring(void)
{
	struct ring ring;
	int fd, other;

	set_up(&ring);
	fd = must(open("/tmp/always", O_CREAT | O_WRONLY | O_APPEND, 0600), "open");
	looked_at = "/tmp/always";
	went_to(0, 5000, write_by(&ring, fd, 5000, 3, 0), "request");
	went_to(5000, 60, write_by(&ring, fd, 60, 3, 0), "request");
	went_to(5060, 70, write_by(&ring, fd, 70, -1, 0), "request");
	went_to(5130, 30, request(&ring, IORING_OP_WRITEV, fd, parts, 2, 5, 0), "request");

	other = must(open("/tmp/sometimes", O_CREAT | O_WRONLY, 0600), "open");
	looked_at = "/tmp/sometimes";
	went_to(0, 100, write_by(&ring, other, 100, 0, 0), "request");
	failure = 5;
	went_to(100, 80, write_by(&ring, other, 80, 3, RWF_APPEND), "request");
	failure = 4;
	went_to(50, 80, write_by(&ring, other, 80, 50, 0), "request");
}

int main(int count, char **argument)
{
	next_character();
	if (count == 2 && !strcmp(argument[1], "calls"))
		by_calls();
	else if (count == 2 && !strcmp(argument[1], "ring"))
		by_ring();
	else
		return 1;
	return 0;
}
