// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What the probes are told, what they keep, and what they count.
 *
 * Nothing here may be shared by two tasks without being made for it: on newer kernels a probe can be preempted, and the
 * next task's probe begins on the same processor before it goes on. So what a probe puts together lies in the storage of
 * its own task, and counts are added up atomically.
 */
#pragma once

#include "kernel.bpf.h"
#include "calls.h"
#include "session.h"

/* Set by the loader before it loads us: which Op a system call of this architecture is, 0 for none. */
const volatile __u8 op_of[SYSCALLS];
/* The same for the 32-bit interface of x86, and how each of its calls passes its arguments (enum abi32_form). */
const volatile __u8 op32_of[SYSCALLS];
const volatile __u8 form32_of[SYSCALLS];
/* Which of an Op's arguments is what. */
const volatile struct bdt_shape shapes[OPS];
const volatile __u32 page_shift;
/* What this kernel can do: the loader tries it out. */
const volatile bool exit_says_last; /* sched_process_exit has a second argument, from 6.13 on */
const volatile bool is_preemptible; /* a task may lose the processor within a probe */
/* The texts of arguments are compared by a hash that a target can't predict. */
const volatile __u64 hash_key;

/* The sessions that are traced; the loader makes and ends them. */
struct session sessions[MAX_SESSIONS];
/* The lowest level of a session's PID namespace; as long as there is none, no task has one so high. */
__u32 lowest_level = ~0U;
/* A filter: whether the number of a PID namespace may be a session's. */
__u8 namespaces[NAMESPACE_BITS];

/* What is mapped somewhere; ``file`` is 0 for memory without one. */
struct mapping {
	__u64 file;
	__u64 start;
	__u64 end;
	__u64 page_offset;
	__u64 flags; /* VM_... */
};

/* Where records of variable length are put together: the stack of a BPF program has 512 bytes. */
struct scratch {
	union {
		struct bdt_file file;
		struct bdt_string string;
	} head;
	char text[MAX_PATH + MAX_NAME];
	char spare[64];
};

/* The mappings that one munmap takes away, beside the first. */
#define MAX_PIECES 8
struct piece {
	struct subject subject;
	__u64 start;
	__u64 end;
};

/* A text argument, as it was when the call began. */
struct argument {
	__u64 address;
	__u64 hash;
	__u32 size;
	__u8 is_unread; /* it was not in memory */
	__u8 first; /* its first character, 0 for none */
	__u8 reserved[2];
};

#define ANY_NUMBER (~0U)

struct identity {
	__u64 inode;
	__u32 device;
	__u32 link;
	__u32 session;
	__u32 reserved;
};

#define WANTED_FILE 1
#define UNWANTED_FILE 2

/* What was found out of a file when its path was written. */
struct known {
	__u32 generation; /* the number of an inode that is gone is given to the next file; this tells them apart */
	__u32 tree_changes; /* as many as there had been */
	__u8 wanted; /* WANTED_FILE or UNWANTED_FILE */
};

/* The file that a thread was last seen to use, and how often its session had introduced one by then. */
struct recent {
	struct identity identity;
	struct known known;
	__u32 introductions;
};

