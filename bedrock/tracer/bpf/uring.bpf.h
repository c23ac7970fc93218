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
	case 49: /* READ_MULTISHOT */
		return BDT_OP_URING_READ;
	case 2: /* WRITEV */
	case 5: /* WRITE_FIXED */
	case 23: /* WRITE */
		return BDT_OP_URING_WRITE;
	case 3: /* FSYNC */
		return BDT_OP_URING_FSYNC;
	case 18: /* OPENAT */
	case 28: /* OPENAT2 */
		return BDT_OP_URING_OPEN;
	case 19: /* CLOSE */
		return BDT_OP_URING_CLOSE;
	case 21: /* STATX */
		return BDT_OP_URING_STAT;
	}
	return BDT_OP_URING_OTHER;
}

SEC("raw_tp/io_uring_submit_req")
int on_uring_submit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct io_kiocb *io = (struct io_kiocb *)ctx->args[0];
	struct request request = {};
	__u64 key = ctx->args[0], file;
	struct io_rw *rw = (struct io_rw *)key;
	__u16 op;

	if (!has_begun || !is_target(task))
		return 0;
	request.opcode = BPF_CORE_READ(io, opcode);
	op = op_of_uring(request.opcode);
	/* A request that does nothing, and waiting for a clock, are no file's business. */
	if (!wants[op & 127] || !request.opcode)
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
	}
	if (op == BDT_OP_URING_OPEN)
		request.name = (__u64)BPF_CORE_READ((struct io_open *)key, filename, name);
	if (op == BDT_OP_URING_STAT)
		request.name = (__u64)BPF_CORE_READ((struct io_statx *)key, filename, name);
	if (request.name) {
		if (mode == BDT_MODE_EVENTS)
			emit_string(request.name, 0, 0, request.time_ns, task->pid);
	} else {
		request.fd = op == BDT_OP_URING_CLOSE ? BPF_CORE_READ((struct io_close *)key, fd) : BPF_CORE_READ(io, cqe.fd);
		file = file_of(task, request.fd);
		if (file)
			note_file(&request.subject, file, request.time_ns, task->pid, false);
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
	__u64 key = ctx->args[1], now, file;
	struct io_kiocb *io = (struct io_kiocb *)key;
	struct request *request;
	struct bdt_call *record;
	struct file *registered;
	__s64 result;

	if (!has_begun || !target_inum || !key)
		return 0;
	request = bpf_map_lookup_elem(&requests, &key);
	if (!request)
		return 0;
	now = bpf_ktime_get_ns();
	result = BPF_CORE_READ(io, cqe.res);
	registered = BPF_CORE_READ(io, file);
	if (request->op == BDT_OP_URING_OPEN) {
		file = result >= 0 ? file_of(bpf_get_current_task_btf(), result) : 0;
		if (file)
			note_file(&request->subject, file, request->time_ns, request->tid, true);
		request->fd = result >= 0 ? result : -1;
	} else if (registered && !request->name && request->op != BDT_OP_URING_CLOSE) {
		/* Also of a file that was registered with the ring and has no descriptor. */
		note_file(&request->subject, (__u64)registered, request->time_ns, request->tid, false);
	}
	if (request->op != BDT_OP_URING_READ && request->op != BDT_OP_URING_WRITE)
		request->subject.flags &= ~BDT_CALL_HAS_OFFSET;
	if (request->offset == -1 && request->subject.flags & BDT_CALL_HAS_OFFSET)
		request->offset = request->subject.position - (result > 0 ? result : 0);
	if (request->subject.flags & UNWANTED) {
		count_filtered();
	} else if (!tally(request->tgid, &request->subject, request->time_ns, now - request->time_ns, result, request->op)) {
		record = reserve(sizeof(*record));
		if (record) {
			record->size = sizeof(*record);
			record->type = BDT_REC_CALL;
			record->tid = request->tid;
			record->time_ns = request->time_ns;
			record->duration_ns = now - request->time_ns;
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
	}
	bpf_map_delete_elem(&requests, &key);
	return 0;
}
