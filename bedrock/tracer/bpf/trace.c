// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "trace.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "clocks.h"
#include "gatekeeper.h"

#define IDLE_MIN_MS 1
#define IDLE_MAX_MS 32
#define FLUSH_NS NS_PER_S /* how much a killed tracer may take with it */

/* After a block has been written: see to it that the trace does not outgrow its size, and that errors are said. */
static void look_after_file(struct trace *t)
{
	struct written written = writer_state(t->writer);

	if (t->options.max_bytes && written.bytes >= t->options.max_bytes)
		set_full(t->probes, &t->target);
	if (written.error && written.error != t->told_errno) {
		t->told_errno = written.error;
		set_error(&t->status, "the trace can't be written: %s", strerror(written.error));
	}
}

/* Whether a record's two probes belong together, which the marks that they set on it leave open. */
static bool is_proven(struct trace *t, const struct bdt_call *call)
{
	if (nothing_missed(&t->proof, call->time_ns, call->time_ns + call->duration_ns))
		return true;
	t->unproven++;
	return false;
}

static int on_record(void *context, void *data, size_t size)
{
	const struct bdt_call *call = data;
	struct trace *t = context;
	struct bdt_call clean;

	(void)size;
	if (call->type == BDT_REC_CALL && call->flags & (SWITCHED | ENTRYLESS)) {
		if (!is_proven(t, call))
			return 0;
		/* The ring can't be written to. */
		clean = *call;
		clean.flags &= ~(SWITCHED | ENTRYLESS);
		data = &clean;
	}
	if (is_full(t->probes, &t->target))
		/* It was on its way when the trace reached its size. */
		t->size_lost++;
	else if (writer_append(t->writer, data))
		look_after_file(t);
	return 0;
}

static void append(struct trace *t, const void *record)
{
	t->total_records++;
	writer_append(t->writer, record);
}

static void flush(struct trace *t)
{
	writer_flush(t->writer);
	t->flushed_ns = clock_ns(CLOCK_MONOTONIC);
	look_after_file(t);
}

/* What has been seen and lost up to now, by the probes and by the loader. */
static void count(struct trace *t)
{
	struct written written = t->writer ? writer_state(t->writer) : (struct written){};
	struct counts counts = {};
	uint64_t skipped;

	if (t->target.number) {
		counts = read_counts(t->probes, &t->target);
		counts.by_cause[BDT_CAUSE_PROBE_MISSED] += t->unproven;
		/* Probes that were left out, and that were not found to have been this session's. */
		skipped = missed_probes(t->probes) - t->missed_before;
		skipped -= skipped < counts.by_cause[BDT_CAUSE_PROBE_MISSED] ? skipped :
									       counts.by_cause[BDT_CAUSE_PROBE_MISSED];
		counts.by_cause[BDT_CAUSE_PROBE_SKIPPED] = skipped;
		counts.seen += skipped;
	}
	/* And records that the loader makes itself. */
	counts.seen += t->total_records;
	counts.by_cause[BDT_CAUSE_END_UNSEEN] += t->unseen_ends;
	counts.by_cause[BDT_CAUSE_WRITE_ERROR] += written.lost;
	counts.by_cause[BDT_CAUSE_SIZE_LIMIT] += t->size_lost;
	t->status.counts = counts;
	t->status.written = written.records;
	t->status.written_bytes = written.bytes;
}

static void enter_state(struct trace *t, enum state state)
{
	count(t);
	write_status(&t->status, state);
	if (t->on_state)
		t->on_state(t);
}

static bool fail(struct trace *t, const char *sentence)
{
	set_error(&t->status, "%s", sentence);
	enter_state(t, FAILED);
	return false;
}

static bool open_output(struct trace *t)
{
	char path[PATH_MAX], sentence[MESSAGE_BYTES];

	snprintf(path, sizeof(path), "%s/trace.bdt", t->options.directory);
	t->status.realtime_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
	t->writer = writer_open(path, t->status.realtime_offset_ns);
	if (t->writer)
		return true;
	snprintf(sentence, sizeof(sentence), "%s can't be made: %s", path, strerror(errno));
	return fail(t, sentence);
}

