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
#include "abi.bpf.h"
#include "batches.bpf.h"
#include "faults.bpf.h"
#include "mappings.bpf.h"
#include "processes.bpf.h"
#include "records.bpf.h"
#include "uring.bpf.h"

/* Arguments of ioctl that say it is one of those that are traced, and which. */
static __always_inline __u16 op_of_ioctl(__u32 command)
{
	if (command == FICLONE || command == FICLONERANGE || command == FIDEDUPERANGE)
		return BDT_OP_IOCTL_CLONE;
	if (command == FS_IOC_SETFLAGS || command == FS_IOC32_SETFLAGS || command == FS_IOC_FSSETXATTR)
		return BDT_OP_IOCTL_SETFLAGS;
	return 0;
}

#define UNREADABLE 256

/* The first character of a text in user memory: 0 for an empty one, and where none is given. */
static __always_inline __u32 first_of(__u64 text)
{
	__u8 first = 0;

	if (text && bpf_probe_read_user(&first, 1, (void *)text))
		return UNREADABLE;
	return first;
}

/* Take down the texts of a call, and the directories from which its paths count. Only in mode EVENTS. */
int __noinline take_texts(struct thread *thread, __u32 op)
{
	const volatile struct bdt_shape *shape = &shapes[op & (OPS - 1)];
	__u64 path, second;
	__u32 first;

	if (!thread)
		return 0;
	thread->path.address = 0;
	thread->second.address = 0;
	if (shape->path) {
		path = thread->argument[(shape->path - 1) & 7];
		if (op == BDT_OP_BIND)
			path += sizeof(__u16);
		take_text(thread, &thread->path, path, 0);
		/* A file that was opened has its path from the kernel; only where opening failed are bases of use. */
		if (session_at(thread->slot)->has_begun && (!opens(op) || thread->in_root))
			take_bases(thread, op);
		if (op == BDT_OP_CHROOT && thread->path.is_unread)
			note_base(thread, &thread->to, '/', AT_FDCWD);
	}
	if (shape->second) {
		second = thread->argument[(shape->second - 1) & 7];
		first = first_of(second);
		if (shape->second_base)
			note_base(thread, &thread->to, first == UNREADABLE ? '.' : first,
				  shape->second_base == WORKING_DIRECTORY ?
					  AT_FDCWD :
					  (__s32)thread->argument[(shape->second_base - 1) & 7]);
		take_text(thread, &thread->second, second, IS_SECOND);
	}
	return 0;
}

/* Take down the file, or the files, that a call is about by its descriptors. */
int __noinline take_files(struct thread *thread, __u32 op)
{
	const volatile struct bdt_shape *shape = &shapes[op & (OPS - 1)];
	__u64 file = 0;

	if (!thread)
		return 0;
	if (shape->fd)
		file = file_of(thread->argument[(shape->fd - 1) & 7]);
	else if (op == BDT_OP_MMAP)
		file = file_of(thread->argument[4]);
	else if (op == BDT_OP_SENDFILE)
		file = file_of(thread->argument[1]);
	else if (takes_descriptor(op) || moves(op))
		file = file_of(thread->argument[0]);
	if (file)
		note_file(thread, &thread->from, file, IF_NEW);
	if (file && writes(op))
		thread->size_before = size_of(file);
	/* Past the page cache, so always from the device. */
	if (file && reads(op) && BPF_CORE_READ((struct file *)file, f_flags) & O_DIRECT)
		thread->waited = 1;
	if (moves(op)) {
		file = file_of(op == BDT_OP_SENDFILE ? thread->argument[0] : thread->argument[2]);
		if (file)
			note_file(thread, &thread->to, file, IF_NEW);
	}
	return 0;
}

/* What tells apart the calls that share a number; 0 for what is not traced. */
static __always_inline __u16 refine(struct thread *thread, __u16 op)
{
	__u16 family = 0;

	switch (op) {
	case BDT_OP_FCNTL_DUPFD:
		return thread->argument[1] == F_DUPFD || thread->argument[1] == F_DUPFD_CLOEXEC ? op : 0;
	case BDT_OP_MMAP:
		return thread->argument[3] & MAP_ANONYMOUS ? 0 : op;
	case BDT_OP_IOCTL_CLONE:
		op = op_of_ioctl(thread->argument[1]);
		/* The flags themselves are in memory. */
		if (op == BDT_OP_IOCTL_SETFLAGS) {
			__u64 at = thread->argument[2];

			thread->argument[2] = 0;
			bpf_probe_read_user(&thread->argument[2], 4, (void *)at);
		}
		return op;
	case BDT_OP_BIND:
		/* The address of a unix socket that has a path: neither empty nor abstract. */
		if (thread->argument[2] <= sizeof(family) ||
		    bpf_probe_read_user(&family, sizeof(family), (void *)thread->argument[1]) || family != AF_UNIX ||
		    first_of(thread->argument[1] + sizeof(family)) == 0)
			return 0;
		return op;
	}
	return op;
}

