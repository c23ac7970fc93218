// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* A system call begins: what is kept of it until it returns. */
#pragma once

#include "abi.bpf.h"
#include "batches.bpf.h"
#include "mappings.bpf.h"

/* Arguments of ioctl that say it is one of those that are traced, and which. */
static __always_inline __u16 op_of_ioctl(__u32 command)
{
	if (command == FICLONE || command == FICLONERANGE || command == FIDEDUPERANGE)
		return BDT_OP_IOCTL_CLONE;
	if (command == FS_IOC_SETFLAGS || command == FS_IOC32_SETFLAGS || command == FS_IOC_FSSETXATTR)
		return BDT_OP_IOCTL_SETFLAGS;
	return 0;
}

#define UNREADABLE 256

/* The first character of a text in user memory: 0 for an empty one, and where none is given. */
static __always_inline __u32 first_of(__u64 text)
{
	__u8 first = 0;

	if (text && bpf_probe_read_user(&first, 1, (void *)text))
		return UNREADABLE;
	return first;
}

/* Take down the texts of a call, and the directories from which its paths count. Only in mode EVENTS. */
int __noinline take_texts(struct thread *thread, __u32 op)
{
	const volatile struct bdt_shape *shape = &shapes[op & (OPS - 1)];
	__u64 path, second;
	__u32 first;

	if (!thread)
		return 0;
	thread->path.address = 0;
	thread->second.address = 0;
	if (shape->path) {
		path = thread->argument[(shape->path - 1) & 7];
		if (op == BDT_OP_BIND)
			path += sizeof(__u16);
		take_text(thread, &thread->path, path, 0);
		/* A file that was opened has its path from the kernel; only where opening failed are bases of use. */
		if (session_at(thread->slot)->has_begun && (!opens(op) || thread->in_root))
			take_bases(thread, op);
		if (op == BDT_OP_CHROOT && thread->path.is_unread)
			note_base(thread, &thread->to, '/', AT_FDCWD);
	}
	if (shape->second) {
		second = thread->argument[(shape->second - 1) & 7];
		first = first_of(second);
		if (shape->second_base)
			note_base(thread, &thread->to, first == UNREADABLE ? '.' : first,
				  shape->second_base == WORKING_DIRECTORY ?
					  AT_FDCWD :
					  (__s32)thread->argument[(shape->second_base - 1) & 7]);
		take_text(thread, &thread->second, second, IS_SECOND);
	}
	return 0;
}

/* Take down the file, or the files, that a call is about by its descriptors. */
int __noinline take_files(struct thread *thread, __u32 op)
{
	const volatile struct bdt_shape *shape = &shapes[op & (OPS - 1)];
	__u64 file = 0;

	if (!thread)
		return 0;
	if (shape->fd)
		file = file_of(thread->argument[(shape->fd - 1) & 7]);
	else if (op == BDT_OP_MMAP)
		file = file_of(thread->argument[4]);
	else if (op == BDT_OP_SENDFILE)
		file = file_of(thread->argument[1]);
	else if (takes_descriptor(op) || moves(op))
		file = file_of(thread->argument[0]);
	if (file)
		note_file(thread, &thread->from, file, IF_NEW);
	if (file && writes(op))
		thread->size_before = size_of(file);
	/* Past the page cache, so always from the device. */
	if (file && reads(op) && FIELD(file, file, f_flags) & O_DIRECT)
		thread->waited = 1;
	if (moves(op)) {
		file = file_of(op == BDT_OP_SENDFILE ? thread->argument[0] : thread->argument[2]);
		if (file)
			note_file(thread, &thread->to, file, IF_NEW);
	}
	return 0;
}

