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
	bool is_cut;
};

/* Each entry is a base and a size, a word each. */
static long add_iovec(__u32 index, struct iovec_walk *walk)
{
	__u64 entry = walk->at + 2 * index * walk->word_size, size = 0;

	if (bpf_probe_read_user(&size, walk->word_size == 4 ? 4 : 8, (void *)(entry + walk->word_size))) {
		walk->is_cut = true;
		return 1;
	}
	walk->sum += size;
	return 0;
}

/* How many bytes the parts of a vector have together; of one that can't be read whole it is a lower bound. */
static __always_inline __u64 sum_of_iovecs(struct subject *subject, __u64 at, __u64 count, bool is_32)
{
	struct iovec_walk walk = { .at = at, .word_size = is_32 ? 4 : 8 };

	if (count > MAX_IOVECS) {
		walk.is_cut = true;
		count = MAX_IOVECS;
	}
	bpf_loop(count, add_iovec, &walk, 0);
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
	if (bpf_probe_read_user(&after, is_short ? 4 : 8, (void *)address)) {
		subject->flags &= ~BDT_CALL_HAS_OFFSET;
		if (moved >= 0)
			count_cause(BDT_CAUSE_READ_FAULT);
		return -1;
	}
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
	if (call->is_denied)
		subject->flags |= BDT_CALL_DENIED;
	if (subject->flags & BDT_CALL_UNFINISHED)
		count_cause(BDT_CAUSE_END_UNSEEN);
	/* Whatever a filter answers, nothing has been done. */
	if (tally(task->tgid, subject, call->time_ns, values->duration_ns, call->is_denied ? -ENOSYS : values->result,
		  values->op))
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
int __noinline emit_move(struct call *call, struct bdt_call *values)
{
	bool is_sendfile;
	__s32 in, out;

	if (!call || !values)
		return 0;
	is_sendfile = values->op == BDT_OP_SENDFILE;
	in = is_sendfile ? call->argument[1] : call->argument[0];
	out = is_sendfile ? call->argument[0] : call->argument[2];
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
	return 0;
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
	if (!call->has_base)
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
int __noinline emit_shaped(struct call *call, struct bdt_call *values)
{
	const volatile struct bdt_shape *shape;

	if (!call || !values)
		return 0;
	shape = &shapes[values->op & 127];
	if (changes_tree(values->op) && !values->result)
		__sync_fetch_and_add(&tree_changes, 1);
	if (!wants[values->op & 127])
		return 0;
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
	return 0;
}

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
};

/* One of the requests that io_submit has taken. How it ends is put into memory that the target reads by itself. */
static long emit_iocb(__u32 index, struct iocb_walk *walk)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call *call = bpf_task_storage_get(&calls, task, NULL, 0);
	struct bdt_call values = { .offset = -1 };
	struct iocb iocb = {};
	__u64 at = 0, file;

	if (!call)
		return 1;
	if (bpf_probe_read_user(&at, walk->word_size == 4 ? 4 : 8, (void *)(walk->pointers + index * walk->word_size)) ||
	    bpf_probe_read_user(&iocb, sizeof(iocb), (void *)at)) {
		count_seen();
		count_cause(BDT_CAUSE_REQUEST_UNREAD);
		return 0;
	}
	values.op = op_of_iocb(iocb.opcode);
	if (!wants[values.op & 127])
		return 0;
	forget(&call->to);
	file = file_of(iocb.fd);
	if (file)
		note_file(&call->to, file, call->time_ns, IF_NEW);
	values.fd = iocb.fd;
	values.arg = iocb.opcode;
	if (values.op == BDT_OP_AIO_READ || values.op == BDT_OP_AIO_WRITE) {
		values.offset = iocb.offset;
		values.requested = iocb.opcode < IOCB_READ_VECTOR ?
					   iocb.size :
					   sum_of_iovecs(&call->to, iocb.buffer, iocb.size, walk->word_size == 4);
	} else {
		call->to.flags &= ~BDT_CALL_HAS_OFFSET;
	}
	call->to.flags |= BDT_CALL_UNFINISHED;
	emit_call(call, &call->to, &values);
	return 0;
}

static __always_inline void emit_iocbs(struct call *call, __s64 taken)
{
	struct iocb_walk walk = { .pointers = call->argument[2], .word_size = call->is_32 ? 4 : 8 };

	if (taken > 0 && !call->is_denied)
		bpf_loop(taken < MAX_IOCBS ? taken : MAX_IOCBS, emit_iocb, &walk, 0);
}