/* Keep what a call needs from before it. */
int __noinline enter(struct thread *thread, __u64 registers, __u64 number, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 op;

	if (!thread)
		return 0;
	op = op_called(task, number);
	take_arguments(thread, registers, abi_of(task, number), number);
	op = refine(thread, op);
	if (!session_at(thread->slot)->wants[op & (OPS - 1)] && !changes_tree(op))
		op = 0;
	thread->op = op;
	thread->number = number;
	if (!op)
		return 0;
	thread->time_ns = thread->noted_ns = now;
	thread->entry_tid = task->pid;
	thread->switches = task->nvcsw + task->nivcsw;
	thread->waited = 0;
	thread->is_denied = 0;
	thread->has_base = 0;
	thread->late = 0;
	thread->changed = 0;
	thread->in_root = 0;
	thread->faulted_at = 0;
	thread->text_limit = MAX_PATH;
	forget(&thread->from);
	forget(&thread->to);
	if (op == BDT_OP_MUNMAP || op == BDT_OP_MSYNC) {
		take_pieces(thread, thread->argument[0], thread->argument[1]);
		/* Of memory without a file. */
		if (!thread->piece_count)
			thread->op = 0;
		return 0;
	}
	if (op == BDT_OP_OPENAT2) {
		__u64 resolve = 0;

		bpf_probe_read_user(&resolve, sizeof(resolve), (void *)(thread->argument[2] + 16));
		thread->in_root = !!(resolve & RESOLVE_IN_ROOT);
	}
	if (op == BDT_OP_BIND && thread->argument[2] < MAX_PATH)
		thread->text_limit = thread->argument[2] - 1;
	take_files(thread, op);
	if (session_at(thread->slot)->mode == BDT_MODE_EVENTS && shapes[op & (OPS - 1)].has_text)
		take_texts(thread, op);
	return 0;
}

/* Whether calls of a number may be what the session asked for; ``refine`` says it of a single call. */
static __always_inline bool may_be_wanted(struct session *session, __u16 op)
{
	return session->wants[op & (OPS - 1)] || changes_tree(op) || op == BDT_OP_IOCTL_CLONE;
}

/* A system call begins. */
static __always_inline int entered(__u64 registers, __u64 number)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct session *session;
	struct thread *thread;
	int slot = slot_of(task, &thread);
	__u64 now;
	__u16 op;

	if (slot < 0)
		return 0;
	session = session_at(slot);
	if (thread && thread->op) {
		/* The call before this one has returned, and nobody saw it. */
		thread->op = 0;
		count_lost(slot, BDT_CAUSE_PROBE_MISSED);
	}
	if (session->has_begun && abi_of(task, number) == ABI_FOREIGN) {
		count_lost(slot, BDT_CAUSE_FOREIGN_ABI);
		return 0;
	}
	op = op_called(task, number);
	/* The gate itself is not the target's doing, up to the exec with which it becomes the target. */
	if (!op || (!session->has_begun && op != BDT_OP_EXECVE && op != BDT_OP_EXECVEAT))
		return 0;
	if (!may_be_wanted(session, op))
		return 0;
	now = bpf_ktime_get_ns();
	thread = known_thread(task, slot, thread, now);
	if (thread)
		enter(thread, registers, number, now);
	return 0;
}

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return entered(ctx->args[0], ctx->args[1]);
}

/*
 * A call that returns without having been entered: a seccomp filter has answered it instead of the kernel, which says so
 * to nobody else. Or the kernel left the probe out, which the loader finds out. False: it is not traced.
 */
static __always_inline int enter_late(__u32 slot, __u64 registers, __u64 number, __s64 result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct session *session = session_at(slot);
	struct thread *thread;
	__u64 now;
	__u16 op;

	if (!session->has_begun)
		return 0;
	if (abi_of(task, number) == ABI_FOREIGN)
		return 0;
	op = op_called(task, number);
	/* A child begins with the return of the call that made it. */
	if (!op || (op == BDT_OP_FORK && result >= 0) || !may_be_wanted(session, op))
		return 0;
	now = bpf_ktime_get_ns();
	thread = bpf_task_storage_get(&threads, task, NULL, 0);
	if (!thread || thread->session != session->number) {
		begin_thread(slot, now);
		thread = bpf_task_storage_get(&threads, task, NULL, 0);
	}
	if (!thread)
		return 0;
	enter(thread, registers, number, now);
	thread->is_denied = 1;
	/* What it was told to do could be read at the return only. */
	thread->late = shapes[thread->op & (OPS - 1)].has_text;
	return 1;
}

