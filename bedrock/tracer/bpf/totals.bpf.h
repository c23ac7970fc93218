// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Mode SUMMARY: calls are added up in the kernel instead of being written. */
#pragma once

#include "tasks.bpf.h"

static __always_inline bool reads(__u16 op)
{
	return (op >= BDT_OP_READ && op <= BDT_OP_PREADV2) || op == BDT_OP_URING_READ || op == BDT_OP_AIO_READ;
}

static __always_inline bool writes(__u16 op)
{
	return (op >= BDT_OP_WRITE && op <= BDT_OP_PWRITEV2) || op == BDT_OP_URING_WRITE || op == BDT_OP_AIO_WRITE;
}

static __always_inline bool moves(__u16 op)
{
	return op >= BDT_OP_SENDFILE && op <= BDT_OP_SPLICE;
}

static __always_inline bool opens(__u16 op)
{
	return op >= BDT_OP_OPEN && op <= BDT_OP_CREAT;
}

static __always_inline bool takes_descriptor(__u16 op)
{
	return op >= BDT_OP_CLOSE && op <= BDT_OP_FCNTL_DUPFD && op != BDT_OP_MMAP;
}

static __always_inline bool is_of_process(__u16 op)
{
	return (op >= BDT_OP_EXECVE && op <= BDT_OP_EXIT) || op == BDT_OP_CORE_DUMP;
}

/* A function of its own, so that the verifier does not follow its ways together with those of whoever calls it. */
__u32 __noinline bucket_of(__u64 duration_ns)
{
	__u32 bucket = 0;

	if (duration_ns >> 32)
		return BDT_BUCKETS - 1;
#pragma unroll
	for (int shift = 16; shift; shift /= 2)
		if (duration_ns >> shift) {
			duration_ns >>= shift;
			bucket += shift;
		}
	return bucket;
}

static __always_inline __u32 bucket_at(__u64 duration_ns)
{
	__u32 bucket = bucket_of(duration_ns);

	/* As in session_at. */
	asm volatile("" : "+r"(bucket));
	return bucket & (BDT_BUCKETS - 1);
}

/* Add a call up by process and operation. */
int __noinline tally_op(struct thread *thread, __u32 op, __s64 result, __u64 duration_ns)
{
	struct op_key key = { .op = op };
	struct bdt_op_total *total;

	if (!thread)
		return 0;
	key.started_ns = thread->started_ns;
	key.session = thread->session;
	key.tgid = thread->values.tgid;
	total = bpf_map_lookup_elem(&op_totals, &key);
	if (!total) {
		bpf_map_update_elem(&op_totals, &key, &no_op_total, BPF_NOEXIST);
		total = bpf_map_lookup_elem(&op_totals, &key);
		if (!total) {
			count_lost(thread->slot, BDT_CAUSE_MAP_FULL);
			return 0;
		}
	}
	__sync_fetch_and_add(&total->calls, 1);
	if (result < 0 && result > -4096)
		__sync_fetch_and_add(&total->errors, 1);
	__sync_fetch_and_add(&total->duration_ns, duration_ns);
	__sync_fetch_and_add(&total->latency[bucket_at(duration_ns)], 1);
	return 0;
}

int __noinline tally_file(struct thread *thread, struct subject *subject, __s64 result)
{
	struct file_key key = {};
	struct bdt_file_total *total;
	bool is_target_of_move;
	__u64 duration_ns;
	__u32 bucket;
	__u16 op;

	if (!thread || !subject)
		return 0;
	key.inode = subject->inode;
	key.started_ns = thread->started_ns;
	key.device = subject->device;
	key.link = subject->link;
	key.generation = subject->generation;
	key.tgid = thread->values.tgid;
	key.session = thread->session;
	op = thread->values.op;
	duration_ns = thread->values.duration_ns;
	bucket = bucket_at(duration_ns);
	is_target_of_move = subject->flags & BDT_CALL_TO_FILE;
	total = bpf_map_lookup_elem(&file_totals, &key);
	if (!total) {
		bpf_map_update_elem(&file_totals, &key, &no_file_total, BPF_NOEXIST);
		total = bpf_map_lookup_elem(&file_totals, &key);
		if (!total) {
			count_lost(thread->slot, BDT_CAUSE_MAP_FULL);
			return 0;
		}
	}
	if (!total->first_ns)
		total->first_ns = thread->values.time_ns;
	total->last_ns = thread->values.time_ns;
	if (result < 0 && result > -4096) {
		__sync_fetch_and_add(&total->others, 1);
	} else if (reads(op) || (moves(op) && !is_target_of_move)) {
		__sync_fetch_and_add(&total->reads, 1);
		__sync_fetch_and_add(&total->read_bytes, result);
		__sync_fetch_and_add(&total->read_ns, duration_ns);
		__sync_fetch_and_add(&total->read_latency[bucket], 1);
	} else if (writes(op) || moves(op)) {
		__sync_fetch_and_add(&total->writes, 1);
		__sync_fetch_and_add(&total->written_bytes, result);
		__sync_fetch_and_add(&total->write_ns, duration_ns);
		__sync_fetch_and_add(&total->write_latency[bucket], 1);
	} else if (opens(op) || op == BDT_OP_URING_OPEN) {
		__sync_fetch_and_add(&total->opens, 1);
	} else if (op == BDT_OP_MMAP) {
		__sync_fetch_and_add(&total->maps, 1);
	} else if (op == BDT_OP_FAULT) {
		__sync_fetch_and_add(&total->faults, 1);
	} else {
		__sync_fetch_and_add(&total->others, 1);
	}
	return 0;
}

/*
 * What mode SUMMARY does with the call in ``thread->values``; true: that was all. ``result`` is what it came to, whatever
 * a filter made of it.
 */
static __always_inline bool tally(struct thread *thread, struct subject *subject, __s64 result)
{
	__u16 op = thread->values.op;

	/* The tree of processes is recorded in any mode. */
	if (session_at(thread->slot)->mode != BDT_MODE_SUMMARY || is_of_process(op))
		return false;
	if (!(subject->flags & BDT_CALL_TO_FILE))
		tally_op(thread, op, result, thread->values.duration_ns);
	if (subject->flags & BDT_CALL_HAS_FILE)
		tally_file(thread, subject, result);
	return true;
}
