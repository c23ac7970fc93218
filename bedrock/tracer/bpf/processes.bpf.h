// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The tree of processes: exec, fork and exit. */
#pragma once

#include "records.bpf.h"

/*
 * The name that was given to exec. execveat puts its descriptor in front of a path that counts from it: "/dev/fd/N/path",
 * and "/dev/fd/N" for an empty one.
 */
static __always_inline __u64 given_name(struct linux_binprm *binprm, __u32 fd)
{
	__u64 name = (__u64)BPF_CORE_READ(binprm, filename);
	char next = 0;

	if (!BPF_CORE_READ(binprm, fdpath))
		return name;
	/* With the NUL this is as long as with the first digit. */
	name += sizeof("/dev/fd/");
	for (int i = 0; i < 9 && fd >= 10; i++) {
		fd /= 10;
		name++;
	}
	bpf_probe_read_kernel(&next, sizeof(next), (void *)name);
	return next == '/' ? name + 1 : name;
}

/* A program has been replaced: the new one's name and arguments are in kernel memory and on its fresh stack. */
static __always_inline int executed(struct linux_binprm *binprm, bool is_copy)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct session *session;
	struct thread *thread;
	struct fs_struct *fs;
	int slot = slot_of(task, &thread);

	if (slot < 0)
		return 0;
	thread = known_thread(task, slot, thread, bpf_ktime_get_ns());
	if (!thread || (is_copy && thread->number == ANY_NUMBER))
		return 0;
	session = session_at(slot);
	if (!session->has_begun) {
		fs = BPF_CORE_READ(task, fs);
		session->root_dentry = (__u64)BPF_CORE_READ(fs, root.dentry);
		session->root_mnt = (__u64)BPF_CORE_READ(fs, root.mnt);
		session->has_begun = 1;
	}
	/* The program itself: for a script, its interpreter. */
	forget(&thread->from);
	note_file(thread, &thread->from, (__u64)BPF_CORE_READ(binprm, file), ALWAYS);
	/*
	 * The old memory is gone, so an argument that was not read when the call began is taken from the kernel. It was
	 * also written under another thread's number where not the first thread of the process calls.
	 */
	if (thread->path.is_unread || thread->entry_tid != task->pid) {
		thread->entry_tid = task->pid;
		emit_string(thread, given_name(binprm, thread->argument[0]), FROM_KERNEL);
	}
	thread->path.address = 0;
	/* A program of 32 bits returns from its own interface's execve, which has another number. */
	thread->number = ANY_NUMBER;
	emit_argv(task);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	return executed((struct linux_binprm *)ctx->args[2], false);
}

SEC("raw_tp/sched_process_exec")
int on_exec_copy(struct bpf_raw_tracepoint_args *ctx)
{
	return executed((struct linux_binprm *)ctx->args[2], true);
}

/* Processes that the kernel makes for its own use, such as those that serve an io_uring: nobody forked them. */
#define PF_IO_WORKER 0x10
#define PF_USER_WORKER 0x4000

/* Where the kernel has no number for a task in a namespace, as in that of a session it is not in, it has 0. */
static __always_inline int forked(struct task_struct *child)
{
	__u64 made_ns = BPF_CORE_READ(child, start_time);
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 now = bpf_ktime_get_ns();
	struct thread *thread;
	__u32 level;
	int slot = slot_of(task, &thread);

	if (slot < 0 || !session_at(slot)->has_begun)
		return 0;
	thread = known_thread(task, slot, thread, now);
	/* The copy of this probe has nothing to do where this one has seen the child. */
	if (!thread || thread->forked_ns == made_ns)
		return 0;
	thread->forked_ns = made_ns;
	level = session_at(slot)->level;
	/*
	 * The child is introduced once more at its own first event, when this process may have ended and another one have
	 * taken it over.
	 */
	introduce(thread, child, task->tgid, BPF_CORE_READ(child, group_leader, start_time), now);
	emit_event(thread, NULL, BDT_OP_FORK, now, number_in(BPF_CORE_READ(child, thread_pid), level),
		   number_in(BPF_CORE_READ(child, group_leader, thread_pid), level), 0);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	return forked((struct task_struct *)ctx->args[1]);
}

SEC("raw_tp/sched_process_fork")
int on_fork_copy(struct bpf_raw_tracepoint_args *ctx)
{
	return forked((struct task_struct *)ctx->args[1]);
}

static __always_inline bool is_kernels_own(struct task_struct *task, struct thread *thread)
{
	char name[4] = {};

	if (task->flags & (PF_IO_WORKER | PF_USER_WORKER))
		return true;
	/* Before 6.4 such a task has lost its flag by its end; it has made no call, and has a name of the kernel's. */
	bpf_probe_read_kernel(name, sizeof(name), &task->comm);
	return !thread && name[0] == 'i' && name[1] == 'o' && name[2] == 'u' && name[3] == '-';
}

/* Two threads that end at once may both find that nobody is left, which does no harm. */
static __always_inline bool is_alone(struct task_struct *task)
{
	return !BPF_CORE_READ(task, signal, live.counter);
}

static __always_inline int exited(struct task_struct *task, bool is_last)
{
	__u64 now = bpf_ktime_get_ns();
	struct thread *thread;
	int slot = slot_of(task, &thread);

	if (slot < 0 || !session_at(slot)->has_begun || is_kernels_own(task, thread))
		return 0;
	/* One that never made a call that is traced is introduced here. */
	thread = known_thread(task, slot, thread, now);
	if (!thread)
		return 0;
	if (is_preemptible && thread->op)
		count_lost(slot, BDT_CAUSE_PROBE_MISSED);
	if (is_last && task->exit_code & CORE_DUMPED)
		emit_event(thread, NULL, BDT_OP_CORE_DUMP, now, 0, 0, 0);
	emit_event(thread, NULL, BDT_OP_EXIT, now, task->exit_code, 0, is_last ? BDT_CALL_GROUP_DEAD : 0);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_task_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return exited(task, exit_says_last ? ctx->args[1] & 1 : is_alone(task));
}

SEC("tp/sched/sched_process_exit")
int on_task_exit_event(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return exited(task, is_alone(task));
}
