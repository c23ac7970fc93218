// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Requests to an io_uring, from their submission to their completion. */
#pragma once

#include "records.bpf.h"

/* The operations that are told apart, of enum io_uring_op, which is an interface to user space. */
static __always_inline __u16 op_of_uring(__u8 opcode)
{
	switch (opcode) {
	case 1: /* READV */
	case 4: /* READ_FIXED */
	case 22: /* READ */
	case READ_MULTISHOT:
	case 60: /* READV_FIXED */
		return BDT_OP_URING_READ;
	case 2: /* WRITEV */
	case 5: /* WRITE_FIXED */
	case 23: /* WRITE */
	case 61: /* WRITEV_FIXED */
		return BDT_OP_URING_WRITE;
	case 3: /* FSYNC */
		return BDT_OP_URING_FSYNC;
	case 17: /* FALLOCATE */
		return BDT_OP_URING_FALLOCATE;
	case 18: /* OPENAT */
	case 28: /* OPENAT2 */
		return BDT_OP_URING_OPEN;
	case 19: /* CLOSE */
		return BDT_OP_URING_CLOSE;
	case 21: /* STATX */
		return BDT_OP_URING_STAT;
	case 35: /* RENAMEAT */
		return BDT_OP_URING_RENAME;
	case 36: /* UNLINKAT */
		return BDT_OP_URING_UNLINK;
	case 37: /* MKDIRAT */
		return BDT_OP_URING_MKDIR;
	case 38: /* SYMLINKAT */
		return BDT_OP_URING_SYMLINK;
	case 39: /* LINKAT */
		return BDT_OP_URING_LINK;
	case 55: /* FTRUNCATE */
		return BDT_OP_URING_TRUNCATE;
	}
	return BDT_OP_URING_OTHER;
}

/* The paths of a request, which the kernel has read already, and the directory from which the first one counts. */
struct request_paths {
	__u64 first;
	__u64 second;
	__s32 base;
	__s32 second_base;
};