/* Eight bytes that the kernel has read or written, too. */
static __always_inline void read_result(struct thread *thread, void *to, __u64 address, __s64 result)
{
	if (bpf_probe_read_user(to, 8, (void *)address) && result >= 0)
		count_cause(thread->slot, BDT_CAUSE_READ_FAULT);
}

/* Where a base was taken for that of a relative path, and the path turned out to be an absolute one. */
static __always_inline void correct_base(struct thread *thread, __u16 op)
{
	if (thread->path.first != '/' || thread->in_root || !thread->path.is_unread)
		return;
	if (op == BDT_OP_CHROOT) {
		thread->from = thread->to;
	} else {
		forget(&thread->from);
		note_base(thread, &thread->from, '/', AT_FDCWD);
	}
}

/* Compare the texts with what they were when the call began, and read those that could not be read then. */
int __noinline check_texts(struct thread *thread, __u32 op)
{
	/* The kernel could not read a string of a call that failed so either: then there is none to be missed. */
	__u32 kind = thread && thread->values.result == -EFAULT ? MAY_FAIL : 0;

	if (!thread)
		return 0;
	check_text(thread, &thread->path, kind);
	check_text(thread, &thread->second, kind | IS_SECOND);
	if (thread->has_base)
		correct_base(thread, op);
	return 0;
}

/* Reads and writes: how much was asked for, and where it began. */
int __noinline emit_transfer(struct thread *thread, __u32 op)
{
	__u64 *argument;
	struct bdt_call *values;
	bool has_own_offset = false, appends;

	if (!thread)
		return 0;
	values = &thread->values;
	argument = thread->argument;
	values->fd = argument[0];
	if (op == BDT_OP_READ || op == BDT_OP_WRITE || op == BDT_OP_PREAD64 || op == BDT_OP_PWRITE64)
		values->requested = argument[2];
	else
		values->requested = sum_of_iovecs(&thread->from, argument[1], argument[2], thread->is_32 ? 4 : 8);
	if (op == BDT_OP_PREAD64 || op == BDT_OP_PWRITE64) {
		values->offset = argument[3];
		has_own_offset = true;
	} else if (op == BDT_OP_PREADV || op == BDT_OP_PWRITEV || op == BDT_OP_PREADV2 || op == BDT_OP_PWRITEV2) {
		/* On 64-bit kernels the low word holds all of the offset; -1 means the file's own position. */
		values->offset = argument[3];
		has_own_offset = values->offset != -1;
	}
	if (!(thread->from.flags & BDT_CALL_HAS_OFFSET)) {
		/* It has no positions. */
	} else if (has_own_offset) {
		appends = writes(op) && (thread->from.flags & BDT_CALL_APPEND ||
					 (op == BDT_OP_PWRITEV2 && argument[5] & RWF_APPEND));
		if (appends)
			values->offset = appended_at(&thread->from, thread->size_before, values->result);
	} else {
		if (op == BDT_OP_PWRITEV2 && argument[5] & RWF_APPEND)
			thread->from.flags |= BDT_CALL_APPEND;
		values->offset = began_at(&thread->from, values->result);
	}
	emit_call(thread, &thread->from);
	return 0;
}

int __noinline emit_open(struct thread *thread, __u32 op)
{
	bool tells, at = op == BDT_OP_OPENAT || op == BDT_OP_OPENAT2;
	struct bdt_call *values;
	__u64 file;

	if (!thread)
		return 0;
	values = &thread->values;
	tells = session_at(thread->slot)->mode == BDT_MODE_EVENTS;
	if (op == BDT_OP_OPEN)
		values->arg = thread->argument[1];
	else if (op == BDT_OP_CREAT)
		values->arg = 01101;
	else if (op == BDT_OP_OPENAT)
		values->arg = thread->argument[2];
	else
		read_result(thread, &values->arg, thread->argument[2], values->result);
	if (values->result >= 0 && !thread->is_denied) {
		values->fd = values->result;
		file = file_of(values->fd);
		forget(&thread->from);
		if (file)
			note_file(thread, &thread->from, file, tells ? ALWAYS : IF_ANOTHER);
	} else if (tells && !thread->has_base) {
		note_base(thread, &thread->from, thread->path.first, at ? (__s32)thread->argument[0] : AT_FDCWD);
	}
	thread->from.flags &= ~BDT_CALL_HAS_OFFSET;
	if (thread->in_root)
		thread->from.flags |= BDT_CALL_IN_ROOT;
	emit_call(thread, &thread->from);
	return 0;
}

