// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Page faults on mapped files, and what had to be read from the device. */
#pragma once

#include "mappings.bpf.h"
#include "records.bpf.h"

/* A fault, or that it had to wait. */
static __always_inline void emit_fault(struct task_struct *task, struct call *call, __u16 op, __u64 time_ns)
{
	struct bdt_call *record;

	if (call->fault.flags & UNWANTED) {
		count_filtered();
		return;
	}
	if (tally(task->tgid, &call->fault, time_ns, 0, 0, op))
		return;
	record = reserve(sizeof(*record));
	if (!record)
		return;
	__builtin_memset(record, 0, sizeof(*record));
	record->size = sizeof(*record);
	record->type = BDT_REC_CALL;
	record->tid = task->pid;
	record->time_ns = time_ns;
	record->inode = call->fault.inode;
	record->offset = call->fault_offset;
	record->requested = 1 << page_shift;
	record->arg = call->fault.position;
	record->device = call->fault.device;
	record->fd = -1;
	record->tgid = task->tgid;
	record->op = op;
	record->flags = call->fault.flags & ~UNWANTED;
	bpf_ringbuf_submit(record, wakeup());
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

static __always_inline void remember(struct call *call, struct mapping *mapping, __u64 mm, __u32 changes)
{
	call->area = *mapping;
	call->area_mm = mm;
	call->area_changes = changes;
}

/* Most faults are in the mapping in which the one before was, and most of those are of memory without a file. */
static __always_inline bool is_in_area(struct call *call, __u64 address, __u64 mm, __u32 changes)
{
	return !(changes & CHANGING) && call->area_changes == changes && call->area_mm == mm &&
	       call->area.start <= address && address < call->area.end;
}

/* Attached to page_fault_kernel too: the kernel touches the target's memory on its behalf. */
SEC("raw_tp/page_fault_user")
int on_page_fault(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 address = ctx->args[0], now;
	struct mapping mapping = {};
	struct mm_struct *mm;
	struct call *call;
	bool is_known;
	__u32 changes;
	int found = MAPPED;

	/* With faults disabled nobody waits for the page: the kernel, or we, only try whether it is there. */
	if (!has_begun || !wants[BDT_OP_FAULT] || !is_target(task) || task->pagefault_disabled)
		return 0;
	mm = BPF_CORE_READ(task, mm);
	/* Before we look: what changes meanwhile makes it another number. */
	changes = mapping_changes(mm);
	call = bpf_task_storage_get(&calls, task, NULL, 0);
	is_known = call && is_in_area(call, address, (__u64)mm, changes);
	if (is_known)
		mapping = call->area;
	else
		found = find_mapping(&mapping, address);
	if (found == MAPPED && !mapping.file && call)
		remember(call, &mapping, (__u64)mm, changes);
	if (found == NOT_MAPPED || (found == MAPPED && !mapping.file))
		return 0;
	now = bpf_ktime_get_ns();
	call = call_of(task, now);
	if (!call)
		return 0;
	if (found == MAPPING_CHANGES) {
		count_seen();
		count_cause(BDT_CAUSE_MAPPING_BUSY);
		return 0;
	}
	if (!is_known) {
		note_mapped(&call->fault, mapping.file, now);
		remember(call, &mapping, (__u64)mm, changes);
	}
	call->faulted_at = now;
	call->fault.position = address;
	call->fault.flags &= ~BDT_CALL_FOR_WRITE;
	if (ctx->args[2] & FAULT_WRITE)
		call->fault.flags |= BDT_CALL_FOR_WRITE;
	call->fault_offset = (mapping.page_offset << page_shift) + ((address - mapping.start) >> page_shift << page_shift);
	emit_fault(task, call, BDT_OP_FAULT, now);
	return 0;
}

/* Whether a page belongs to a file: other calls than those that are traced bring in pages, too. */
static __always_inline bool is_of_file(__u64 folio, __u64 file)
{
	return file && BPF_CORE_READ((struct folio *)folio, mapping, host) == BPF_CORE_READ((struct file *)file, f_inode);
}

/* Pages are being read into the page cache on behalf of this task. */
SEC("raw_tp/mm_filemap_add_to_page_cache")
int on_page_in(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call *call;

	if (!has_begun || !is_target_task())
		return 0;
	call = bpf_task_storage_get(&calls, task, NULL, 0);
	if (!call)
		return 0;
	if (call->op) {
		call->waited = 1;
	} else if (call->faulted_at && wants[BDT_OP_PAGE_IN] && is_of_file(ctx->args[0], call->fault.file)) {
		call->faulted_at = 0;
		emit_fault(task, call, BDT_OP_PAGE_IN, bpf_ktime_get_ns());
	}
	return 0;
}
