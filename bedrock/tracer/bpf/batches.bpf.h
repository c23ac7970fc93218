// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Calls that carry several things at once, each of which has a record: io_submit, and messages with descriptors. */
#pragma once

#include "records.bpf.h"

/* A request of io_submit, as it stands in user memory (linux/aio_abi.h). */
struct iocb {
	__u64 data;
	__u64 key;
	__u16 opcode;
	__s16 priority;
	__u32 fd;
	__u64 buffer;
	__u64 size;
	__s64 offset;
};
enum { IOCB_READ, IOCB_WRITE, IOCB_SYNC, IOCB_DATA_SYNC, IOCB_READ_VECTOR = 7, IOCB_WRITE_VECTOR };

static __always_inline __u16 op_of_iocb(__u16 opcode)
{
	if (opcode == IOCB_READ || opcode == IOCB_READ_VECTOR)
		return BDT_OP_AIO_READ;
	if (opcode == IOCB_WRITE || opcode == IOCB_WRITE_VECTOR)
		return BDT_OP_AIO_WRITE;
	return opcode == IOCB_SYNC || opcode == IOCB_DATA_SYNC ? BDT_OP_AIO_SYNC : BDT_OP_AIO_OTHER;
}

struct iocb_walk {
	__u64 pointers;
	__u32 word_size;
	__u32 turns;
};

/* Write one request. How it ends is put into memory that the target reads by itself. */
int __noinline emit_iocb(struct thread *thread, __u64 pointer, __u32 word_size)
{
	struct bdt_call *values;
	struct iocb *iocb;
	__u64 at = 0, file;
	__u16 op;

	if (!thread)
		return 0;
	/* There are no pieces of a mapping in this call. */
	iocb = (struct iocb *)thread->pieces;
	if (bpf_probe_read_user(&at, word_size == 4 ? 4 : 8, (void *)pointer) ||
	    bpf_probe_read_user(iocb, sizeof(*iocb), (void *)at)) {
		count_lost(thread->slot, BDT_CAUSE_REQUEST_UNREAD);
		return 0;
	}
	op = op_of_iocb(iocb->opcode);
	if (!session_at(thread->slot)->wants[op & (OPS - 1)])
		return 0;
	clear_values(thread, op);
	values = &thread->values;
	forget(&thread->to);
	file = file_of(iocb->fd);
	if (file)
		note_file(thread, &thread->to, file, IF_NEW);
	values->fd = iocb->fd;
	values->arg = iocb->opcode;
	if (op == BDT_OP_AIO_READ || op == BDT_OP_AIO_WRITE) {
		values->offset = iocb->offset;
		values->requested = iocb->opcode < IOCB_READ_VECTOR ?
					    iocb->size :
					    sum_of_iovecs(&thread->to, iocb->buffer, iocb->size, word_size);
	} else {
		thread->to.flags &= ~BDT_CALL_HAS_OFFSET;
	}
	thread->to.flags |= BDT_CALL_UNFINISHED;
	emit_call(thread, &thread->to);
	return 0;
}

static __always_inline long iocb_turn(__u32 index, struct iocb_walk *walk)
{
	struct thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);

	if (!thread)
		return 1;
	emit_iocb(thread, walk->pointers + index * walk->word_size, walk->word_size);
	return 0;
}

LOOP(iocb_turn, iocb_walk)

int __noinline emit_iocbs(struct thread *thread, __s64 taken)
{
	struct iocb_walk walk = {};

	if (!thread || taken <= 0 || thread->is_denied)
		return 0;
	walk.pointers = thread->argument[2];
	walk.word_size = thread->is_32 ? 4 : 8;
	run_iocb_turn(&walk, taken < MAX_IOCBS ? taken : MAX_IOCBS);
	return 0;
}

/* Where the parts of a struct msghdr stand, and of the headers in its control data, for words of 8 and of 4 bytes. */
#define CONTROL_AT(word_size) ((word_size) == 4 ? 16 : 32)
#define LEVEL_AT(word_size) (word_size)
#define HEAD_BYTES(word_size) ((word_size) + 8)
#define MAX_DESCRIPTORS 256 /* in one header; the kernel's own limit is 253 */
#define MAX_HEADS 4

struct descriptor_walk {
	__u64 at;
	__u32 turns;
};

/* Write one descriptor that arrived. */
int __noinline emit_descriptor(struct thread *thread, __s32 fd)
{
	__u64 file = file_of(fd);

	if (!thread || !file)
		return 0;
	clear_values(thread, BDT_OP_RECEIVE_FD);
	forget(&thread->from);
	note_file(thread, &thread->from, file, session_at(thread->slot)->mode == BDT_MODE_EVENTS ? ALWAYS : IF_ANOTHER);
	thread->from.flags &= ~BDT_CALL_HAS_OFFSET;
	thread->values.fd = fd;
	thread->values.result = fd;
	emit_call(thread, &thread->from);
	return 0;
}

static __always_inline long descriptor_turn(__u32 index, struct descriptor_walk *walk)
{
	struct thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);
	__s32 fd = -1;

	if (!thread)
		return 1;
	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)(walk->at + index * sizeof(fd))))
		count_lost(thread->slot, BDT_CAUSE_REQUEST_UNREAD);
	else
		emit_descriptor(thread, fd);
	return 0;
}

LOOP(descriptor_turn, descriptor_walk)

/* The descriptors in what recvmsg has put into a message's control data. */
int __noinline emit_received(struct thread *thread, __s64 result)
{
	__u64 at = 0, left = 0, size = 0;
	__u32 kind[2] = {}, word_size;

	if (!thread || result < 0 || thread->is_denied)
		return 0;
	word_size = thread->is_32 ? 4 : 8;
	bpf_probe_read_user(&at, word_size == 4 ? 4 : 8, (void *)(thread->argument[1] + CONTROL_AT(word_size)));
	bpf_probe_read_user(&left, word_size == 4 ? 4 : 8,
			    (void *)(thread->argument[1] + CONTROL_AT(word_size) + word_size));
	for (int i = 0; at && i < MAX_HEADS; i++) {
		if (left < HEAD_BYTES(word_size))
			break;
		size = 0;
		if (bpf_probe_read_user(&size, word_size == 4 ? 4 : 8, (void *)at) ||
		    bpf_probe_read_user(kind, sizeof(kind), (void *)(at + LEVEL_AT(word_size))))
			break;
		if (size < HEAD_BYTES(word_size) || size > left)
			break;
		if (kind[0] == SOL_SOCKET && kind[1] == SCM_RIGHTS) {
			struct descriptor_walk walk = { .at = at + HEAD_BYTES(word_size) };
			__u64 count = (size - HEAD_BYTES(word_size)) / sizeof(__s32);

			run_descriptor_turn(&walk, count < MAX_DESCRIPTORS ? count : MAX_DESCRIPTORS);
		}
		size = (size + word_size - 1) & ~(__u64)(word_size - 1);
		if (size >= left)
			break;
		at += size;
		left -= size;
	}
	return 0;
}