/* Calls that no family has. */
int __noinline emit_other(struct thread *thread, __u32 op)
{
	struct bdt_call *values;
	__u64 *argument;

	if (!thread)
		return 0;
	values = &thread->values;
	argument = thread->argument;
	switch (op) {
	case BDT_OP_EXECVE:
	case BDT_OP_EXECVEAT:
		break;
	case BDT_OP_LSEEK:
		values->offset = argument[1];
		values->arg = argument[2];
		values->fd = argument[0];
		if (thread->form == ABI32_LONG_SEEK && !values->result)
			read_result(thread, &values->result, argument[3], 0);
		break;
	case BDT_OP_MMAP:
		values->requested = argument[1];
		values->arg = (argument[2] & 0xffffffff) | argument[3] << 32;
		values->fd = argument[4];
		values->offset = argument[5];
		break;
	default:
		values->fd = argument[0];
		values->arg = argument[1];
	}
	if (op != BDT_OP_LSEEK && op != BDT_OP_MMAP)
		thread->from.flags &= ~BDT_CALL_HAS_OFFSET;
	emit_call(thread, &thread->from);
	return 0;
}

/* The call that the thread's storage has is over. */
int __noinline leave(struct thread *thread, __s64 result)
{
	__u32 op;

	if (!thread)
		return 0;
	op = thread->op;
	thread->op = 0;
	clear_values(thread, op);
	thread->values.duration_ns = bpf_ktime_get_ns() - thread->time_ns;
	thread->values.result = result;
	/* A page that the kernel touched for the target, and that was not to be had. */
	if (result == -EFAULT && thread->faulted_at > thread->time_ns) {
		struct session *session = session_at(thread->slot);

		thread->faulted_at = 0;
		if (session->wants[BDT_OP_FAULT_FAILED]) {
			emit_fault(thread, BDT_OP_FAULT_FAILED, bpf_ktime_get_ns(), result);
			clear_values(thread, op);
			thread->values.duration_ns = bpf_ktime_get_ns() - thread->time_ns;
			thread->values.result = result;
		}
	}
	if (op == BDT_OP_FORK) {
		/* What succeeded is recorded by on_fork. */
		if (result < 0)
			emit_call(thread, &thread->from);
		return 0;
	}
	if (op == BDT_OP_MUNMAP || op == BDT_OP_MSYNC)
		return emit_pieces(thread);
	if (moves(op))
		return emit_move(thread);
	if (reads(op) || writes(op))
		return emit_transfer(thread, op);
	if (shapes[op & (OPS - 1)].has_text && session_at(thread->slot)->mode == BDT_MODE_EVENTS)
		check_texts(thread, op);
	if (opens(op))
		return emit_open(thread, op);
	if (op >= BDT_OP_STAT)
		return emit_shaped(thread);
	return emit_other(thread, op);
}

/* A system call returns. */
static __always_inline int returned(__u64 registers, __s64 result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread;
	int slot = slot_of(task, &thread);
	__u64 number;

	if (slot < 0)
		return 0;
	number = number_called(registers);
	if (thread && thread->op && thread->number != (__u32)number && thread->number != ANY_NUMBER) {
		/* It is the return of another call: that of the one which is known was not seen, nor was this one's beginning. */
		thread->op = 0;
		count_lost(slot, BDT_CAUSE_PROBE_MISSED);
	}
	if (!thread || !thread->op) {
		if (!enter_late(slot, registers, number, result))
			return 0;
		thread = bpf_task_storage_get(&threads, task, NULL, 0);
		/* Where the filter has sent a signal instead of an answer, the registers are as they were. */
		if (result == (__s64)number)
			result = -ENOSYS;
	}
	if (!thread || !thread->op)
		return 0;
	/* These two are not left to ``leave``, since a chain of calls may not be longer than eight. */
	if (thread->op == BDT_OP_RECEIVE_FD) {
		thread->op = 0;
		emit_received(thread, result);
	} else if (thread->op == BDT_OP_IO_SUBMIT) {
		thread->op = 0;
		emit_iocbs(thread, result);
	} else {
		leave(thread, result);
	}
	return 0;
}

SEC("raw_tp/sys_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return returned(ctx->args[0], ctx->args[1]);
}

/*
 * The same two for kernels on which a task can lose the processor within a probe of the kind above. Until it goes on, the
 * kernel leaves that probe out for all other tasks on this processor. Probes of this kind can't be interrupted so; they
 * cost every call of the host a little more, and the loader attaches them only where they are needed.
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
