// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* A system call returns: its record, by families of calls. */
#pragma once

#include "entries.bpf.h"
#include "faults.bpf.h"

/*
 * A call that returns without having been entered: a seccomp filter has answered it instead of the kernel, which says so
 * to nobody else. Or the kernel left the probe out, which the loader finds out. False: it is not traced.
 */
static __always_inline int enter_late(__u32 slot, __u64 registers, __u64 number, __s64 result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct session *session = session_at(slot);
	struct thread *thread;
	__u64 now;
	__u16 op;

	if (!session->has_begun)
		return 0;
	if (abi_of(task, number) == ABI_FOREIGN)
		return 0;
	op = op_called(task, number);
	/* A child begins with the return of the call that made it. */
	if (!op || (op == BDT_OP_FORK && result >= 0) || !may_be_wanted(session, op))
		return 0;
	now = bpf_ktime_get_ns();
	thread = bpf_task_storage_get(&threads, task, NULL, 0);
	if (!thread || thread->session != session->number) {
		begin_thread(slot, now);
		thread = bpf_task_storage_get(&threads, task, NULL, 0);
	}
	if (!thread)
		return 0;
	enter(thread, registers, number, now);
	thread->is_denied = 1;
	/* What it was told to do could be read at the return only. */
	thread->late = shapes[thread->op & (OPS - 1)].has_text;
	return 1;
}

/* Eight bytes that the kernel has read or written, too. */
static __always_inline void read_result(struct thread *thread, void *to, __u64 address, __s64 result)
{
	if (bpf_probe_read_user(to, 8, (void *)address) && result >= 0)
		count_cause(thread->slot, BDT_CAUSE_READ_FAULT);
}

/* Where a base was taken for that of a relative path, and the path turned out to be an absolute one. */
static __always_inline void correct_base(struct thread *thread, __u16 op)
{
	if (thread->path.first != '/' || thread->in_root || !thread->path.is_unread)
		return;
	if (op == BDT_OP_CHROOT) {
		thread->from = thread->to;
	} else {
		forget(&thread->from);
		note_base(thread, &thread->from, '/', AT_FDCWD);
	}
}

/* Compare the texts with what they were when the call began, and read those that could not be read then. */
int __noinline check_texts(struct thread *thread, __u32 op)
{
	/* The kernel could not read a string of a call that failed so either: then there is none to be missed. */
	__u32 kind = thread && thread->values.result == -EFAULT ? MAY_FAIL : 0;

	if (!thread)
		return 0;
	check_text(thread, &thread->path, kind);
	check_text(thread, &thread->second, kind | IS_SECOND);
	if (thread->has_base)
		correct_base(thread, op);
	return 0;
}

/* Reads and writes: how much was asked for, and where it began. */
int __noinline emit_transfer(struct thread *thread, __u32 op)
{
	__u64 *argument;
	struct bdt_call *values;
	bool has_own_offset = false, appends;

	if (!thread)
		return 0;
	values = &thread->values;
	argument = thread->argument;
	values->fd = argument[0];
	if (op == BDT_OP_READ || op == BDT_OP_WRITE || op == BDT_OP_PREAD64 || op == BDT_OP_PWRITE64)
		values->requested = argument[2];
	else
		values->requested = sum_of_iovecs(&thread->from, argument[1], argument[2], thread->is_32 ? 4 : 8);
	if (op == BDT_OP_PREAD64 || op == BDT_OP_PWRITE64) {
		values->offset = argument[3];
		has_own_offset = true;
	} else if (op == BDT_OP_PREADV || op == BDT_OP_PWRITEV || op == BDT_OP_PREADV2 || op == BDT_OP_PWRITEV2) {
		/* On 64-bit kernels the low word holds all of the offset; -1 means the file's own position. */
		values->offset = argument[3];
		has_own_offset = values->offset != -1;
	}
	if (!(thread->from.flags & BDT_CALL_HAS_OFFSET)) {
		/* It has no positions. */
	} else if (has_own_offset) {
		appends = writes(op) && (thread->from.flags & BDT_CALL_APPEND ||
					 (op == BDT_OP_PWRITEV2 && argument[5] & RWF_APPEND));
		if (appends)
			values->offset = appended_at(&thread->from, thread->size_before, values->result);
	} else {
		if (op == BDT_OP_PWRITEV2 && argument[5] & RWF_APPEND)
			thread->from.flags |= BDT_CALL_APPEND;
		values->offset = began_at(&thread->from, values->result);
	}
	emit_call(thread, &thread->from);
	return 0;
}