static bool open_ring(struct trace *t)
{
	char sentence[MESSAGE_BYTES];

	if (!prepare_target(t->probes, &t->target, &t->options, sentence))
		return fail(t, sentence);
	t->missed_before = missed_probes(t->probes);
	begin_proof(&t->proof, t->probes);
	t->ring = ring_buffer__new(t->target.ring, on_record, t, NULL);
	if (t->ring)
		return true;
	snprintf(sentence, sizeof(sentence), "the ring can't be mapped: %s", strerror(errno));
	return fail(t, sentence);
}

static void append_start(struct trace *t)
{
	struct bdt_start start = { .size = sizeof(start), .type = BDT_REC_START };

	start.tid = t->status.target;
	start.time_ns = clock_ns(CLOCK_MONOTONIC);
	start.namespace = t->target.inum;
	start.level = t->target.level;
	start.mode = t->options.mode;
	start.is_filtered = t->options.ops || t->options.prefix_count;
	start.unsupported = t->probes->unsupported;
	append(t, &start);
}

static bool refuse(struct trace *t, struct gate *gate)
{
	t->status.exit_code = gate->exit_code;
	set_error(&t->status, "%s", gate->line);
	enter_state(t, EXEC_FAILED);
	return false;
}

/* Arm the probes for the target and let it go. False: there is nothing to follow; tracer.json says why, or a stop came. */
static bool open_gate(struct trace *t, struct gate *gate)
{
	char sentence[MESSAGE_BYTES];

	switch (wait_for_target(gate)) {
	case GATE_REFUSED:
		return refuse(t, gate);
	case GATE_BROKEN:
		return fail(t, gate->line);
	case GATE_STOPPED:
		return false;
	case GATE_READY:
		break;
	}
	t->status.target = gate->pid;
	if (!arm_target(t->probes, &t->target, gate->pid, sentence))
		return fail(t, sentence);
	append_start(t);
	t->status.t0_ns = clock_ns(CLOCK_MONOTONIC);
	switch (let_go(gate)) {
	case GATE_REFUSED:
		return refuse(t, gate);
	case GATE_READY:
		enter_state(t, RUNNING);
		return true;
	default:
		return false;
	}
}

static void follow(struct trace *t)
{
	int idle_ms = IDLE_MIN_MS;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = t->stop, .events = POLLIN },
			{ .fd = ring_buffer__epoll_fd(t->ring), .events = POLLIN },
		};
		int got = ring_buffer__consume(t->ring);

		if (writer_pending(t->writer) && clock_ns(CLOCK_MONOTONIC) - t->flushed_ns > FLUSH_NS)
			flush(t);
		idle_ms = got > 0 ? IDLE_MIN_MS : idle_ms * 2 < IDLE_MAX_MS ? idle_ms * 2 : IDLE_MAX_MS;
		if (poll(fds, 2, idle_ms) > 0 && fds[0].revents & POLLIN)
			return;
	}
}

/* Kinds of what the kernel keeps of sessions: where the session's number stands, and what becomes of an entry. */
struct kept {
	int map;
	size_t number_at; /* in the key, or in the value */
	bool in_value;
	void (*append)(struct trace *t, const void *key, void *value);
};

/*
 * Make records of this session's entries, and remove them. An entry is removed as soon as it is read: when another
 * session's thread removes one of its own meanwhile, the kernel may begin anew with the first.
 */
static void append_kept(struct trace *t, struct kept kept)
{
	uint64_t key[8], next[8];
	bool has_more = !bpf_map_get_next_key(kept.map, NULL, next);

	while (has_more) {
		union {
			struct bdt_file_total of_file;
			struct bdt_op_total of_op;
			struct request request;
		} value;
		uint32_t number;

		memcpy(key, next, sizeof(key));
		has_more = !bpf_map_get_next_key(kept.map, key, next);
		if (bpf_map_lookup_elem(kept.map, key, &value))
			continue;
		memcpy(&number, (kept.in_value ? (char *)&value : (char *)key) + kept.number_at, sizeof(number));
		if (number != t->target.number)
			continue;
		kept.append(t, key, &value);
		bpf_map_delete_elem(kept.map, key);
	}
}

