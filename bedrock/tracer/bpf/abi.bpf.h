// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Through which interface a call comes. A 64-bit kernel serves 32-bit programs too, and any program may call through
 * their interface, where numbers and arguments mean something else: taken for 64-bit calls they would be misread.
 */
#pragma once

#include "abi32.h"
#include "tasks.bpf.h"

enum abi { ABI_64, ABI_32, ABI_FOREIGN };

static __always_inline enum abi abi_of(struct task_struct *task, __u64 number)
{
#if defined(__TARGET_ARCH_x86)
	if (task->thread_info.status & TS_COMPAT)
		return ABI_32;
	/* x32, which hardly any kernel has switched on. Programs use -1 to ask for nothing. */
	return number >= X32_CALL && number < X32_CALL + MAX_CALLS ? ABI_FOREIGN : ABI_64;
#else
	return task->thread_info.flags & TIF_32BIT ? ABI_FOREIGN : ABI_64;
#endif
}

#if defined(__TARGET_ARCH_x86)

static __always_inline __u64 joined(__u64 low, __u64 high)
{
	return low | high << 32;
}

static __always_inline __u64 half_at(__u64 registers, __u32 offset)
{
	return (__u32)word_at(registers + offset);
}

#define HALF(name) half_at(registers, offsetof(struct registers, name))

/* Put the arguments of a 32-bit call to where the 64-bit call of the same Op has them. */
int __noinline take_arguments32(struct thread *thread, __u64 registers, __u32 form)
{
	__u64 *a;

	if (!thread)
		return 0;
	a = thread->argument;
	a[0] = HALF(bx);
	a[1] = HALF(cx);
	a[2] = HALF(dx);
	a[3] = HALF(si);
	a[4] = HALF(di);
	a[5] = HALF(bp);
	if (form == ABI32_BLOCK) {
		__u32 *block = (__u32 *)&thread->values;

		if (bpf_probe_read_user(block, 24, (void *)a[0]))
			count_cause(thread->slot, BDT_CAUSE_READ_FAULT);
		for (int i = 0; i < 6; i++)
			a[i] = block[i];
	} else if (form == ABI32_OFFSET) {
		a[3] = joined(a[3], a[4]);
	} else if (form == ABI32_LENGTH) {
		a[1] = joined(a[1], a[2]);
	} else if (form == ABI32_START) {
		a[1] = joined(a[1], a[2]);
		a[2] = a[3];
		a[3] = a[4];
	} else if (form == ABI32_RANGE) {
		a[1] = joined(a[1], a[2]);
		a[2] = joined(a[3], a[4]);
		a[3] = a[5];
	} else if (form == ABI32_MODE_RANGE) {
		a[2] = joined(a[2], a[3]);
		a[3] = joined(a[4], a[5]);
	} else if (form == ABI32_SEEK) {
		a[1] = (__s64)(__s32)a[1];
	} else if (form == ABI32_LONG_SEEK) {
		a[1] = joined(a[2], a[1]);
		a[2] = a[4];
	} else if (form == ABI32_PAGES) {
		a[5] <<= 12;
	}
	return 0;
}

#endif

/* Which Op a call of the current task is; 0 for a call that is not traced. */
static __always_inline __u16 op_called(struct task_struct *task, __u64 number)
{
	if (number >= SYSCALLS)
		return 0;
	return abi_of(task, number) == ABI_32 ? op32_of[number] : op_of[number];
}

/* The number of the call that is returning. */
static __always_inline __u64 number_called(__u64 registers)
{
#if defined(__TARGET_ARCH_x86)
	return FIELD(pt_regs, registers, orig_ax);
#else
	return FIELD(pt_regs, registers, syscallno);
#endif
}

/* Take down the arguments of a call, as the 64-bit interface has them. */
static __always_inline void take_arguments(struct thread *thread, __u64 registers, enum abi abi, __u64 number)
{
	thread->is_32 = abi == ABI_32;
	thread->form = ABI32_ALIKE;
#if defined(__TARGET_ARCH_x86)
	if (abi == ABI_32) {
		thread->form = form32_of[number & (SYSCALLS - 1)];
		take_arguments32(thread, registers, thread->form);
		return;
	}
	/* r10, r9, r8, ax, cx, dx, si, di stand in this order. */
	{
		__u64 *a = thread->argument;
		__u64 r10, r9, r8;

		bpf_probe_read_kernel(a, 8 * sizeof(*a), (void *)(registers + offsetof(struct registers, r10)));
		r10 = a[0];
		r9 = a[1];
		r8 = a[2];
		a[0] = a[7];
		a[1] = a[6];
		a[2] = a[5];
		a[3] = r10;
		a[4] = r8;
		a[5] = r9;
	}
#else
	bpf_probe_read_kernel(thread->argument, sizeof(struct registers), (void *)registers);
	/* The first register becomes the result. */
	thread->argument[0] = FIELD(pt_regs, registers, orig_x0);
#endif
}
