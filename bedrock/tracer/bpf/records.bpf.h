// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The record of a call, once it has returned. */
#pragma once

#include "abi32.h"
#include "calls.h"
#include "arguments.bpf.h"
#include "totals.bpf.h"

struct iovec_walk {
	__u64 at;
	__u64 sum;
	__u32 word_size;
	__u32 turns;
	bool is_cut;
};

/* Each entry is a base and a size, a word each. */
static __always_inline long add_iovec(__u32 index, struct iovec_walk *walk)
{
	__u64 entry = walk->at + 2 * index * walk->word_size, size = 0;

	if (bpf_probe_read_user(&size, walk->word_size == 4 ? 4 : 8, (void *)(entry + walk->word_size))) {
		walk->is_cut = true;
		return 1;
	}
	walk->sum += size;
	return 0;
}

LOOP(add_iovec, iovec_walk)

/* How many bytes the parts of a vector have together; for one that can't be read whole it is a lower bound. */
__u64 __noinline sum_of_iovecs(struct subject *subject, __u64 at, __u64 count, __u32 word_size)
{
	struct iovec_walk walk = { .at = at, .word_size = word_size };

	if (!subject)
		return 0;
	if (count > MAX_IOVECS) {
		walk.is_cut = true;
		count = MAX_IOVECS;
	}
	run_add_iovec(&walk, count);
	if (walk.is_cut)
		subject->flags |= BDT_CALL_REQUEST_CUT;
	return walk.sum;
}

/*
 * Where a transfer through a file's own position began. The kernel moves the position by what it transferred, holding
 * the position's lock; so where it stands behind us, less what we moved, is where we were, also when appending. Only
 * when somebody who shares the position has moved it as well does that not hold.
 */
static __always_inline __s64 began_at(struct subject *subject, __s64 moved)
{
	__u64 file = subject->file;
	__s64 offset = moved > 0 ? FIELD(file, file, f_pos) - moved : subject->position;

	if (offset != subject->position && !(subject->flags & BDT_CALL_APPEND))
		subject->flags |= BDT_CALL_OFFSET_SHARED;
	return offset;
}

/* The same for calls that may be given the address of an offset, which they move instead. */
static __always_inline __s64 moved_from(struct thread *thread, struct subject *subject, __u64 address, bool is_short,
					__s64 moved)
{
	__s64 after = 0;

	if (!(subject->flags & BDT_CALL_HAS_OFFSET))
		return -1;
	if (!address)
		return began_at(subject, moved);
	if (bpf_probe_read_user(&after, is_short ? 4 : 8, (void *)address)) {
		subject->flags &= ~BDT_CALL_HAS_OFFSET;
		if (moved >= 0)
			count_cause(thread->slot, BDT_CAUSE_READ_FAULT);
		return -1;
	}
	return moved > 0 ? after - moved : after;
}

/*
 * Where a write to an explicit offset began that the kernel appended instead: at the end of the file, as that stands
 * behind the write. When the file grew by more than the write, somebody else wrote as well, and the offset may be his.
 */
static __always_inline __s64 appended_at(struct subject *subject, __u64 size_before, __s64 moved)
{
	__u64 size = size_of(subject->file);

	subject->flags |= BDT_CALL_APPEND;
	if (moved <= 0)
		return size;
	if (size != size_before + moved)
		subject->flags |= BDT_CALL_OFFSET_SHARED;
	return size - moved;
}

/* Write the record in ``thread->values``, whose fields of the call alone are filled. */
static __always_inline void write_values(struct thread *thread)
{
	struct bdt_call *values = &thread->values;
	void *ring;

	values->size = sizeof(*values);
	values->type = BDT_REC_CALL;
	ring = ring_for_record(thread->slot);
	if (ring && bpf_ringbuf_output(ring, values, sizeof(*values), wakeup(ring, thread->slot, thread)))
		count_cause(thread->slot, BDT_CAUSE_RING_FULL);
}