/* The counts that mode SUMMARY has kept become records. */
static void append_total_of_file(struct trace *t, const void *at, void *value)
{
	struct bdt_file_total *total = value;
	const struct file_key *key = at;

	total->size = sizeof(*total);
	total->type = BDT_REC_FILE_TOTAL;
	total->time_ns = clock_ns(CLOCK_MONOTONIC);
	total->tid = total->tgid = key->tgid;
	total->inode = key->inode;
	total->device = key->device;
	total->link = key->link;
	total->generation = key->generation;
	total->started_ns = key->started_ns;
	append(t, total);
}

static void append_total_of_op(struct trace *t, const void *at, void *value)
{
	struct bdt_op_total *total = value;
	const struct op_key *key = at;

	total->size = sizeof(*total);
	total->type = BDT_REC_OP_TOTAL;
	total->time_ns = clock_ns(CLOCK_MONOTONIC);
	total->tid = total->tgid = key->tgid;
	total->op = key->op;
	total->started_ns = key->started_ns;
	append(t, total);
}

/* A request to an io_uring of which no end was seen is recorded as it was submitted. */
static void append_request(struct trace *t, const void *key, void *value)
{
	struct bdt_call record = { .size = sizeof(record), .type = BDT_REC_CALL };
	const struct request *request = value;

	(void)key;
	if (request->subject.flags & UNWANTED || !is_wanted(t->probes, &t->target, request->op))
		return;
	record.tid = request->tid;
	record.tgid = request->tgid;
	record.time_ns = request->time_ns;
	record.inode = request->subject.inode;
	record.device = request->subject.device;
	record.link = request->subject.link;
	record.offset = request->offset;
	record.requested = request->requested;
	record.arg = request->opcode;
	record.fd = request->fd;
	record.op = request->op;
	record.flags = (request->subject.flags & ~INTERNAL_FLAGS) | BDT_CALL_UNFINISHED;
	t->unseen_ends++;
	append(t, &record);
}

static void finish(struct trace *t)
{
	struct bdt_end end = { .size = sizeof(end), .type = BDT_REC_END };
	char missed[1024];
	int error;

	disarm_target(t->probes, &t->target);
	while (ring_buffer__consume(t->ring) > 0)
		;
	if (t->options.mode == BDT_MODE_SUMMARY) {
		append_kept(t, (struct kept){ totals_of_files(t->probes), offsetof(struct file_key, session), false,
					      append_total_of_file });
		append_kept(t, (struct kept){ totals_of_ops(t->probes), offsetof(struct op_key, session), false,
					      append_total_of_op });
	}
	append_kept(t, (struct kept){ requests_under_way(t->probes), offsetof(struct request, session), true,
				      append_request });
	flush(t);
	count(t);
	end.time_ns = clock_ns(CLOCK_MONOTONIC);
	end.seen = t->status.counts.seen;
	end.written = t->status.written;
	append(t, &end);
	flush(t);
	error = writer_sync(t->writer);
	t->status.synced = !error;
	if (error && !t->status.error[0])
		set_error(&t->status, "the trace can't be synced: %s", strerror(error));
	enter_state(t, ENDED);
	if (t->status.counts.by_cause[BDT_CAUSE_PROBE_SKIPPED]) {
		describe_misses(t->probes, missed, sizeof(missed));
		fprintf(t->status.log, "bdtrace: probes that the kernel left out since they were attached: %s\n", missed);
	}
}

bool run_trace(struct trace *t)
{
	struct gate gate = { .stop = t->stop, .listener = -1, .socket = -1 };

	t->status.directory = t->options.directory;
	t->status.mode = t->options.mode;
	t->status.unsupported = t->probes->unsupported;
	t->status.attach_ms = t->probes->attach_ms;
	if (open_output(t) && open_ring(t)) {
		if (listen_for_gate(&gate, t->options.directory)) {
			enter_state(t, ATTACHED);
			if (open_gate(t, &gate))
				follow(t);
			if (t->status.state == RUNNING || t->status.state == ATTACHED)
				finish(t);
		} else {
			fail(t, gate.line);
		}
	}
	close_gate(&gate);
	if (t->ring)
		ring_buffer__free(t->ring);
	if (t->target.number)
		release_target(t->probes, &t->target);
	if (t->writer)
		writer_close(t->writer);
	return t->status.state != FAILED;
}
