// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Page faults on mapped files, how they failed, and what had to be read from the device. */
#pragma once

#include "mappings.bpf.h"
#include "records.bpf.h"

/* Write what happened to the page of the thread's last fault. */
int __noinline emit_fault(struct thread *thread, __u32 op, __u64 time_ns, __s64 result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bdt_call *values;

	if (!thread)
		return 0;
	if (thread->fault.flags & UNWANTED) {
		count_filtered(thread->slot);
		return 0;
	}
	clear_values(thread, op);
	values = &thread->values;
	values->tid = task->pid;
	values->tgid = task->tgid;
	values->time_ns = time_ns;
	values->result = result;
	if (tally(thread, &thread->fault, result))
		return 0;
	values->inode = thread->fault.inode;
	values->offset = thread->fault_offset;
	values->requested = 1 << page_shift;
	values->arg = thread->fault.position;
	values->device = thread->fault.device;
	values->link = thread->fault.link;
	values->flags = thread->fault.flags & ~INTERNAL_FLAGS;
	write_values(thread);
	return 0;
}

#define CHANGING 1

/*
 * How often a process has changed its mappings: the kernel counts that (from 6.13 on) for its own lockless look-ups. It
 * is odd while one is being changed, and here also where it is not known.
 */
static __always_inline __u32 mapping_changes(struct mm_struct *mm)
{
	if (!bpf_core_field_exists(mm->mm_lock_seq.sequence))
		return CHANGING;
	return BPF_CORE_READ(mm, mm_lock_seq.sequence);
}

static __always_inline void remember(struct thread *thread, struct mapping *mapping, __u64 mm, __u32 changes)
{
	thread->area = *mapping;
	thread->area_mm = mm;
	thread->area_changes = changes;
}

/* Most faults are in the mapping in which the one before was, and most of those are of memory without a file. */
static __always_inline bool is_in_area(struct thread *thread, __u64 address, __u64 mm, __u32 changes)
{
	return !(changes & CHANGING) && thread->area_changes == changes && thread->area_mm == mm &&
	       thread->area.start <= address && address < thread->area.end;
}

static __always_inline int faulted(__u64 address, __u64 error_code)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 now;
	struct mapping mapping = {};
	struct thread *thread;
	struct mm_struct *mm;
	bool is_known;
	__u32 changes;
	int slot, found = MAPPED;

	/* With faults disabled nobody waits for the page: the kernel, or we, only try whether it is there. */
	slot = slot_of(task, &thread);
	if (slot < 0 || task->pagefault_disabled || !session_at(slot)->has_begun ||
	    !session_at(slot)->wants[BDT_OP_FAULT])
		return 0;
	mm = BPF_CORE_READ(task, mm);
	/* Before we look: what changes meanwhile makes it another number. */
	changes = mapping_changes(mm);
	is_known = thread && is_in_area(thread, address, (__u64)mm, changes);
	if (is_known)
		mapping = thread->area;
	else
		found = find_mapping(&mapping, address);
	if (found == MAPPED && !mapping.file && thread)
		remember(thread, &mapping, (__u64)mm, changes);
	if (found == NOT_MAPPED || (found == MAPPED && !mapping.file))
		return 0;
	now = bpf_ktime_get_ns();
	thread = known_thread(task, slot, thread, now);
	if (!thread)
		return 0;
	if (found == MAPPING_CHANGES) {
		count_lost(slot, BDT_CAUSE_MAPPING_BUSY);
		return 0;
	}
	/* The kernel tries a page that it can't have once more, which is no other fault. */
	if (thread->op && thread->faulted_at > thread->time_ns && thread->fault.position == address &&
	    !(thread->fault.flags & BDT_CALL_FOR_WRITE) == !(error_code & FAULT_WRITE)) {
		thread->faulted_at = now;
		return 0;
	}
	if (!is_known) {
		forget(&thread->fault);
		thread->noted_ns = now;
		note_mapped(thread, &thread->fault, mapping.file);
		remember(thread, &mapping, (__u64)mm, changes);
	}
	thread->faulted_at = now;
	thread->fault.position = address;
	thread->fault.flags &= ~(BDT_CALL_FOR_WRITE | BDT_CALL_PRIVATE);
	if (error_code & FAULT_WRITE)
		thread->fault.flags |= BDT_CALL_FOR_WRITE;
	if (!(mapping.flags & VM_SHARED))
		thread->fault.flags |= BDT_CALL_PRIVATE;
	thread->fault_offset = (mapping.page_offset << page_shift) + ((address - mapping.start) >> page_shift << page_shift);
	emit_fault(thread, BDT_OP_FAULT, now, 0);
	return 0;
}

