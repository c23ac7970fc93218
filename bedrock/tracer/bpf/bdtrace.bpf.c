// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The probes. They run on every system call of the machine, so the first thing each does is to find out, with a few
 * loads, that a task is none of the target's.
 *
 * A task belongs to the target when its PID namespace is the target's or one below it. What a call needs from before it
 * (the time, its arguments, the file behind its descriptor, the position) is kept in the task's own storage until the
 * call returns; then one fixed-size record goes into the ring. Nothing is formatted, and nothing ever waits: what does
 * not fit is counted by cause.
 *
 * Only the kernel types' fields that are read are declared; CO-RE finds them in the kernel that is there.
 */
#include "abi.bpf.h"
#include "faults.bpf.h"
#include "mappings.bpf.h"
#include "processes.bpf.h"
#include "records.bpf.h"
#include "uring.bpf.h"

/* Calls after which paths may count from elsewhere. */
static __always_inline bool moves_base(__u16 op)
{
	return op == BDT_OP_CHDIR || op == BDT_OP_CHROOT || (op >= BDT_OP_RENAME && op <= BDT_OP_RENAMEAT2);
}

static __always_inline void note_base_at_entry(struct call *call, __u16 op)
{
	const volatile struct bdt_shape *shape = &shapes[op & 127];
	__u32 first = first_of(call->argument[(shape->path - 1) & 7]);

	/* The kernel will bring it into memory; then it is looked at when the call returns. */
	if (first == UNREADABLE)
		return;
	note_base(&call->from, first, shape->base ? (__s32)call->argument[(shape->base - 1) & 7] : AT_FDCWD, call->time_ns);
	call->has_base = 1;
}

/*
 * Keep what a call needs from before it. Its Op is left at 0 for what turns out to be none of ours: memory without a file.
 */
int __noinline enter(struct call *call, __u64 registers, __u64 number, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u16 op = op_called(task, number);
	__u64 file;
	__s32 fd;

	if (!call)
		return 0;
	call->entered = 1;
	call->is_denied = 0;
	call->has_base = 0;
	take_arguments(call, registers, abi_of(task, number), number);
	if (op == BDT_OP_FCNTL_DUPFD && call->argument[1] != F_DUPFD && call->argument[1] != F_DUPFD_CLOEXEC)
		return 0;
	if (op == BDT_OP_MMAP && (call->argument[3] & MAP_ANONYMOUS))
		return 0;
	if (op == BDT_OP_IOCTL_CLONE && call->argument[1] != FICLONE && call->argument[1] != FICLONERANGE &&
	    call->argument[1] != FIDEDUPERANGE)
		return 0;
	call->time_ns = now;
	call->op = op;
	call->waited = 0;
	call->faulted_at = 0;
	forget(&call->from);
	fd = op == BDT_OP_MMAP ? call->argument[4] : op == BDT_OP_SENDFILE ? call->argument[1] : call->argument[0];
	if (takes_descriptor(op) || op == BDT_OP_MMAP || moves(op)) {
		file = file_of(fd);
		if (file)
			note_file(&call->from, file, now, IF_NEW);
	}
	if (op >= BDT_OP_STAT && op != BDT_OP_MUNMAP && op != BDT_OP_MSYNC && shapes[op & 127].fd) {
		file = file_of(call->argument[(shapes[op & 127].fd - 1) & 7]);
		if (file)
			note_file(&call->from, file, now, IF_NEW);
	}
	if (moves_base(op) && mode == BDT_MODE_EVENTS)
		note_base_at_entry(call, op);
	if ((op == BDT_OP_MUNMAP || op == BDT_OP_MSYNC) && !note_mapping(task, &call->from, call->argument[0], now)) {
		/* Of memory without a file. */
		call->op = 0;
		return 0;
	}
	if (reads(op) && call->from.file) {
		struct file *opened = (struct file *)call->from.file;

		/* Past the page cache, so always from the device. */
		if (BPF_CORE_READ(opened, f_flags) & O_DIRECT)
			call->waited = 1;
	}
	if (moves(op)) {
		forget(&call->to);
		file = file_of(op == BDT_OP_SENDFILE ? call->argument[0] : call->argument[2]);
		if (file)
			note_file(&call->to, file, now, IF_NEW);
	}
	return 0;
}

static __always_inline void count_foreign(void)
{
	count_seen();
	count_cause(BDT_CAUSE_FOREIGN_ABI);
}

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call *call;
	__u64 now;
	__u16 op;

	if (!is_target(task))
		return 0;
	if (has_begun && abi_of(task, ctx->args[1]) == ABI_FOREIGN) {
		call = call_of(task, bpf_ktime_get_ns());
		if (call)
			call->entered = 1;
		count_foreign();
		return 0;
	}
	op = op_called(task, ctx->args[1]);
	/* The gate itself is not the target's doing, up to the exec with which it becomes the target. */
	if (!op || (!has_begun && op != BDT_OP_EXECVE && op != BDT_OP_EXECVEAT))
		return 0;
	now = bpf_ktime_get_ns();
	call = call_of(task, now);
	if (call)
		enter(call, ctx->args[0], ctx->args[1], now);
	return 0;
}

/*
 * A call that returns without having been entered: a seccomp filter has answered it instead of the kernel, which says so
 * to nobody else. NULL for what is none of ours.
 */
static __always_inline struct call *call_denied(struct task_struct *task, __u64 registers)
{
	__u64 number = number_called(registers), now;
	struct call *call;

	if (!has_begun)
		return NULL;
	if (abi_of(task, number) == ABI_FOREIGN) {
		count_foreign();
		return NULL;
	}
	if (!op_called(task, number))
		return NULL;
	now = bpf_ktime_get_ns();
	call = call_of(task, now);
	if (!call)
		return NULL;
	enter(call, registers, number, now);
	call->is_denied = 1;
	return call;
}