int __noinline emit_open(struct thread *thread, __u32 op)
{
	bool tells, at = op == BDT_OP_OPENAT || op == BDT_OP_OPENAT2;
	struct bdt_call *values;
	__u64 file;

	if (!thread)
		return 0;
	values = &thread->values;
	tells = session_at(thread->slot)->mode == BDT_MODE_EVENTS;
	if (op == BDT_OP_OPEN)
		values->arg = thread->argument[1];
	else if (op == BDT_OP_CREAT)
		values->arg = 01101;
	else if (op == BDT_OP_OPENAT)
		values->arg = thread->argument[2];
	else
		read_result(thread, &values->arg, thread->argument[2], values->result);
	if (values->result >= 0 && !thread->is_denied) {
		values->fd = values->result;
		file = file_of(values->fd);
		forget(&thread->from);
		if (file)
			note_file(thread, &thread->from, file, tells ? ALWAYS : IF_ANOTHER);
	} else if (tells && !thread->has_base) {
		note_base(thread, &thread->from, thread->path.first, at ? (__s32)thread->argument[0] : AT_FDCWD);
	}
	thread->from.flags &= ~BDT_CALL_HAS_OFFSET;
	if (thread->in_root)
		thread->from.flags |= BDT_CALL_IN_ROOT;
	emit_call(thread, &thread->from);
	return 0;
}

/* Calls that no family has. */
int __noinline emit_other(struct thread *thread, __u32 op)
{
	struct bdt_call *values;
	__u64 *argument;

	if (!thread)
		return 0;
	values = &thread->values;
	argument = thread->argument;
	switch (op) {
	case BDT_OP_EXECVE:
	case BDT_OP_EXECVEAT:
		break;
	case BDT_OP_LSEEK:
		values->offset = argument[1];
		values->arg = argument[2];
		values->fd = argument[0];
		if (thread->form == ABI32_LONG_SEEK && !values->result)
			read_result(thread, &values->result, argument[3], 0);
		break;
	case BDT_OP_MMAP:
		values->requested = argument[1];
		values->arg = (argument[2] & 0xffffffff) | argument[3] << 32;
		values->fd = argument[4];
		values->offset = argument[5];
		break;
	default:
		values->fd = argument[0];
		values->arg = argument[1];
	}
	if (op != BDT_OP_LSEEK && op != BDT_OP_MMAP)
		thread->from.flags &= ~BDT_CALL_HAS_OFFSET;
	emit_call(thread, &thread->from);
	return 0;
}

/* The call that the thread's storage has is over. */
int __noinline leave(struct thread *thread, __s64 result)
{
	__u32 op;

	if (!thread)
		return 0;
	op = thread->op;
	thread->op = 0;
	clear_values(thread, op);
	thread->values.duration_ns = bpf_ktime_get_ns() - thread->time_ns;
	thread->values.result = result;
	/* A page that the kernel touched for the target, and that was not to be had. */
	if (result == -EFAULT && thread->faulted_at > thread->time_ns) {
		struct session *session = session_at(thread->slot);

		thread->faulted_at = 0;
		if (session->wants[BDT_OP_FAULT_FAILED]) {
			emit_fault(thread, BDT_OP_FAULT_FAILED, bpf_ktime_get_ns(), result);
			clear_values(thread, op);
			thread->values.duration_ns = bpf_ktime_get_ns() - thread->time_ns;
			thread->values.result = result;
		}
	}
	if (op == BDT_OP_FORK) {
		/* What succeeded is recorded by on_fork. */
		if (result < 0)
			emit_call(thread, &thread->from);
		return 0;
	}
	if (op == BDT_OP_MUNMAP || op == BDT_OP_MSYNC)
		return emit_pieces(thread);
	if (moves(op))
		return emit_move(thread);
	if (reads(op) || writes(op))
		return emit_transfer(thread, op);
	if (shapes[op & (OPS - 1)].has_text && session_at(thread->slot)->mode == BDT_MODE_EVENTS)
		check_texts(thread, op);
	if (opens(op))
		return emit_open(thread, op);
	if (op >= BDT_OP_STAT)
		return emit_shaped(thread);
	return emit_other(thread, op);
}

/* A system call returns. */
static __always_inline int returned(__u64 registers, __s64 result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread;
	int slot = slot_of(task, &thread);
	__u64 number;

	if (slot < 0)
		return 0;
	number = number_called(registers);
	if (thread && thread->op && thread->number != (__u32)number && thread->number != ANY_NUMBER) {
		/* It is the return of another call: that of the one which is known was not seen, nor was this one's beginning. */
		thread->op = 0;
		count_lost(slot, BDT_CAUSE_PROBE_MISSED);
	}
	if (!thread || !thread->op) {
		if (!enter_late(slot, registers, number, result))
			return 0;
		thread = bpf_task_storage_get(&threads, task, NULL, 0);
		/* Where the filter has sent a signal instead of an answer, the registers are as they were. */
		if (result == (__s64)number)
			result = -ENOSYS;
	}
	if (!thread || !thread->op)
		return 0;
	/* These two are not left to ``leave``, since a chain of calls may not be longer than eight. */
	if (thread->op == BDT_OP_RECEIVE_FD) {
		thread->op = 0;
		emit_received(thread, result);
	} else if (thread->op == BDT_OP_IO_SUBMIT) {
		thread->op = 0;
		emit_iocbs(thread, result);
	} else {
		leave(thread, result);
	}
	return 0;
}