#define NO_PATH -1 /* as a second base: what is second is not a path */
/* The name of a request: until 6.19 its struct points to it, from 7.0 on through a struct of its own. */
#define NAME_OF(type, field)                                                                                     \
	(bpf_core_field_exists(((struct type##___delayed *)io)->field.__incomplete_filename) ?                   \
		 (__u64)BPF_CORE_READ((struct type##___delayed *)io, field.__incomplete_filename, name) :        \
	 bpf_core_field_exists(((struct type *)io)->field) ? (__u64)BPF_CORE_READ((struct type *)io, field, name) : \
							     0)
#define PATHS(type, dfd_field, first_field, second_field)                       \
	do {                                                                    \
		paths->first = NAME_OF(type, first_field);                      \
		paths->second = NAME_OF(type, second_field);                    \
		if (paths->first)                                               \
			paths->base = BPF_CORE_READ((struct type *)io, dfd_field); \
		paths->second_base = NO_PATH;                                   \
	} while (0)

static __always_inline void find_paths(struct request_paths *paths, __u64 io, __u16 op)
{
	if (op == BDT_OP_URING_OPEN)
		PATHS(io_open, dfd, filename, filename);
	else if (op == BDT_OP_URING_STAT)
		PATHS(io_statx, dfd, filename, filename);
	else if (op == BDT_OP_URING_UNLINK)
		PATHS(io_unlink, dfd, filename, filename);
	else if (op == BDT_OP_URING_MKDIR)
		PATHS(io_mkdir, dfd, filename, filename);
	else if (op == BDT_OP_URING_RENAME)
		PATHS(io_rename, old_dfd, oldpath, newpath);
	else if (op == BDT_OP_URING_LINK)
		PATHS(io_link, old_dfd, oldpath, newpath);
	else if (op == BDT_OP_URING_SYMLINK)
		/* What is made is the new path; what stands in it is no path that is looked up. */
		PATHS(io_link, new_dfd, newpath, oldpath);
	if (paths->second == paths->first)
		paths->second = 0;
	else if (op == BDT_OP_URING_RENAME)
		paths->second_base = BPF_CORE_READ((struct io_rename *)io, new_dfd);
	else if (op == BDT_OP_URING_LINK)
		paths->second_base = BPF_CORE_READ((struct io_link *)io, new_dfd);
}

static __always_inline void emit_paths(struct thread *thread, struct request *request, struct request_paths *paths)
{
	char first = 0;

	request->has_path = 1;
	if (session_at(thread->slot)->mode != BDT_MODE_EVENTS)
		return;
	bpf_probe_read_kernel(&first, 1, (void *)paths->first);
	emit_string(thread, paths->first, FROM_KERNEL);
	note_base(thread, &request->subject, first, paths->base);
	if (!paths->second)
		return;
	bpf_probe_read_kernel(&first, 1, (void *)paths->second);
	forget(&thread->to);
	if (paths->second_base != NO_PATH)
		note_base(thread, &thread->to, first, paths->second_base);
	emit_string(thread, paths->second, FROM_KERNEL | IS_SECOND);
}

/* Write a request that has ended. ``thread`` is whoever's context this is: it lends the room. */
int __noinline emit_request(struct thread *thread, struct request *request, __u64 now, __s64 result)
{
	struct bdt_call *values;

	if (!thread || !request || !session_at(request->slot)->wants[request->op & (OPS - 1)])
		return 0;
	if (request->subject.flags & UNWANTED) {
		count_filtered(request->slot);
		return 0;
	}
	if (request->subject.flags & BDT_CALL_UNFINISHED)
		count_cause(request->slot, BDT_CAUSE_END_UNSEEN);
	clear_values(thread, request->op);
	values = &thread->values;
	values->tid = request->tid;
	values->tgid = request->tgid;
	values->time_ns = request->time_ns;
	values->duration_ns = now - request->time_ns;
	values->result = result;
	if (tally(thread, &request->subject, result))
		return 0;
	values->inode = request->subject.inode;
	values->offset = request->offset;
	values->requested = request->requested ? request->requested : result > 0 ? result : 0;
	values->arg = request->opcode;
	values->device = request->subject.device;
	values->link = request->subject.link;
	values->fd = request->fd;
	values->flags = request->subject.flags & ~INTERNAL_FLAGS;
	write_values(thread);
	return 0;
}

/*
 * A request has ended without telling anybody: it was to be silent about success, or there was no room to tell. What the
 * kernel kept of it is used for the next one.
 */
static __always_inline void end_unseen(struct thread *thread, __u64 key)
{
	struct request *request = bpf_map_lookup_elem(&requests, &key);

	if (!request)
		return;
	if (request->session == thread->session) {
		request->subject.flags |= BDT_CALL_UNFINISHED;
		emit_request(thread, request, request->time_ns, 0);
	}
	bpf_map_delete_elem(&requests, &key);
}

/* Take down the numbers of a request, which stand where its kind has them. */
static __always_inline void take_sizes(struct request *request, __u64 key)
{
	struct io_rw *rw = (struct io_rw *)key;

	switch (request->op) {
	case BDT_OP_URING_READ:
	case BDT_OP_URING_WRITE:
		request->offset = BPF_CORE_READ(rw, kiocb.ki_pos);
		/* For a vector this is the number of its parts. */
		if (request->opcode > 2)
			request->requested = BPF_CORE_READ(rw, len);
		request->appends = request->op == BDT_OP_URING_WRITE && BPF_CORE_READ(rw, flags) & RWF_APPEND;
		break;
	case BDT_OP_URING_FALLOCATE:
		request->offset = BPF_CORE_READ((struct io_sync *)key, off);
		request->requested = BPF_CORE_READ((struct io_sync *)key, len);
		break;
	case BDT_OP_URING_TRUNCATE:
		if (bpf_core_type_exists(struct io_ftrunc))
			request->requested = BPF_CORE_READ((struct io_ftrunc *)key, len);
		break;
	case BDT_OP_URING_OPEN:
		request->has_slot = BPF_CORE_READ((struct io_open *)key, file_slot) != 0;
		break;
	case BDT_OP_URING_CLOSE:
		request->has_slot = BPF_CORE_READ((struct io_close *)key, file_slot) != 0;
		break;
	}
}

/* Fill in a request that is being submitted, whose operation and session are known. */
int __noinline take_request(struct thread *thread, struct request *request, __u64 key)
{
	struct io_kiocb *io = (struct io_kiocb *)key;
	struct request_paths paths = {};
	__u64 file;

	if (!thread || !request)
		return 0;
	take_sizes(request, key);
	if (session_at(thread->slot)->wants[request->op & (OPS - 1)])
		find_paths(&paths, key, request->op);
	if (paths.first) {
		emit_paths(thread, request, &paths);
	} else if (!request->has_slot && !(BPF_CORE_READ(io, flags) & REQ_F_FIXED_FILE)) {
		request->fd = request->op == BDT_OP_URING_CLOSE ? BPF_CORE_READ((struct io_close *)key, fd) :
								  BPF_CORE_READ(io, cqe.fd);
		file = file_of(request->fd);
		if (file) {
			note_file(thread, &request->subject, file, IF_NEW);
			request->size_before = size_of(file);
		}
	}
	return 0;
}

static __always_inline int submitted(__u64 key)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct io_kiocb *io = (struct io_kiocb *)key;
	struct request *request;
	struct thread *thread;
	__u64 now;
	int slot = slot_of(task, &thread);
	__u8 opcode;
	__u16 op;

	if (slot < 0 || !session_at(slot)->has_begun)
		return 0;
	now = bpf_ktime_get_ns();
	opcode = BPF_CORE_READ(io, opcode);
	op = op_of_uring(opcode);
	thread = known_thread(task, slot, thread, now);
	if (!thread)
		return 0;
	end_unseen(thread, key);
	/* A request that does nothing, and waiting for a clock, are no file's business. */
	if ((!session_at(slot)->wants[op & (OPS - 1)] && !changes_tree(op)) || !opcode)
		return 0;
	if (bpf_map_update_elem(&requests, &key, &no_request, BPF_ANY)) {
		count_lost(slot, BDT_CAUSE_MAP_FULL);
		return 0;
	}
	request = bpf_map_lookup_elem(&requests, &key);
	if (!request)
		return 0;
	request->time_ns = thread->time_ns = thread->noted_ns = now;
	request->user_data = BPF_CORE_READ(io, cqe.user_data);
	request->started_ns = thread->started_ns;
	request->session = thread->session;
	request->slot = slot;
	request->tid = task->pid;
	request->tgid = task->tgid;
	request->offset = -1;
	request->fd = -1;
	request->opcode = opcode;
	request->op = op;
	take_request(thread, request, key);
	return 0;
}

SEC("raw_tp/io_uring_submit_req")
int on_uring_submit(struct bpf_raw_tracepoint_args *ctx)
{
	return submitted(ctx->args[0]);
}

/* Before 6.3 the tracepoint of a submission had this name. */
SEC("raw_tp/io_uring_submit_sqe")
int on_uring_submit_sqe(struct bpf_raw_tracepoint_args *ctx)
{
	return submitted(ctx->args[0]);
}

struct request_event {
	__u64 common;
	__u64 ring;
	__u64 request;
};

SEC("tp/io_uring/io_uring_submit_req")
int on_uring_submit_event(struct request_event *ctx)
{
	return submitted(ctx->request);
}

/* What a request came to. ``thread`` is kept of whichever task this runs in. */
int __noinline completed(struct thread *thread, struct request *request, __u64 key)
{
	struct io_kiocb *io = (struct io_kiocb *)key;
	struct file *registered;
	__s64 result;
	__u64 file;

	if (!thread || !request)
		return 0;
	thread->noted_ns = request->time_ns;
	result = BPF_CORE_READ(io, cqe.res);
	registered = BPF_CORE_READ(io, file);
	if (request->op == BDT_OP_URING_OPEN) {
		request->fd = result >= 0 && !request->has_slot ? result : -1;
		file = file_of(request->fd);
		if (file)
			note_file(thread, &request->subject, file, session_at(request->slot)->mode == BDT_MODE_EVENTS ? ALWAYS : IF_ANOTHER);
	} else if (registered && !request->has_path && request->op != BDT_OP_URING_CLOSE) {
		/* Also of a file that was registered with the ring and has no descriptor. */
		note_file(thread, &request->subject, (__u64)registered, IF_ANOTHER);
	}
	if (request->appends)
		request->subject.flags |= BDT_CALL_APPEND;
	if (request->op != BDT_OP_URING_READ && request->op != BDT_OP_URING_WRITE && request->op != BDT_OP_URING_FALLOCATE)
		request->subject.flags &= ~BDT_CALL_HAS_OFFSET;
	else if (request->op == BDT_OP_URING_WRITE && request->subject.flags & BDT_CALL_APPEND)
		request->offset = appended_at(&request->subject, request->size_before, result);
	else if (request->offset == -1 && request->subject.flags & BDT_CALL_HAS_OFFSET)
		request->offset = request->subject.position - (result > 0 ? result : 0);
	if (changes_tree(request->op) && !result)
		__sync_fetch_and_add(&session_at(request->slot)->tree_changes, 1);
	/* It has read more often than this once. */
	if (request->opcode == READ_MULTISHOT)
		request->subject.flags |= BDT_CALL_UNFINISHED;
	emit_request(thread, request, bpf_ktime_get_ns(), result);
	return 0;
}

/* A completion may come in any task's context; what is known of the request's own is in the map. */
static __always_inline int finished(__u64 key)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct request *request;
	struct thread *thread;

	if (lowest_level == ~0U || !key)
		return 0;
	request = bpf_map_lookup_elem(&requests, &key);
	if (!request)
		return 0;
	if (session_at(request->slot)->number != request->session) {
		/* Of a session that has ended. */
		bpf_map_delete_elem(&requests, &key);
		return 0;
	}
	thread = bpf_task_storage_get(&threads, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		count_lost(request->slot, BDT_CAUSE_MAP_FULL);
		bpf_map_delete_elem(&requests, &key);
		return 0;
	}
	if (thread->session != request->session) {
		/* A task that completes requests for others: only its room is used. */
		thread->session = 0;
		thread->slot = request->slot;
		thread->started_ns = request->started_ns;
	}
	if (request->user_data != BPF_CORE_READ((struct io_kiocb *)key, cqe.user_data)) {
		request->subject.flags |= BDT_CALL_UNFINISHED;
		emit_request(thread, request, request->time_ns, 0);
	} else {
		completed(thread, request, key);
	}
	bpf_map_delete_elem(&requests, &key);
	return 0;
}

SEC("raw_tp/io_uring_complete")
int on_uring_complete(struct bpf_raw_tracepoint_args *ctx)
{
	return finished(ctx->args[1]);
}

SEC("tp/io_uring/io_uring_complete")
int on_uring_complete_event(struct request_event *ctx)
{
	return finished(ctx->request);
}
