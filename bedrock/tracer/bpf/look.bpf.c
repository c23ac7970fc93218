// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Whether a task can lose the processor within a probe: a program of its own, since it decides which others are loaded. */
#include "loops.bpf.h"

/*
 * How the loader finds out whether that is so: it makes a call on a processor that another thread wants too, and this
 * stays in the call for longer than a task's share of time, or until it lost the processor.
 */
__s32 looking_tid;
bool lost_processor;
#define LOOK_NS 40000000ULL
#define LOOK_TURNS (1 << 20)

struct looking {
	__u64 until_ns;
	__u64 switches;
	__u32 turns;
	bool is_lost;
};

static __always_inline long look_turn(__u32 index, struct looking *it)
{
	struct task_struct *task = bpf_get_current_task_btf();

	it->is_lost = task->nvcsw + task->nivcsw != it->switches;
	return it->is_lost || bpf_ktime_get_ns() > it->until_ns;
}

LOOP(look_turn, looking)

SEC("raw_tp/sys_enter")
int look(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct looking it = { .until_ns = bpf_ktime_get_ns() + LOOK_NS, .switches = task->nvcsw + task->nivcsw };

	if (task->pid != looking_tid)
		return 0;
	looking_tid = 0;
	run_look_turn(&it, LOOK_TURNS);
	lost_processor = it.is_lost;
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
