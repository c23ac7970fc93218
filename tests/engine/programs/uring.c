/*
 * Reads FILE and writes below /tmp through an io_uring, without a library. Exit code 3: this kernel can't do it.
 *
 *	uring FILE [silent]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ring.h"

#ifndef IORING_OP_FTRUNCATE /* newer than the headers of some systems */
#define IORING_OP_FTRUNCATE 55
#endif

static char data[65536];

/* What moves no bytes: names, sizes, and a file that never has a descriptor. */
static void name_things(struct ring *ring, const char *name)
{
	int tmp = must(open("/tmp", O_RDONLY | O_DIRECTORY), "open"), fd;

	must(chdir("/tmp"), "chdir");
	must(request(ring, IORING_OP_MKDIRAT, AT_FDCWD, "dir", 0700, 0, 0), "mkdir");
	must(request(ring, IORING_OP_LINKAT, tmp, "by-ring", AT_FDCWD, (long)"dir/linked", 0), "link");
	must(request(ring, IORING_OP_SYMLINKAT, tmp, "by-ring", 0, (long)"symbolic", 0), "symlink");
	must(request(ring, IORING_OP_RENAMEAT, tmp, "symbolic", tmp, (long)"dir/renamed", 0), "rename");
	must(request(ring, IORING_OP_UNLINKAT, tmp, "dir/renamed", 0, 0, 0), "unlink");
	fd = must(open("/tmp/by-ring", O_RDWR), "open");
	must(request(ring, IORING_OP_FALLOCATE, fd, (void *)5000, 0, 6000, 0), "fallocate");
	/* Before 6.9 there is no such request. */
	if (request(ring, IORING_OP_FTRUNCATE, fd, NULL, 0, 777, 0) == -EINVAL)
		must(ftruncate(fd, 777), "ftruncate");
	must(request_slot(ring, IORING_OP_OPENAT, AT_FDCWD, name, 0, 0, 0, 1), "open into a slot");
	must(request(ring, IORING_OP_READ, 0, data, 44, 11, IOSQE_FIXED_FILE), "read");
	must(request_slot(ring, IORING_OP_CLOSE, 0, NULL, 0, 0, 0, 1), "close a slot");
}

/* A request that is silent when it succeeds: nobody is told of its end. */
static void be_silent(struct ring *ring)
{
	int fd = must(open("/tmp/silent", O_CREAT | O_RDWR, 0600), "open");
	unsigned tail = *ring->sq_tail, index = tail & *ring->sq_mask;
	struct io_uring_sqe *entry = &ring->entries[index];

	memset(entry, 0, sizeof(*entry));
	entry->opcode = IORING_OP_WRITE;
	entry->flags = IOSQE_CQE_SKIP_SUCCESS;
	entry->fd = fd;
	entry->addr = (unsigned long)data;
	entry->len = 55;
	entry->off = 12;
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	must(syscall(__NR_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0), "io_uring_enter");
}

int main(int count, char **argument)
{
	const char *name = count > 1 ? argument[1] : "/srv/big.bin";
	struct iovec vector[] = { { data, 300 }, { data + 1000, 40 } };
	struct ring ring;
	int in, out;

	set_up(&ring);
	in = must(request(&ring, IORING_OP_OPENAT, AT_FDCWD, name, 0, 0, 0), "open");
	out = must(open("/tmp/by-ring", O_CREAT | O_RDWR, 0600), "open");
	must(request(&ring, IORING_OP_READ, in, data, 200, 70, 0), "read");
	must(request(&ring, IORING_OP_READV, in, vector, 2, 500, 0), "readv");
	must(request(&ring, IORING_OP_WRITE, out, data, 120, 4000, 0), "write");
	must(request(&ring, IORING_OP_FSYNC, out, NULL, 0, 0, 0), "fsync");
	/* A file that is registered has an index instead of a descriptor. */
	must(syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_FILES, &in, 1), "register");
	must(request(&ring, IORING_OP_READ, 0, data, 33, 9, IOSQE_FIXED_FILE), "read");
	if (request(&ring, IORING_OP_OPENAT, AT_FDCWD, "/srv/nothing", 0, 0, 0) != -ENOENT)
		return 4;
	must(request(&ring, IORING_OP_CLOSE, out, NULL, 0, 0, 0), "close");
	name_things(&ring, name);
	if (count > 2 && !strcmp(argument[2], "silent"))
		be_silent(&ring);
	return 0;
}
