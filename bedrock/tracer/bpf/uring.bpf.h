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

#define NO_PATH -1 /* as a second base: what is second is no path */
#define PATHS(type, dfd_field, first_field, second_field)                                                       \
	do {                                                                                                     \
		struct type *it = (struct type *)io;                                                             \
		if (bpf_core_field_exists(it->first_field)) {                                                    \
			paths->first = (__u64)BPF_CORE_READ(it, first_field, name);                              \
			paths->second = (__u64)BPF_CORE_READ(it, second_field, name);                            \
			paths->base = BPF_CORE_READ(it, dfd_field);                                              \
			paths->second_base = NO_PATH;                                                            \
		}                                                                                                \
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

static __always_inline void tell_paths(struct request *request, struct request_paths *paths)
{
	struct subject directory = {};
	char first = 0;

	request->has_path = 1;
	if (mode != BDT_MODE_EVENTS)
		return;
	bpf_probe_read_kernel(&first, 1, (void *)paths->first);
	emit_string(NULL, paths->first, FROM_KERNEL, request->time_ns, request->tid);
	note_base(&request->subject, first, paths->base, request->time_ns);
	if (!paths->second)
		return;
	bpf_probe_read_kernel(&first, 1, (void *)paths->second);
	if (paths->second_base != NO_PATH)
		note_base(&directory, first, paths->second_base, request->time_ns);
	emit_string(&directory, paths->second, FROM_KERNEL | IS_SECOND, request->time_ns, request->tid);
}

static __always_inline void emit_request(struct request *request, __u64 now, __s64 result)
{
	__u64 duration_ns = now - request->time_ns;
	struct bdt_call *record;

	if (!wants[request->op & 127])
		return;
	if (request->subject.flags & UNWANTED) {
		count_filtered();
		return;
	}
	if (request->subject.flags & BDT_CALL_UNFINISHED)
		count_cause(BDT_CAUSE_END_UNSEEN);
	if (tally(request->tgid, &request->subject, request->time_ns, duration_ns, result, request->op))
		return;
	record = reserve(sizeof(*record));
	if (!record)
		return;
	record->size = sizeof(*record);
	record->type = BDT_REC_CALL;
	record->tid = request->tid;
	record->time_ns = request->time_ns;
	record->duration_ns = duration_ns;
	record->result = result;
	record->inode = request->subject.inode;
	record->offset = request->offset;
	record->requested = request->requested ? request->requested : result > 0 ? result : 0;
	record->arg = request->opcode;
	record->device = request->subject.device;
	record->fd = request->fd;
	record->tgid = request->tgid;
	record->op = request->op;
	record->flags = request->subject.flags & ~UNWANTED;
	bpf_ringbuf_submit(record, wakeup());
}

/*
 * A request has ended without telling anybody: it was to be silent about success, or there was no room to tell. What the
 * kernel kept of it is used for the next one.
 */
static __always_inline void end_unseen(__u64 key)
{
	struct request *request = bpf_map_lookup_elem(&requests, &key);

	if (!request)
		return;
	request->subject.flags |= BDT_CALL_UNFINISHED;
	emit_request(request, request->time_ns, 0);
	bpf_map_delete_elem(&requests, &key);
}

SEC("raw_tp/io_uring_submit_req")
int on_uring_submit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct io_kiocb *io = (struct io_kiocb *)ctx->args[0];
	struct request request = {};
	struct request_paths paths = {};
	__u64 key = ctx->args[0], file;
	struct io_rw *rw = (struct io_rw *)key;
	__u16 op;

	if (!has_begun || !is_target_task())
		return 0;
	end_unseen(key);
	request.opcode = BPF_CORE_READ(io, opcode);
	request.user_data = BPF_CORE_READ(io, cqe.user_data);
	op = op_of_uring(request.opcode);
	/* A request that does nothing, and waiting for a clock, are no file's business. */
	if ((!wants[op & 127] && !changes_tree(op)) || !request.opcode)
		return 0;
	request.op = op;
	request.time_ns = bpf_ktime_get_ns();
	request.tid = task->pid;
	request.tgid = task->tgid;
	request.offset = -1;
	request.fd = -1;
	if (!call_of(task, request.time_ns))
		return 0;
	if (op == BDT_OP_URING_READ || op == BDT_OP_URING_WRITE) {
		request.offset = BPF_CORE_READ(rw, kiocb.ki_pos);
		/* Of a vector this is the number of its parts. */
		if (request.opcode > 2)
			request.requested = BPF_CORE_READ(rw, len);
	} else if (op == BDT_OP_URING_FALLOCATE) {
		request.offset = BPF_CORE_READ((struct io_sync *)key, off);
		request.requested = BPF_CORE_READ((struct io_sync *)key, len);
	} else if (op == BDT_OP_URING_TRUNCATE && bpf_core_type_exists(struct io_ftrunc)) {
		request.requested = BPF_CORE_READ((struct io_ftrunc *)key, len);
	} else if (op == BDT_OP_URING_OPEN) {
		request.has_slot = BPF_CORE_READ((struct io_open *)key, file_slot) != 0;
	} else if (op == BDT_OP_URING_CLOSE) {
		request.has_slot = BPF_CORE_READ((struct io_close *)key, file_slot) != 0;
	}
	if (wants[op & 127])
		find_paths(&paths, key, op);
	if (paths.first) {
		tell_paths(&request, &paths);
	} else if (!request.has_slot && !(BPF_CORE_READ(io, flags) & REQ_F_FIXED_FILE)) {
		request.fd = op == BDT_OP_URING_CLOSE ? BPF_CORE_READ((struct io_close *)key, fd) : BPF_CORE_READ(io, cqe.fd);
		file = file_of(request.fd);
		if (file)
			note_file(&request.subject, file, request.time_ns, IF_NEW);
	}
	if (bpf_map_update_elem(&requests, &key, &request, BPF_ANY)) {
		count_seen();
		count_cause(BDT_CAUSE_MAP_FULL);
	}
	return 0;
}

