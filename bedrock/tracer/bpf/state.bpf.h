// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* What the probes are told, what they keep, and what they count. */
#pragma once

#include "kernel.bpf.h"
#include "calls.h"

/* Set by the loader before it loads us: which Op a system call of this architecture is, 0 for none. */
const volatile __u8 op_of[SYSCALLS];
/* The same for the 32-bit interface of x86, and how each of its calls passes its arguments (enum abi32_form). */
const volatile __u8 op32_of[SYSCALLS];
const volatile __u8 form32_of[SYSCALLS];
/* And for the Ops from BDT_OP_STAT on, which of its arguments is what. */
const volatile struct bdt_shape shapes[128];
const volatile __u32 wakeup_bytes;
const volatile __u32 page_shift;
/* BDT_MODE_EVENTS or BDT_MODE_SUMMARY. */
const volatile __u32 mode;
/* Not all calls that open files are traced: that a number has been given to another file has to be seen elsewhere. */
const volatile __u32 opens_are_untold;
/* Which events that are no system calls are wanted. */
const volatile __u8 wants[128];
/* Of which files events are wanted, as paths stand in a FILE record; none means all. */
const volatile struct bdt_prefix prefixes[BDT_MAX_PREFIXES];
const volatile __u32 prefix_count;

/* Set by the loader to arm and to disarm. */
__u32 target_inum;
__u32 target_level;
/* Set by the loader when the trace has its upper size: from then on records are only counted. */
__u32 is_full;
/* Set here, once the target's own program has begun. */
__u32 has_begun;
/* How often a directory has been renamed or made: what was known of paths before may no longer hold. */
__u32 tree_changes;
__u64 root_dentry;
__u64 root_mnt;

/* What is mapped somewhere; ``file`` is 0 for memory without one. */
struct mapping {
	__u64 file;
	__u64 start;
	__u64 end;
	__u64 page_offset;
};

struct call {
	__u64 time_ns;
	__u64 argument[8];
	struct subject from;
	struct subject to; /* of calls that move bytes from one file to another */
	__u64 faulted_at; /* when the last fault began that no system call has followed yet */
	struct subject fault;
	__s64 fault_offset;
	struct mapping area; /* in which the last fault was, and how often its process had changed its mappings by then */
	__u64 area_mm;
	__u32 area_changes;
	__u16 op;
	__u8 introduced;
	__u8 waited; /* pages came from the device during this call, or this fault */
	__u8 entered; /* a call that we know has been entered, and not been returned from */
	__u8 is_denied; /* a seccomp filter has answered it */
	__u8 has_base; /* from which directory its path counts has been taken down at its entry */
	__u8 is_32; /* it came through the 32-bit interface */
	__u8 form; /* enum abi32_form */
};

enum { MEMBER = 1, OUTSIDER = 2 };

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct call);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 25);
} ring SEC(".maps");

struct counts {
	__u64 seen;
	__u64 filtered;
	__u64 by_cause[BDT_CAUSES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

struct identity {
	__u64 inode;
	__u64 device;
};

#define WANTED_FILE 1
#define UNWANTED_FILE 2

/* What was found out of a file when its path was written. */
struct known {
	__u32 generation; /* the number of an inode that is gone is given to the next file; this tells them apart */
	__u32 tree_changes; /* as many as there had been */
	__u8 wanted; /* WANTED_FILE or UNWANTED_FILE */
};

/* Files whose path has been written. The least recently used goes first: then its path is written once more. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct identity);
	__type(value, struct known);
} known_files SEC(".maps");

/* Requests to an io_uring that have not completed, by the address of what the kernel keeps of them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct request);
} requests SEC(".maps");

/* The counts of mode SUMMARY. */
struct file_key {
	__u64 inode;
	__u32 device;
	__u32 tgid;
	__u64 generation;
};
struct op_key {
	__u32 tgid;
	__u32 op;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct file_key);
	__type(value, struct bdt_file_total);
} file_totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct op_key);
	__type(value, struct bdt_op_total);
} op_totals SEC(".maps");

static const struct bdt_file_total no_file_total;
static const struct bdt_op_total no_op_total;

/* Where records of variable length are put together: the stack of a BPF program has 512 bytes. */
struct scratch {
	union {
		struct bdt_file file;
		struct bdt_string string;
	} head;
	char text[MAX_PATH + MAX_NAME];
	char spare[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline struct counts *counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline void count_cause(int cause)
{
	struct counts *c = counts();

	if (c)
		c->by_cause[cause]++;
}

static __always_inline void count_seen(void)
{
	struct counts *c = counts();

	if (c)
		c->seen++;
}

static __always_inline void count_filtered(void)
{
	struct counts *c = counts();

	if (c)
		c->filtered++;
}

/* Wake the loader when there is much to do; otherwise it looks by itself now and then. */
static __always_inline __u64 wakeup(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wakeup_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Room in the ring, counted; NULL when there is none, which is counted by cause. */
static __always_inline void *reserve(__u64 size)
{
	void *record;

	count_seen();
	if (is_full) {
		count_cause(BDT_CAUSE_SIZE_LIMIT);
		return NULL;
	}
	record = bpf_ringbuf_reserve(&ring, size, 0);
	if (!record)
		count_cause(BDT_CAUSE_RING_FULL);
	return record;
}