int __noinline emit_call(struct thread *thread, struct subject *subject)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bdt_call *values;
	__u32 flags;

	if (!thread || !subject)
		return 0;
	values = &thread->values;
	flags = subject->flags;
	if (flags & UNWANTED) {
		if (!is_of_process(values->op)) {
			count_filtered(thread->slot);
			return 0;
		}
		/* A program is recorded by the name that was given to exec where its file was not asked for. */
		flags &= ~BDT_CALL_HAS_FILE;
	}
	if (thread->waited && reads(values->op))
		flags |= BDT_CALL_DEVICE;
	if (flags & BDT_CALL_UNFINISHED)
		count_cause(thread->slot, BDT_CAUSE_END_UNSEEN);
	values->tid = thread->entry_tid;
	values->tgid = task->tgid;
	values->time_ns = thread->time_ns;
	/* Whatever a filter answers, nothing was done. */
	if (tally(thread, subject, thread->is_denied ? -ENOSYS : values->result))
		return 0;
	if (thread->is_denied)
		flags |= BDT_CALL_DENIED | ENTRYLESS;
	else if (is_preemptible && task->nvcsw + task->nivcsw != thread->switches)
		flags |= SWITCHED;
	if (thread->changed)
		flags |= BDT_CALL_ARGUMENT_CHANGED;
	if (thread->late)
		flags |= BDT_CALL_ARGUMENT_LATE;
	values->inode = subject->inode;
	values->device = subject->device;
	values->link = subject->link;
	values->flags = flags & ~INTERNAL_FLAGS;
	write_values(thread);
	return 0;
}

static __always_inline void clear_values(struct thread *thread, __u16 op)
{
	__builtin_memset(&thread->values, 0, sizeof(thread->values));
	thread->values.op = op;
	thread->values.fd = -1;
	thread->values.offset = -1;
}

/* Write an event that is no call: it has no duration, and is about no file but that of ``subject``, which may be NULL. */
static __always_inline void emit_event(struct thread *thread, struct subject *subject, __u16 op, __u64 time_ns,
				       __s64 result, __u64 argument, __u32 flags)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bdt_call *values = &thread->values;

	clear_values(thread, op);
	values->tid = task->pid;
	values->tgid = task->tgid;
	values->time_ns = time_ns;
	values->result = result;
	values->arg = argument;
	if (subject) {
		values->inode = subject->inode;
		values->device = subject->device;
		values->link = subject->link;
		flags |= subject->flags & ~INTERNAL_FLAGS;
	}
	values->flags = flags;
	write_values(thread);
}

/* Both sides of a call that moves bytes from one file to another. */
int __noinline emit_move(struct thread *thread)
{
	struct bdt_call *values;
	bool is_sendfile;
	__s32 in, out;

	if (!thread)
		return 0;
	values = &thread->values;
	is_sendfile = values->op == BDT_OP_SENDFILE;
	in = is_sendfile ? thread->argument[1] : thread->argument[0];
	out = is_sendfile ? thread->argument[0] : thread->argument[2];
	values->requested = is_sendfile ? thread->argument[3] : thread->argument[4];
	values->fd = in;
	values->arg = out;
	values->offset = moved_from(thread, &thread->from, is_sendfile ? thread->argument[2] : thread->argument[1],
				    thread->form == ABI32_SHORT_OFFSET, values->result);
	emit_call(thread, &thread->from);
	values->fd = out;
	values->arg = in;
	values->offset = moved_from(thread, &thread->to, is_sendfile ? 0 : thread->argument[3], false, values->result);
	thread->to.flags |= BDT_CALL_TO_FILE;
	emit_call(thread, &thread->to);
	return 0;
}

/* A call whose arguments the loader's table describes. */
int __noinline emit_shaped(struct thread *thread)
{
	const volatile struct bdt_shape *shape;
	struct session *session;
	struct bdt_call *values;

	if (!thread)
		return 0;
	values = &thread->values;
	session = session_at(thread->slot);
	shape = &shapes[values->op & (OPS - 1)];
	if (changes_tree(values->op) && !values->result)
		__sync_fetch_and_add(&session->tree_changes, 1);
	if (!session->wants[values->op & (OPS - 1)])
		return 0;
	if (shape->fd)
		values->fd = thread->argument[(shape->fd - 1) & 7];
	if (shape->offset)
		values->offset = thread->argument[(shape->offset - 1) & 7];
	else
		thread->from.flags &= ~BDT_CALL_HAS_OFFSET;
	if (shape->size)
		values->requested = thread->argument[(shape->size - 1) & 7];
	if (shape->arg)
		values->arg = thread->argument[(shape->arg - 1) & 7];
	emit_call(thread, &thread->from);
	return 0;
}

/* Every piece of a munmap or msync that a file is mapped to. */
int __noinline emit_pieces(struct thread *thread)
{
	struct bdt_call *values;

	if (!thread)
		return 0;
	values = &thread->values;
	for (__u32 i = 0; i < MAX_PIECES; i++) {
		struct piece *piece = &thread->pieces[i];

		if (i >= thread->piece_count)
			break;
		values->arg = piece->start;
		values->requested = piece->end - piece->start;
		emit_call(thread, &piece->subject);
	}
	return 0;
}
