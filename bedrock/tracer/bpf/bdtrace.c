// SPDX-License-Identifier: Apache-2.0
/*
 * bdtrace: loads the probes, opens the target's gate, and writes what the probes record to a file.
 *
 *	bdtrace --container NAME -o DIRECTORY [--mode events|summary] [--path PREFIX]... [--ops N,N,...]
 *		[--max-bytes N] [--ring-bytes N]
 *
 * It attaches first, then waits for the gate's connection on DIRECTORY/.gate/sock, learns from the kernel which process
 * that is and in which PID namespace it lives, arms the probes for that namespace, and lets it go. It ends on SIGTERM,
 * after having drained everything that was recorded. At each stage DIRECTORY/tracer.json says where it is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bdt_format.h"
#include "bdtrace.skel.h"
#include "calls.h"
#include "tracer.h"

#define IDLE_MIN_MS 1
#define IDLE_MAX_MS 32
#define FLUSH_NS NS_PER_S /* how much a killed tracer may take with it */

int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* After a block has been written: see to it that the trace does not outgrow its size, and that errors are told. */
static void heed_file(struct tracer *t)
{
	struct written written = writer_state(t->writer);

	if (t->wishes.max_bytes && written.bytes >= t->wishes.max_bytes)
		__atomic_store_n(&t->probes->bss->is_full, 1, __ATOMIC_SEQ_CST);
	if (written.error && written.error != t->told_errno) {
		t->told_errno = written.error;
		set_error(t, "the trace can't be written: %s", strerror(written.error));
	}
}

static int on_record(void *context, void *data, size_t size)
{
	struct tracer *t = context;

	(void)size;
	if (t->probes->bss->is_full)
		/* It was on its way when the trace reached its size. */
		t->size_lost++;
	else if (writer_append(t->writer, data))
		heed_file(t);
	return 0;
}

static void flush(struct tracer *t)
{
	writer_flush(t->writer);
	t->flushed_ns = clock_ns(CLOCK_MONOTONIC);
	heed_file(t);
}

static bool open_output(struct tracer *t)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/trace.bdt", t->wishes.directory);
	t->realtime_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
	t->writer = writer_open(path, t->realtime_offset_ns);
	if (!t->writer)
		set_error(t, "%s can't be made: %s", path, strerror(errno));
	return t->writer;
}

static void follow(struct tracer *t)
{
	int idle_ms = IDLE_MIN_MS;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = t->signals, .events = POLLIN },
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

/* The counts that mode SUMMARY has kept in the kernel become records. */
static void append_totals(struct tracer *t, struct bpf_map *map, uint16_t type, uint16_t size)
{
	struct {
		struct bdt_file_total value;
		uint64_t key[3];
		uint64_t next[3];
	} at;
	int fd = bpf_map__fd(map);
	void *before = NULL;

	while (!bpf_map_get_next_key(fd, before, at.next)) {
		memcpy(at.key, at.next, sizeof(at.key));
		before = at.key;
		if (bpf_map_lookup_elem(fd, at.key, &at.value))
			continue;
		at.value.size = size;
		at.value.type = type;
		at.value.time_ns = clock_ns(CLOCK_MONOTONIC);
		if (type == BDT_REC_FILE_TOTAL) {
			at.value.inode = at.key[0];
			at.value.device = at.key[1];
			at.value.tgid = at.key[1] >> 32;
			at.value.generation = at.key[2];
			at.value.tid = at.value.tgid;
		} else {
			struct bdt_op_total *total = (struct bdt_op_total *)&at.value;

			total->tgid = total->tid = at.key[0];
			total->op = at.key[0] >> 32;
		}
		t->total_records++;
		writer_append(t->writer, &at.value);
	}
}

/* Requests to an io_uring of which no end was seen are told as they were submitted. */
static void append_requests(struct tracer *t)
{
	int fd = bpf_map__fd(t->probes->maps.requests);
	uint64_t key, next;
	void *before = NULL;

	while (!bpf_map_get_next_key(fd, before, &next)) {
		struct bdt_call record = { .size = sizeof(record), .type = BDT_REC_CALL };
		struct request request;

		key = next;
		before = &key;
		if (bpf_map_lookup_elem(fd, &key, &request) || request.subject.flags & UNWANTED ||
		    !t->probes->rodata->wants[request.op])
			continue;
		record.tid = request.tid;
		record.tgid = request.tgid;
		record.time_ns = request.time_ns;
		record.inode = request.subject.inode;
		record.device = request.subject.device;
		record.offset = request.offset;
		record.requested = request.requested;
		record.arg = request.opcode;
		record.fd = request.fd;
		record.op = request.op;
		record.flags = request.subject.flags | BDT_CALL_UNFINISHED;
		t->total_records++;
		t->unseen_ends++;
		writer_append(t->writer, &record);
	}
}