/* Eight bytes that the kernel has read or written, too. */
static __always_inline void read_result(void *to, __u64 address, __s64 result)
{
	if (bpf_probe_read_user(to, 8, (void *)address) && result >= 0)
		count_cause(BDT_CAUSE_READ_FAULT);
}

static __always_inline __s64 result_of(struct call *call, struct bpf_raw_tracepoint_args *ctx)
{
	__s64 result = ctx->args[1];

	/* Where the filter has sent a signal instead of an answer, the registers are as they were: the number is still there. */
	if (call->is_denied && result == (__s64)number_called(ctx->args[0]))
		return -ENOSYS;
	return result;
}

SEC("raw_tp/sys_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bdt_call values = { .fd = -1, .offset = -1 };
	bool has_own_offset = false;
	bool tells = mode == BDT_MODE_EVENTS;
	struct call *call;
	__u64 file;
	__u16 op;

	if (!is_target(task))
		return 0;
	call = bpf_task_storage_get(&calls, task, NULL, 0);
	if (!call || !call->entered)
		call = call_denied(task, ctx->args[0]);
	if (!call)
		return 0;
	call->entered = 0;
	if (!call->op)
		return 0;
	values.op = op = call->op;
	call->op = 0;
	values.duration_ns = bpf_ktime_get_ns() - call->time_ns;
	values.result = result_of(call, ctx);
	if (op == BDT_OP_IO_SUBMIT) {
		emit_iocbs(call, values.result);
		return 0;
	}
	if (moves(op)) {
		emit_move(call, &values);
		return 0;
	}
	if (op >= BDT_OP_STAT && op != BDT_OP_MUNMAP && op != BDT_OP_MSYNC) {
		emit_shaped(call, &values);
		return 0;
	}
	switch (op) {
	case BDT_OP_OPEN:
	case BDT_OP_CREAT:
		values.arg = op == BDT_OP_OPEN ? call->argument[1] : 01101;
		break;
	case BDT_OP_OPENAT:
	case BDT_OP_OPENAT2:
		if (op == BDT_OP_OPENAT)
			values.arg = call->argument[2];
		else
			read_result(&values.arg, call->argument[2], values.result);
		break;
	case BDT_OP_EXECVE:
	case BDT_OP_EXECVEAT:
		/* One that succeeded was told by on_exec, when the old memory was still to be read. */
		if (values.result < 0) {
			bool at = op == BDT_OP_EXECVEAT;

			emit_argument(call, call->argument[at], at ? (__s32)call->argument[0] : AT_FDCWD, values.result);
		}
		break;
	case BDT_OP_READ:
	case BDT_OP_WRITE:
		values.requested = call->argument[2];
		values.fd = call->argument[0];
		break;
	case BDT_OP_PREAD64:
	case BDT_OP_PWRITE64:
		values.requested = call->argument[2];
		values.offset = call->argument[3];
		values.fd = call->argument[0];
		has_own_offset = true;
		break;
	case BDT_OP_READV:
	case BDT_OP_WRITEV:
		values.requested = sum_of_iovecs(&call->from, call->argument[1], call->argument[2], call->is_32);
		values.fd = call->argument[0];
		break;
	case BDT_OP_PREADV:
	case BDT_OP_PWRITEV:
	case BDT_OP_PREADV2:
	case BDT_OP_PWRITEV2:
		values.requested = sum_of_iovecs(&call->from, call->argument[1], call->argument[2], call->is_32);
		/* On 64-bit kernels the low word holds all of the offset; -1 means the file's own position. */
		values.offset = call->argument[3];
		values.fd = call->argument[0];
		has_own_offset = values.offset != -1;
		break;
	case BDT_OP_LSEEK:
		values.offset = call->argument[1];
		values.arg = call->argument[2];
		values.fd = call->argument[0];
		has_own_offset = true;
		if (call->form == ABI32_LONG_SEEK && !values.result)
			read_result(&values.result, call->argument[3], 0);
		break;
	case BDT_OP_MMAP:
		values.requested = call->argument[1];
		values.arg = (call->argument[2] & 0xffffffff) | call->argument[3] << 32;
		values.fd = call->argument[4];
		values.offset = call->argument[5];
		has_own_offset = true;
		break;
	case BDT_OP_MUNMAP:
	case BDT_OP_MSYNC:
		values.arg = call->argument[0];
		values.requested = call->argument[1];
		break;
	default:
		values.fd = call->argument[0];
		values.arg = call->argument[1];
	}
	if (opens(op)) {
		bool at = op == BDT_OP_OPENAT || op == BDT_OP_OPENAT2;

		if (values.result < 0 || call->is_denied) {
			if (tells)
				emit_argument(call, call->argument[at], at ? (__s32)call->argument[0] : AT_FDCWD, values.result);
		} else {
			if (tells)
				emit_string(NULL, call->argument[at], FROM_USER, call->time_ns, task->pid);
			values.fd = values.result;
			file = file_of(values.fd);
			if (file)
				note_file(&call->from, file, call->time_ns, tells ? ALWAYS : IF_ANOTHER);
		}
		call->from.flags &= ~BDT_CALL_HAS_OFFSET;
	} else if (op < BDT_OP_READ || op > BDT_OP_MMAP) {
		call->from.flags &= ~BDT_CALL_HAS_OFFSET;
	} else if (!has_own_offset && (call->from.flags & BDT_CALL_HAS_OFFSET)) {
		values.offset = began_at(&call->from, values.result);
	}
	emit_call(call, &call->from, &values);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