/* A completion may come in any task's context; what is known of the request's own is in the map. */
SEC("raw_tp/io_uring_complete")
int on_uring_complete(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 key = ctx->args[1], file;
	struct io_kiocb *io = (struct io_kiocb *)key;
	struct request *request;
	struct file *registered;
	__s64 result;

	if (!has_begun || !target_inum || !key)
		return 0;
	request = bpf_map_lookup_elem(&requests, &key);
	if (!request)
		return 0;
	if (request->user_data != BPF_CORE_READ(io, cqe.user_data)) {
		end_unseen(key);
		return 0;
	}
	result = BPF_CORE_READ(io, cqe.res);
	registered = BPF_CORE_READ(io, file);
	if (request->op == BDT_OP_URING_OPEN) {
		request->fd = result >= 0 && !request->has_slot ? result : -1;
		file = file_of(request->fd);
		if (file)
			note_file(&request->subject, file, request->time_ns, mode == BDT_MODE_EVENTS ? ALWAYS : IF_ANOTHER);
	} else if (registered && !request->has_path && request->op != BDT_OP_URING_CLOSE) {
		/* Also of a file that was registered with the ring and has no descriptor. */
		note_file(&request->subject, (__u64)registered, request->time_ns, IF_ANOTHER);
	}
	if (request->op != BDT_OP_URING_READ && request->op != BDT_OP_URING_WRITE && request->op != BDT_OP_URING_FALLOCATE)
		request->subject.flags &= ~BDT_CALL_HAS_OFFSET;
	else if (request->offset == -1 && request->subject.flags & BDT_CALL_HAS_OFFSET)
		request->offset = request->subject.position - (result > 0 ? result : 0);
	if (changes_tree(request->op) && !result)
		__sync_fetch_and_add(&tree_changes, 1);
	/* It has read more often than this once. */
	if (request->opcode == READ_MULTISHOT)
		request->subject.flags |= BDT_CALL_UNFINISHED;
	emit_request(request, bpf_ktime_get_ns(), result);
	bpf_map_delete_elem(&requests, &key);
	return 0;
}
