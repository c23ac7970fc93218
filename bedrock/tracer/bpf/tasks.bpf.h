// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Which session a task belongs to, and what is kept of it. */
#pragma once

#include "state.bpf.h"

static __always_inline __u64 word_at(__u64 address)
{
	__u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)address);
	return word;
}

/* The n-th entry of the numbers that a task has, one for each PID namespace from the host's on. */
static __always_inline __u64 number_at(struct pid *pid, __u32 level)
{
	return (__u64)pid + bpf_core_field_offset(pid->numbers) + (level & 31) * bpf_core_type_size(struct upid);
}

/* The number of a task in the PID namespace of a level. */
static __always_inline __u32 number_in(struct pid *pid, __u32 level)
{
	struct upid *entry = (struct upid *)number_at(pid, level);
	__u32 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), (void *)((__u64)entry + bpf_core_field_offset(entry->nr)));
	return number;
}

/*
 * Whether a task may belong to a session: a quick no for nearly all the others of the host. Pointers are followed
 * directly here, which is quick; but each of them costs the verifier a search through the kernel's types.
 */
static __always_inline bool may_be_target(struct task_struct *task)
{
	struct pid_namespace *ns;
	struct nsproxy *proxy = task->nsproxy;

	if (!proxy)
		return false;
	ns = proxy->pid_ns_for_children;
	if (!ns || ns->level < lowest_level)
		return false;
	return ns->level > lowest_level || namespaces[NAMESPACE_BIT(ns->ns.inum)];
}

/*
 * Which entry of ``sessions`` the current task belongs to, -1 for none: by the PID namespaces in which it has a number,
 * from its own outwards. A task that only entered a session's namespace (setns) has its children there, not itself.
 */
int __noinline find_slot(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level, inum, *slot;
	struct pid_namespace *ns;
	struct upid *entry;

	if (!pid)
		return -1;
	level = BPF_CORE_READ(pid, level);
	for (int i = 0; i < MAX_NAMESPACES; i++) {
		if (level < lowest_level)
			break;
		entry = (struct upid *)number_at(pid, level);
		ns = (struct pid_namespace *)word_at((__u64)entry + bpf_core_field_offset(entry->ns));
		inum = BPF_CORE_READ(ns, ns.inum);
		if (namespaces[NAMESPACE_BIT(inum)]) {
			slot = bpf_map_lookup_elem(&slots, &inum);
			if (slot)
				return SLOT(*slot);
		}
		if (!level)
			break;
		level--;
	}
	return -1;
}

/*
 * The slot of the current task's session, -1 for a task of no session. ``thread`` becomes what is kept of the task, NULL
 * when it was not seen before.
 */
static __always_inline int slot_of(struct task_struct *task, struct thread **thread)
{
	int slot;

	*thread = NULL;
	if (!may_be_target(task))
		return -1;
	*thread = bpf_task_storage_get(&threads, task, NULL, 0);
	if (*thread && (*thread)->session && (*thread)->session == session_at((*thread)->slot)->number)
		return SLOT((*thread)->slot);
	slot = find_slot();
	/* What there is belongs to a session that has ended. */
	*thread = NULL;
	return slot >= 0 && session_at(slot)->number ? slot : -1;
}

/* How the host's and the container's numbers of a thread belong together, and which process made it. */
static __always_inline void introduce(struct thread *thread, struct task_struct *task, __u32 parent, __u64 started_ns,
				      __u64 now)
{
	struct bdt_process *record;
	__u32 level;
	void *ring;

	level = session_at(thread->slot)->level;
	ring = ring_for_record(thread->slot);
	if (!ring)
		return;
	record = bpf_ringbuf_reserve(ring, sizeof(*record), 0);
	if (!record) {
		count_cause(thread->slot, BDT_CAUSE_RING_FULL);
		return;
	}
	record->size = sizeof(*record);
	record->type = BDT_REC_PROCESS;
	record->tid = BPF_CORE_READ(task, pid);
	record->time_ns = now;
	record->tgid = BPF_CORE_READ(task, tgid);
	record->parent = parent;
	record->container_tid = number_in(BPF_CORE_READ(task, thread_pid), level);
	record->container_pid = number_in(BPF_CORE_READ(task, group_leader, thread_pid), level);
	bpf_probe_read_kernel(&record->comm_low, 16, &task->comm);
	record->started_ns = started_ns;
	bpf_ringbuf_submit(record, wakeup(ring, thread->slot, thread));
}

/* Make what is kept of the current thread, and introduce it. A function of its own: it runs once a thread. */
int __noinline begin_thread(__u32 slot, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct session *session = session_at(slot);
	struct thread *thread = bpf_task_storage_get(&threads, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!thread) {
		count_lost(slot, BDT_CAUSE_MAP_FULL);
		return 0;
	}
	thread->op = 0;
	thread->faulted_at = 0;
	thread->area_mm = 0;
	thread->slot = SLOT(slot);
	thread->session = session->number;
	thread->started_ns = BPF_CORE_READ(task, group_leader, start_time);
	introduce(thread, task, BPF_CORE_READ(task, real_parent, tgid), thread->started_ns, now);
	return 0;
}

/* What is kept of the current thread of a session, which is introduced when it was not seen before. */
static __always_inline struct thread *known_thread(struct task_struct *task, __u32 slot, struct thread *thread,
						   __u64 now)
{
	if (thread)
		return thread;
	begin_thread(slot, now);
	return bpf_task_storage_get(&threads, task, NULL, 0);
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
