// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The probes. They run on every system call of the machine, so the first thing each does is to find out, with a few
 * loads, that a task belongs to no session.
 *
 * A task belongs to a session when its PID namespace is the session's or one below it. What a call needs from before it
 * (the time, its arguments, the file behind its descriptor, the position) is kept in the task's own storage until the
 * call returns; then one fixed-size record goes into the session's ring. Nothing is formatted, and nothing ever waits:
 * what does not fit is counted by cause.
 *
 * Only the kernel types' fields that are read are declared; CO-RE finds them in the kernel that is there.
 */
#include "entries.bpf.h"
#include "faults.bpf.h"
#include "processes.bpf.h"
#include "returns.bpf.h"
#include "uring.bpf.h"

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return entered(ctx->args[0], ctx->args[1]);
}

SEC("raw_tp/sys_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return returned(ctx->args[0], ctx->args[1]);
}

/*
 * Kernels on which a task can lose the processor within a probe of the kind above leave that probe out for all other tasks
 * there until it goes on. Programs of perf events, whose names end in _event, can't be interrupted so; they cost every
 * call of the host a little more, and the loader attaches them only where they are needed. Their arguments are what the
 * event's "format" in tracefs shows. Where an event has not all that is needed, the probe has a copy (_copy), which acts
 * when the first one was left out.
 */
struct syscall_event {
	__u64 common;
	__u64 number;
	__u64 result;
};

/* The registers of the call, as a number: the verifier lets a pointer of this kind into no other function. */
static __always_inline __u64 registers_of(struct task_struct *task)
{
	void *registers = (void *)bpf_task_pt_regs(task);
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &registers);
	return address;
}

SEC("tp/raw_syscalls/sys_enter")
int on_enter_event(struct syscall_event *ctx)
{
	return entered(registers_of(bpf_get_current_task_btf()), ctx->number);
}

SEC("tp/raw_syscalls/sys_exit")
int on_exit_event(struct syscall_event *ctx)
{
	return returned(registers_of(bpf_get_current_task_btf()), ctx->result);
}

char _license[] SEC("license") = "Dual BSD/GPL";
