// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Which tasks are the target's. */
#pragma once

#include "state.bpf.h"

static __always_inline __u64 word_at(__u64 address)
{
	__u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)address);
	return word;
}

/* Whether the current task is the target's, for events that are seldom: see is_target. */
int __noinline is_target_task(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pid_namespace *ns = BPF_CORE_READ(task, nsproxy, pid_ns_for_children);

	if (!target_inum)
		return 0;
	/* From one that is inside the target's up to that. */
	for (int i = 0; i < MAX_NAMESPACES; i++) {
		if (!ns || BPF_CORE_READ(ns, level) <= target_level)
			break;
		ns = BPF_CORE_READ(ns, parent);
	}
	return ns && BPF_CORE_READ(ns, level) == target_level && BPF_CORE_READ(ns, ns.inum) == target_inum;
}

/*
 * The same for events that come with every call: pointers are followed directly here, which is quick. But each of them
 * costs the verifier a search through all of the kernel's types, in each program.
 */
static __always_inline bool is_target(struct task_struct *task)
{
	struct pid_namespace *ns;
	struct nsproxy *proxy;

	if (!target_inum)
		return false;
	proxy = task->nsproxy;
	if (!proxy)
		return false;
	ns = proxy->pid_ns_for_children;
	if (!ns || ns->level < target_level)
		return false;
	if (ns->level == target_level)
		return ns->ns.inum == target_inum;
	return is_target_task();
}

static __always_inline __u32 number_in(__u64 pid_address)
{
	struct pid *pid = (struct pid *)pid_address;
	struct upid number = {};
	__u32 level = target_level & 31;

	bpf_probe_read_kernel(&number.nr, sizeof(number.nr),
			      (void *)(pid_address + bpf_core_field_offset(pid->numbers) +
				       level * bpf_core_type_size(struct upid) + bpf_core_field_offset(number.nr)));
	return number.nr;
}

/* A thread that has not been seen: how the host's numbers and the container's belong together. */
int __noinline introduce(__u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bdt_process *record;

	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	record->size = sizeof(*record);
	record->type = BDT_REC_PROCESS;
	record->tid = task->pid;
	record->time_ns = now;
	record->tgid = task->tgid;
	record->parent = BPF_CORE_READ(task, real_parent, tgid);
	record->container_tid = number_in((__u64)BPF_CORE_READ(task, thread_pid));
	record->container_pid = number_in((__u64)BPF_CORE_READ(task, group_leader, thread_pid));
	bpf_probe_read_kernel(&record->comm_low, 16, &task->comm);
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

/*
 * Whether a task lives in the target's PID namespace, or below. One that has only entered it (setns) has its children
 * there, which is all that is_target can tell; which namespace a task has its number in never changes.
 */
static __always_inline bool is_member(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);

	return pid && BPF_CORE_READ(pid, level) >= target_level;
}

static __always_inline struct call *call_of(struct task_struct *task, __u64 now)
{
	struct call *call = bpf_task_storage_get(&calls, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!call) {
		count_seen();
		count_cause(BDT_CAUSE_MAP_FULL);
		return NULL;
	}
	if (!call->introduced) {
		call->introduced = is_member(task) ? MEMBER : OUTSIDER;
		if (call->introduced == MEMBER)
			introduce(now);
	}
	return call->introduced == MEMBER ? call : NULL;
}

/* The file behind a descriptor of the current task; 0 where there is none. */
__u64 __noinline file_of(__s32 fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct files_struct *files = task->files;
	struct fdtable *table;
	__u64 file = 0;

	if (fd < 0 || !files)
		return 0;
	table = files->fdt;
	if (!table || (__u32)fd >= table->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), (void *)((__u64)table->fd + (__u64)fd * sizeof(file)));
	return file;
}