/* What tells apart the calls that share a number; 0 for what is not traced. */
static __always_inline __u16 refine(struct thread *thread, __u16 op)
{
	__u16 family = 0;

	switch (op) {
	case BDT_OP_FCNTL_DUPFD:
		return thread->argument[1] == F_DUPFD || thread->argument[1] == F_DUPFD_CLOEXEC ? op : 0;
	case BDT_OP_MMAP:
		return thread->argument[3] & MAP_ANONYMOUS ? 0 : op;
	case BDT_OP_IOCTL_CLONE:
		op = op_of_ioctl(thread->argument[1]);
		/* The flags themselves are in memory. */
		if (op == BDT_OP_IOCTL_SETFLAGS) {
			__u64 at = thread->argument[2];

			thread->argument[2] = 0;
			bpf_probe_read_user(&thread->argument[2], 4, (void *)at);
		}
		return op;
	case BDT_OP_BIND:
		/* The address of a unix socket that has a path: neither empty nor abstract. */
		if (thread->argument[2] <= sizeof(family) ||
		    bpf_probe_read_user(&family, sizeof(family), (void *)thread->argument[1]) || family != AF_UNIX ||
		    first_of(thread->argument[1] + sizeof(family)) == 0)
			return 0;
		return op;
	}
	return op;
}

/* Keep what a call needs from before it. */
int __noinline enter(struct thread *thread, __u64 registers, __u64 number, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 op;

	if (!thread)
		return 0;
	op = op_called(task, number);
	take_arguments(thread, registers, abi_of(task, number), number);
	op = refine(thread, op);
	if (!session_at(thread->slot)->wants[op & (OPS - 1)] && !changes_tree(op))
		op = 0;
	thread->op = op;
	thread->number = number;
	if (!op)
		return 0;
	thread->time_ns = thread->noted_ns = now;
	thread->entry_tid = task->pid;
	thread->switches = task->nvcsw + task->nivcsw;
	thread->waited = 0;
	thread->is_denied = 0;
	thread->has_base = 0;
	thread->late = 0;
	thread->changed = 0;
	thread->in_root = 0;
	thread->faulted_at = 0;
	thread->text_limit = MAX_PATH;
	forget(&thread->from);
	forget(&thread->to);
	if (op == BDT_OP_MUNMAP || op == BDT_OP_MSYNC) {
		take_pieces(thread, thread->argument[0], thread->argument[1]);
		/* Of memory without a file. */
		if (!thread->piece_count)
			thread->op = 0;
		return 0;
	}
	if (op == BDT_OP_OPENAT2) {
		__u64 resolve = 0;

		bpf_probe_read_user(&resolve, sizeof(resolve), (void *)(thread->argument[2] + 16));
		thread->in_root = !!(resolve & RESOLVE_IN_ROOT);
	}
	if (op == BDT_OP_BIND && thread->argument[2] < MAX_PATH)
		thread->text_limit = thread->argument[2] - 1;
	take_files(thread, op);
	if (session_at(thread->slot)->mode == BDT_MODE_EVENTS && shapes[op & (OPS - 1)].has_text)
		take_texts(thread, op);
	return 0;
}

/* Whether calls of a number may be what the session asked for; ``refine`` says it of a single call. */
static __always_inline bool may_be_wanted(struct session *session, __u16 op)
{
	return session->wants[op & (OPS - 1)] || changes_tree(op) || op == BDT_OP_IOCTL_CLONE;
}

/* A system call begins. */
static __always_inline int entered(__u64 registers, __u64 number)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct session *session;
	struct thread *thread;
	int slot = slot_of(task, &thread);
	__u64 now;
	__u16 op;

	if (slot < 0)
		return 0;
	session = session_at(slot);
	if (thread && thread->op) {
		/* The call before this one has returned, and nobody saw it. */
		thread->op = 0;
		count_lost(slot, BDT_CAUSE_PROBE_MISSED);
	}
	if (session->has_begun && abi_of(task, number) == ABI_FOREIGN) {
		count_lost(slot, BDT_CAUSE_FOREIGN_ABI);
		return 0;
	}
	op = op_called(task, number);
	/* The gate itself is not the target's doing, up to the exec with which it becomes the target. */
	if (!op || (!session->has_begun && op != BDT_OP_EXECVE && op != BDT_OP_EXECVEAT))
		return 0;
	if (!may_be_wanted(session, op))
		return 0;
	now = bpf_ktime_get_ns();
	thread = known_thread(task, slot, thread, now);
	if (thread)
		enter(thread, registers, number, now);
	return 0;
}