/* What is kept of a thread of a session, from one of its events to the next. */
struct thread {
	__u32 session; /* the number of its session; 0: this was just made */
	__u32 slot;
	__u64 started_ns; /* when its process began */
	__u64 time_ns; /* when the call began */
	__u64 noted_ns; /* the time that notes on files are given: that of the event they belong to */
	__u64 switches; /* how often the thread had been switched out by then */
	__u64 argument[8];
	struct subject from;
	struct subject to; /* of calls that move bytes from one file to another, or have a second path */
	struct argument path;
	struct argument second;
	__u64 size_before; /* of a file that is appended to */
	__u64 faulted_at; /* when the last fault began that no system call has followed yet */
	__u64 fault_offset;
	struct subject fault;
	struct mapping area; /* in which the last fault was, and how often its process had changed its mappings by then */
	__u64 area_mm;
	__u32 area_changes;
	__u32 number; /* of the system call; ANY_NUMBER after exec */
	__u32 entry_tid; /* the thread's number when the call began: exec gives it the leader's */
	__u32 piece_count;
	__u32 text_limit; /* bytes that its text argument may have, with the NUL */
	__u16 op; /* 0: no call that is traced has begun and not yet returned */
	__u8 waited; /* pages came from the device during this call, or this fault */
	__u8 is_denied; /* the call returned without having been seen to begin */
	__u8 has_base; /* from which directory its path counts has been taken down at its entry */
	__u8 is_32; /* it came through the 32-bit interface */
	__u8 form; /* enum abi32_form */
	__u8 late; /* a text argument could be read at the return only */
	__u8 changed; /* a text argument was another one at the return */
	__u8 in_root; /* openat2 with RESOLVE_IN_ROOT */
	__u8 reserved[2];
	__u64 forked_ns; /* when the last child was made */
	volatile __u64 number_of; /* what was put here as a pointer comes out as a number */
	__u32 records; /* that were written */
	struct recent recent;
	struct bdt_call values; /* the record that is being filled */
	struct mapping mapping; /* that is being looked at */
	struct piece pieces[MAX_PIECES];
	struct scratch scratch;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

/* Which entry of ``sessions`` the number of a PID namespace belongs to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SESSIONS);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/* One ring a session, so that none fills another one's. */
struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_SESSIONS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/*
 * For each processor, an entry for each session. The loader has this in its memory: while it reads a map through a call,
 * the kernel leaves out all probes that are perf events on that processor, also when it loses it meanwhile.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SESSIONS); /* the loader makes room for all processors */
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

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
static const struct request no_request;

static __always_inline struct session *session_at(__u32 slot)
{
	/* A compiler that knows the slot's range (clang 21) drops the mask, which the verifier needs to see. */
	asm volatile("" : "+r"(slot));
	return &sessions[SLOT(slot)];
}

static __always_inline struct counts *counts_at(__u32 slot)
{
	__u32 key = COUNTS_AT(bpf_get_smp_processor_id(), slot);

	return bpf_map_lookup_elem(&counters, &key);
}

static __always_inline void increment(__u64 *count)
{
	if (is_preemptible)
		__sync_fetch_and_add(count, 1);
	else
		(*count)++;
}

/* A record that is there, but has less in it than it should have. */
static __always_inline void count_cause(__u32 slot, int cause)
{
	struct counts *c = counts_at(slot);

	if (c)
		increment(&c->by_cause[cause]);
}

/* A record that is not there. */
static __always_inline void count_lost(__u32 slot, int cause)
{
	struct counts *c = counts_at(slot);

	if (c) {
		increment(&c->seen);
		increment(&c->by_cause[cause]);
	}
}

static __always_inline void count_filtered(__u32 slot)
{
	struct counts *c = counts_at(slot);

	if (c)
		increment(&c->filtered);
}

static __always_inline void *ring_at(__u32 slot)
{
	__u32 key = SLOT(slot);

	return bpf_map_lookup_elem(&rings, &key);
}

/*
 * Wake the loader when there is much to do; otherwise it looks by itself now and then. To see how much there is takes as
 * long as a part of the record itself, so not every record does.
 */
#define RECORDS_A_LOOK 16
static __always_inline __u64 wakeup(void *ring, __u32 slot, struct thread *thread)
{
	if (++thread->records % RECORDS_A_LOOK)
		return BPF_RB_NO_WAKEUP;
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > session_at(slot)->wakeup_bytes ? BPF_RB_FORCE_WAKEUP :
											      BPF_RB_NO_WAKEUP;
}

/* Whether there may be room for a record, which is counted; where there is none, that is counted by cause. */
static __always_inline void *ring_for_record(__u32 slot)
{
	struct counts *c = counts_at(slot);

	if (!c)
		return NULL;
	increment(&c->seen);
	if (session_at(slot)->is_full) {
		increment(&c->by_cause[BDT_CAUSE_SIZE_LIMIT]);
		return NULL;
	}
	return ring_at(slot);
}
