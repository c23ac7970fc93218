/* An io_uring of one request at a time, without a library. A program ends with exit code 3 where the kernel has none. */
#pragma once

#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CANNOT 3

static long must(long result, const char *what)
{
	if (result >= 0)
		return result;
	/* Requests return their error, calls set it. */
	fprintf(stderr, "%s: %s\n", what, strerror(result == -1 ? errno : -result));
	exit(2);
}

struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_mask;
	struct io_uring_sqe *entries;
	struct io_uring_cqe *completions;
};

/* Submit a copy of a request, and wait for its end. */
static inline int submit(struct ring *ring, const struct io_uring_sqe *wanted)
{
	unsigned tail = *ring->sq_tail, index = tail & *ring->sq_mask;
	int result;

	ring->entries[index] = *wanted;
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	must(syscall(__NR_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter");
	result = ring->completions[*ring->cq_head & *ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, *ring->cq_head + 1, __ATOMIC_RELEASE);
	return result;
}

/* ``slot`` is a place in the ring's own table of files, counted from 1; 0 means descriptors. */
static inline int request_slot(struct ring *ring, int opcode, int fd, const void *address, unsigned size, long offset,
			       int flags, unsigned slot)
{
	struct io_uring_sqe entry = {
		.opcode = opcode,
		.flags = flags,
		.fd = fd,
		.addr = (unsigned long)address,
		.len = size,
		.off = offset,
		.file_index = slot,
	};

	return submit(ring, &entry);
}

static inline int request(struct ring *ring, int opcode, int fd, const void *address, unsigned size, long offset,
			  int flags)
{
	return request_slot(ring, opcode, fd, address, size, offset, flags, 0);
}

static void set_up(struct ring *ring)
{
	struct io_uring_params parameters = {};
	char *sq, *cq;

	ring->fd = syscall(__NR_io_uring_setup, 4, &parameters);
	if (ring->fd < 0)
		exit(CANNOT);
	sq = mmap(NULL, parameters.sq_off.array + 4 * sizeof(unsigned), PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
		  IORING_OFF_SQ_RING);
	cq = mmap(NULL, parameters.cq_off.cqes + 8 * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED,
		  ring->fd, IORING_OFF_CQ_RING);
	ring->entries = mmap(NULL, 4 * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
			    IORING_OFF_SQES);
	ring->sq_tail = (unsigned *)(sq + parameters.sq_off.tail);
	ring->sq_mask = (unsigned *)(sq + parameters.sq_off.ring_mask);
	ring->sq_array = (unsigned *)(sq + parameters.sq_off.array);
	ring->cq_head = (unsigned *)(cq + parameters.cq_off.head);
	ring->cq_mask = (unsigned *)(cq + parameters.cq_off.ring_mask);
	ring->completions = (struct io_uring_cqe *)(cq + parameters.cq_off.cqes);
}