/* Attached to page_fault_kernel too: the kernel touches the target's memory on its behalf. */
SEC("raw_tp/page_fault_user")
int on_page_fault(struct bpf_raw_tracepoint_args *ctx)
{
	return faulted(ctx->args[0], ctx->args[2]);
}

struct page_fault_event {
	__u64 common;
	__u64 address;
	__u64 instruction;
	__u64 error_code;
};

SEC("tp/exceptions/page_fault_user")
int on_page_fault_event(struct page_fault_event *ctx)
{
	return faulted(ctx->address, ctx->error_code);
}

/* The address of a fault stands at this place of a siginfo, which is an interface to user space. */
#define SIGINFO_ADDRESS 16

/* A fault that can't be served ends in a signal to the thread itself. */
static __always_inline int signalled(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread;
	int slot;

	if ((ctx->args[0] != SIGSEGV && ctx->args[0] != SIGBUS) || ctx->args[2] != (__u64)task)
		return 0;
	slot = slot_of(task, &thread);
	if (slot < 0 || !thread || !thread->faulted_at || !session_at(slot)->wants[BDT_OP_FAULT_FAILED])
		return 0;
	if (word_at(ctx->args[1] + SIGINFO_ADDRESS) != thread->fault.position)
		return 0;
	thread->faulted_at = 0;
	emit_fault(thread, BDT_OP_FAULT_FAILED, bpf_ktime_get_ns(), -EFAULT);
	return 0;
}

SEC("raw_tp/signal_generate")
int on_signal(struct bpf_raw_tracepoint_args *ctx)
{
	return signalled(ctx);
}

/* What the first one has seen is no fault any more. */
SEC("raw_tp/signal_generate")
int on_signal_copy(struct bpf_raw_tracepoint_args *ctx)
{
	return signalled(ctx);
}

/* A page is being read into the page cache on behalf of this task; ``inode`` is the number of its file's. */
static __always_inline int paged_in(__u64 inode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread;
	struct file *file;
	int slot = slot_of(task, &thread);

	if (slot < 0 || !thread)
		return 0;
	if (thread->op) {
		thread->waited = 1;
		return 0;
	}
	file = (struct file *)thread->fault.file;
	if (!thread->faulted_at || !file || !session_at(slot)->wants[BDT_OP_PAGE_IN])
		return 0;
	/* Other calls than those that are traced bring in pages, too. */
	if (inode != BPF_CORE_READ(file, f_inode, i_ino))
		return 0;
	thread->faulted_at = 0;
	emit_fault(thread, BDT_OP_PAGE_IN, bpf_ktime_get_ns(), 0);
	return 0;
}

SEC("raw_tp/mm_filemap_add_to_page_cache")
int on_page_in(struct bpf_raw_tracepoint_args *ctx)
{
	return paged_in(BPF_CORE_READ((struct folio *)ctx->args[0], mapping, host, i_ino));
}

struct page_in_event {
	__u64 common;
	__u64 frame;
	__u64 inode;
};

SEC("tp/filemap/mm_filemap_add_to_page_cache")
int on_page_in_event(struct page_in_event *ctx)
{
	return paged_in(ctx->inode);
}
