// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The record of a call, once it has returned. */
#pragma once

#include "abi32.h"
#include "calls.h"
#include "files.bpf.h"
#include "totals.bpf.h"

struct iovec_walk {
	__u64 at;
	__u64 sum;
	__u64 word_size;
};

/* Each entry is a base and a size, a word each. */
static long add_iovec(__u32 index, struct iovec_walk *walk)
{
	__u64 entry = walk->at + 2 * index * walk->word_size, size = 0;

	if (bpf_probe_read_user(&size, walk->word_size == 4 ? 4 : 8, (void *)(entry + walk->word_size)))
		return 1;
	walk->sum += size;
	return 0;
}

static __always_inline __u64 sum_of_iovecs(struct call *call)
{
	struct iovec_walk walk = { .at = call->argument[1], .word_size = call->is_32 ? 4 : 8 };
	__u64 count = call->argument[2];

	if (count > MAX_IOVECS) {
		call->from.flags |= BDT_CALL_REQUEST_CUT;
		count = MAX_IOVECS;
	}
	bpf_loop(count, add_iovec, &walk, 0);
	return walk.sum;
}

/*
 * Where a transfer through a file's own position began. The kernel moves the position by what it transferred, holding
 * the position's lock; so where it stands behind us, less what we moved, is where we were, also when appending. Only
 * when somebody who shares the position has moved it as well does that not hold.
 */
static __always_inline __s64 began_at(struct subject *subject, __s64 moved)
{
	struct file *file = (struct file *)subject->file;
	__s64 offset = moved > 0 ? BPF_CORE_READ(file, f_pos) - moved : subject->position;

	if (offset != subject->position && !(subject->flags & BDT_CALL_APPEND))
		subject->flags |= BDT_CALL_OFFSET_SHARED;
	return offset;
}

/* The same for calls that may be given the address of an offset, which they move instead. */
static __always_inline __s64 moved_from(struct subject *subject, __u64 address, bool is_short, __s64 moved)
{
	__s64 after = 0;

	if (!(subject->flags & BDT_CALL_HAS_OFFSET))
		return -1;
	if (!address)
		return began_at(subject, moved);
	bpf_probe_read_user(&after, is_short ? 4 : 8, (void *)address);
	return moved > 0 ? after - moved : after;
}

int __noinline emit_call(struct call *call, struct subject *subject, struct bdt_call *values)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bdt_call *record;

	if (!call || !subject || !values)
		return 0;
	if (subject->flags & UNWANTED && values->op != BDT_OP_EXECVE && values->op != BDT_OP_EXECVEAT) {
		count_filtered();
		return 0;
	}
	/* A program is told by the name that was given to exec where its file has none. */
	if (subject->flags & UNWANTED)
		subject->flags &= ~BDT_CALL_HAS_FILE;
	if (call->waited && reads(values->op))
		subject->flags |= BDT_CALL_DEVICE;
	if (tally(task->tgid, subject, call->time_ns, values->duration_ns, values->result, values->op))
		return 0;
	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	record->size = sizeof(*record);
	record->type = BDT_REC_CALL;
	record->tid = task->pid;
	record->time_ns = call->time_ns;
	record->duration_ns = values->duration_ns;
	record->result = values->result;
	record->inode = subject->inode;
	record->offset = values->offset;
	record->requested = values->requested;
	record->arg = values->arg;
	record->device = subject->device;
	record->fd = values->fd;
	record->tgid = task->tgid;
	record->op = values->op;
	record->flags = subject->flags & ~UNWANTED;
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

/* Both sides of a call that moves bytes from one file to another. */
static __always_inline void emit_move(struct task_struct *task, struct call *call, struct bdt_call *values)
{
	bool is_sendfile = values->op == BDT_OP_SENDFILE;
	__s32 in = is_sendfile ? call->argument[1] : call->argument[0];
	__s32 out = is_sendfile ? call->argument[0] : call->argument[2];

	values->requested = is_sendfile ? call->argument[3] : call->argument[4];
	values->fd = in;
	values->arg = out;
	values->offset = moved_from(&call->from, is_sendfile ? call->argument[2] : call->argument[1],
				    call->form == ABI32_SHORT_OFFSET, values->result);
	emit_call(call, &call->from, values);
	values->fd = out;
	values->arg = in;
	values->offset = moved_from(&call->to, is_sendfile ? 0 : call->argument[3], false, values->result);
	call->to.flags |= BDT_CALL_TO_FILE;
	emit_call(call, &call->to, values);
}

/* The kernel could not read a string of a call that failed so either: then there is none to be missed. */
static __always_inline __u32 may_fail(__s64 result)
{
	return result == -EFAULT ? MAY_FAIL : 0;
}

/* A path argument, and from which directory it counts. */
static __always_inline void emit_argument(struct call *call, __u64 path, __s32 base, __s64 result)
{
	/* Without a path, utimensat is about the descriptor's own file. */
	if (path)
		emit_string(NULL, path, FROM_USER | may_fail(result), call->time_ns, bpf_get_current_task_btf()->pid);
	note_base(&call->from, first_of(path), base, call->time_ns);
}

/* A second argument that is text: another path, or a name that is none. */
static __always_inline void emit_second(struct call *call, __u64 text, __u8 base, __s64 result)
{
	__s32 directory = base == WORKING_DIRECTORY ? AT_FDCWD : (__s32)call->argument[(base - 1) & 7];

	forget(&call->to);
	if (base)
		note_base(&call->to, first_of(text), directory, call->time_ns);
	emit_string(&call->to, text, FROM_USER | IS_SECOND | may_fail(result), call->time_ns,
		    bpf_get_current_task_btf()->pid);
}

/* A call whose arguments the loader's table describes. */
static __always_inline void emit_shaped(struct task_struct *task, struct call *call, struct bdt_call *values)
{
	const volatile struct bdt_shape *shape = &shapes[values->op & 127];

	if (changes_tree(values->op) && !values->result)
		__sync_fetch_and_add(&tree_changes, 1);
	if (!wants[values->op & 127])
		return;
	if (shape->fd)
		values->fd = call->argument[(shape->fd - 1) & 7];
	if (shape->offset)
		values->offset = call->argument[(shape->offset - 1) & 7];
	else
		call->from.flags &= ~BDT_CALL_HAS_OFFSET;
	if (shape->size)
		values->requested = call->argument[(shape->size - 1) & 7];
	if (shape->arg)
		values->arg = call->argument[(shape->arg - 1) & 7];
	if (shape->path && mode == BDT_MODE_EVENTS)
		emit_argument(call, call->argument[(shape->path - 1) & 7],
			      shape->base ? (__s32)call->argument[(shape->base - 1) & 7] : AT_FDCWD, values->result);
	if (shape->second && mode == BDT_MODE_EVENTS)
		emit_second(call, call->argument[(shape->second - 1) & 7], shape->second_base, values->result);
	emit_call(call, &call->from, values);
}
