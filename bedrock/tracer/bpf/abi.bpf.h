// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Through which interface a call comes. A 64-bit kernel serves 32-bit programs too, and any program may call through
 * their interface, where numbers and arguments mean something else: taken for 64-bit calls they would be told wrong.
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

/* Put the arguments of a 32-bit call to where the 64-bit call of the same Op has them. */
int __noinline take_arguments32(struct call *call, __u64 registers_address, __u32 form)
{
	struct registers registers;
	__u32 block[6] = {};

	if (!call)
		return 0;
	bpf_probe_read_kernel(&registers, sizeof(registers), (void *)registers_address);
	{
		__u64 a[6] = ARGUMENTS32(registers);

		if (form == ABI32_BLOCK) {
			if (bpf_probe_read_user(block, sizeof(block), (void *)a[0]))
				count_cause(BDT_CAUSE_READ_FAULT);
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
		__builtin_memcpy(call->argument, a, sizeof(a));
	}
	return 0;
}

#endif

/* Which Op a call of the current task is; 0 for none that is traced. */
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
	return word_at(registers + offsetof(struct registers, orig_ax));
#else
	return BPF_CORE_READ((struct pt_regs *)registers, syscallno);
#endif
}

/* Take down the arguments of a call, as the 64-bit interface has them. */
static __always_inline void take_arguments(struct call *call, __u64 registers_address, enum abi abi, __u64 number)
{
	struct registers registers;

	call->is_32 = abi == ABI_32;
	call->form = ABI32_ALIKE;
#if defined(__TARGET_ARCH_x86)
	if (abi == ABI_32) {
		call->form = form32_of[number & (SYSCALLS - 1)];
		take_arguments32(call, registers_address, call->form);
		return;
	}
#endif
	bpf_probe_read_kernel(&registers, sizeof(registers), (void *)registers_address);
	{
		__u64 argument[6] = ARGUMENTS(registers);

#if defined(__TARGET_ARCH_arm64)
		argument[0] = BPF_CORE_READ((struct pt_regs *)registers_address, orig_x0);
#endif
		__builtin_memcpy(call->argument, argument, sizeof(argument));
	}
}
