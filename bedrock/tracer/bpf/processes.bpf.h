// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The tree of processes: exec, fork and exit. */
#pragma once

#include "records.bpf.h"

/* A program has been replaced: the new one's name and arguments are in kernel memory and on its fresh stack. */
SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct linux_binprm *binprm = (struct linux_binprm *)ctx->args[2];
	struct fs_struct *fs;
	struct call *call;

	if (!is_target_task())
		return 0;
	call = call_of(task, bpf_ktime_get_ns());
	if (!call)
		return 0;
	if (!has_begun) {
		fs = BPF_CORE_READ(task, fs);
		root_dentry = (__u64)BPF_CORE_READ(fs, root.dentry);
		root_mnt = (__u64)BPF_CORE_READ(fs, root.mnt);
		has_begun = 1;
	}
	/* The program itself: of a script, its interpreter. */
	note_file(&call->from, (__u64)BPF_CORE_READ(binprm, file), call->time_ns, ALWAYS);
	emit_string(NULL, (__u64)BPF_CORE_READ(binprm, filename), FROM_KERNEL, call->time_ns, task->pid);
	emit_argv(task, call->time_ns, task->pid);
	return 0;
}

static __always_inline void emit_event(struct task_struct *task, __u16 op, __s64 result, __u64 argument, __u16 flags)
{
	struct bdt_call *record;

	record = reserve(sizeof(*record));
	if (!record)
		return;
	__builtin_memset(record, 0, sizeof(*record));
	record->size = sizeof(*record);
	record->type = BDT_REC_CALL;
	record->tid = task->pid;
	record->time_ns = bpf_ktime_get_ns();
	record->result = result;
	record->offset = -1;
	record->arg = argument;
	record->fd = -1;
	record->tgid = task->tgid;
	record->op = op;
	record->flags = flags;
	bpf_ringbuf_submit(record, wakeup());
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *child = (struct task_struct *)ctx->args[1];

	if (!has_begun || !is_target_task() || !call_of(task, bpf_ktime_get_ns()))
		return 0;
	emit_event(task, BDT_OP_FORK, BPF_CORE_READ(child, pid), BPF_CORE_READ(child, tgid), 0);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_task_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!has_begun || !is_target_task())
		return 0;
	/* One that never made a call that is traced is introduced here. */
	if (!call_of(task, bpf_ktime_get_ns()))
		return 0;
	emit_event(task, BDT_OP_EXIT, task->exit_code, 0, ctx->args[1] ? BDT_CALL_GROUP_DEAD : 0);
	return 0;
}