static void finish(struct tracer *t)
{
	struct bdt_end end = { .size = sizeof(end), .type = BDT_REC_END };
	int error;

	__atomic_store_n(&t->probes->bss->target_inum, 0, __ATOMIC_SEQ_CST);
	while (ring_buffer__consume(t->ring) > 0)
		;
	if (t->wishes.mode == BDT_MODE_SUMMARY) {
		append_totals(t, t->probes->maps.file_totals, BDT_REC_FILE_TOTAL, sizeof(struct bdt_file_total));
		append_totals(t, t->probes->maps.op_totals, BDT_REC_OP_TOTAL, sizeof(struct bdt_op_total));
	}
	append_requests(t);
	flush(t);
	end.time_ns = clock_ns(CLOCK_MONOTONIC);
	end.seen = read_counts(t).seen;
	end.written = writer_state(t->writer).records;
	t->total_records++;
	writer_append(t->writer, &end);
	flush(t);
	error = writer_sync(t->writer);
	t->synced = !error;
	if (error && !t->error[0])
		set_error(t, "the trace can't be synced: %s", strerror(error));
	write_status(t, ENDED);
}

static uint32_t parse_ring(const char *text)
{
	unsigned long wanted = strtoul(text, NULL, 10), size = sysconf(_SC_PAGESIZE);

	/* The kernel takes powers of two of whole pages. */
	while (size < wanted && size < 1UL << 30)
		size *= 2;
	return size;
}

static bool parse_arguments(struct wishes *wishes, int argc, char **argv)
{
	if (argc % 2 == 0)
		return false;
	for (int i = 1; i < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];

		if (!strcmp(name, "-o"))
			wishes->directory = value;
		else if (!strcmp(name, "--ring-bytes"))
			wishes->ring_bytes = parse_ring(value);
		else if (!strcmp(name, "--mode"))
			wishes->mode = !strcmp(value, "summary") ? BDT_MODE_SUMMARY : BDT_MODE_EVENTS;
		else if (!strcmp(name, "--max-bytes"))
			wishes->max_bytes = strtoull(value, NULL, 10);
		else if (!strcmp(name, "--ops"))
			wishes->ops = value;
		else if (!strcmp(name, "--path") && wishes->prefix_count < BDT_MAX_PREFIXES)
			wishes->prefixes[wishes->prefix_count++] = value;
		else if (strcmp(name, "--container"))
			return false;
	}
	return true;
}

/* What the self-test of `bedrock doctor` runs as a target: there may be no other program that any image can hold. */
static int print_file(const char *path)
{
	char bytes[4096];
	ssize_t got = -1;
	int fd = open(path, O_RDONLY);

	while (fd >= 0 && (got = read(fd, bytes, sizeof(bytes))) > 0)
		if (write(STDOUT_FILENO, bytes, got) != got)
			return 1;
	close(fd);
	return got != 0;
}

int main(int argc, char **argv)
{
	struct tracer t = {
		.listener = -1,
		.wishes = { .directory = "/logs", .ring_bytes = 32 << 20, .mode = BDT_MODE_EVENTS },
	};
	sigset_t ending;

	if (argc == 3 && !strcmp(argv[1], "--print"))
		return print_file(argv[2]);
	if (!parse_arguments(&t.wishes, argc, argv)) {
		fprintf(stderr, "usage: bdtrace --container NAME -o DIRECTORY [--mode events|summary] [--path PREFIX]...\n"
				"               [--ops N,N,...] [--max-bytes N] [--ring-bytes N]\n");
		return 2;
	}
	/* As PID 1 of a container we get no signal that we don't ask for. */
	sigemptyset(&ending);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGINT);
	sigprocmask(SIG_BLOCK, &ending, NULL);
	signal(SIGPIPE, SIG_IGN);
	t.signals = signalfd(-1, &ending, SFD_CLOEXEC);
	if (!open_output(&t) || !attach(&t, on_record) || !listen_for_gate(&t)) {
		write_status(&t, FAILED);
		return 1;
	}
	write_status(&t, ATTACHED);
	if (open_gate(&t))
		follow(&t);
	if (t.state == RUNNING || t.state == ATTACHED)
		finish(&t);
	return t.state == FAILED;
}

