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
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bdt_format.h"
#include "bdtrace.skel.h"
#include "syscalls.h"
#include "writer.h"

#define SYSCALLS 512
#define EVENT_KINDS 128
#define IDLE_MIN_MS 1
#define IDLE_MAX_MS 32
#define MESSAGE_BYTES 4096
#define FLUSH_NS NS_PER_S /* how much a killed tracer may take with it */
#define NS_PER_S 1000000000LL

enum state { ATTACHED, RUNNING, ENDED, FAILED, EXEC_FAILED };

static const char *const state_names[] = { "attached", "running", "ended", "failed", "exec_failed" };
static const char *const cause_names[BDT_CAUSES] = {
	[BDT_CAUSE_RING_FULL] = "ring_full",	 [BDT_CAUSE_MAP_FULL] = "map_full",	 [BDT_CAUSE_WRITE_ERROR] = "write_error",
	[BDT_CAUSE_STRING_CUT] = "string_cut", [BDT_CAUSE_READ_FAULT] = "read_fault",	 [BDT_CAUSE_SIZE_LIMIT] = "size_limit",
	[BDT_CAUSE_MAPPING_BUSY] = "mapping_busy",
};

struct counts {
	uint64_t seen;
	uint64_t filtered;
	uint64_t by_cause[BDT_CAUSES];
};

/* Programs for which the kernel may lack the tracepoint, and what is not in the trace then. */
static const struct {
	const char *program;
	const char *what;
} optional_programs[] = {
	{ "on_page_fault", "page_faults" },
	{ "on_page_in", "device_reads" },
	{ "on_uring_submit", "io_uring" },
	{ "on_uring_complete", "io_uring" },
};

/* What was asked for on the command line. */
struct wishes {
	const char *directory;
	const char *prefixes[BDT_MAX_PREFIXES];
	int prefix_count;
	const char *ops; /* comma-separated numbers; NULL means all */
	uint32_t mode;
	uint32_t ring_bytes;
	uint64_t max_bytes; /* 0: no limit */
};

struct tracer {
	struct bdtrace_bpf *probes;
	struct ring_buffer *ring;
	int signals;
	int listener;
	struct writer *writer;
	int64_t flushed_ns;
	struct wishes wishes;
	int told_errno;
	uint64_t size_lost;
	uint64_t total_records;
	char unsupported[256];
	enum state state;
	char error[MESSAGE_BYTES];
	int exit_code;
	pid_t target;
	uint64_t t0_ns;
	int64_t realtime_offset_ns;
	double attach_ms;
};

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void set_error(struct tracer *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void set_error(struct tracer *t, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(t->error, sizeof(t->error), format, arguments);
	va_end(arguments);
	fprintf(stderr, "bdtrace: %s\n", t->error);
}

static void write_json_string(FILE *file, const char *text)
{
	fputc('"', file);
	for (; *text; text++) {
		unsigned char c = *text;

		if (c == '"' || c == '\\')
			fprintf(file, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(file, "\\u%04x", c);
		else
			fputc(c, file);
	}
	fputc('"', file);
}

static struct counts read_counts(struct tracer *t)
{
	struct counts sum = {}, *each;
	int cpus = libbpf_num_possible_cpus();
	uint32_t zero = 0;

	if (!t->probes || cpus < 1)
		return sum;
	each = calloc(cpus, sizeof(*each));
	if (each && !bpf_map_lookup_elem(bpf_map__fd(t->probes->maps.counters), &zero, each))
		for (int i = 0; i < cpus; i++) {
			sum.seen += each[i].seen;
			sum.filtered += each[i].filtered;
			for (int cause = 0; cause < BDT_CAUSES; cause++)
				sum.by_cause[cause] += each[i].by_cause[cause];
		}
	free(each);
	/* Records that the loader makes itself. */
	sum.seen += t->total_records;
	sum.by_cause[BDT_CAUSE_WRITE_ERROR] += t->writer ? writer_state(t->writer).lost : 0;
	sum.by_cause[BDT_CAUSE_SIZE_LIMIT] += t->size_lost;
	return sum;
}

/* Replace tracer.json as a whole, so that a reader never sees half of it. */
static void write_status(struct tracer *t, enum state state)
{
	char path[PATH_MAX], temporary[PATH_MAX];
	struct written written = t->writer ? writer_state(t->writer) : (struct written){};
	struct counts counts = read_counts(t);
	FILE *file;

	t->state = state;
	snprintf(path, sizeof(path), "%s/tracer.json", t->wishes.directory);
	snprintf(temporary, sizeof(temporary), "%s/.tracer.json.tmp", t->wishes.directory);
	file = fopen(temporary, "w");
	if (!file)
		return;
	fprintf(file, "{\"state\":\"%s\",\"pid\":%d,\"exit_code\":%d,\"t0_ns\":%" PRIu64, state_names[state], t->target,
		t->exit_code, t->t0_ns);
	fprintf(file, ",\"realtime_offset_ns\":%" PRId64 ",\"attach_ms\":%.3f,\"error\":", t->realtime_offset_ns,
		t->attach_ms);
	write_json_string(file, t->error);
	fprintf(file, ",\"mode\":%u,\"unsupported\":[%s],\"filtered\":%" PRIu64, t->wishes.mode, t->unsupported,
		counts.filtered);
	fprintf(file, ",\"seen\":%" PRIu64 ",\"written\":%" PRIu64 ",\"written_bytes\":%" PRIu64 ",\"lost\":{",
		counts.seen, written.records, written.bytes);
	for (int cause = 0, some = 0; cause < BDT_CAUSES; cause++)
		if (counts.by_cause[cause])
			fprintf(file, "%s\"%s\":%" PRIu64, some++ ? "," : "", cause_names[cause], counts.by_cause[cause]);
	fprintf(file, "}}\n");
	fflush(file);
	fsync(fileno(file));
	if (fclose(file) || rename(temporary, path))
		fprintf(stderr, "bdtrace: %s can't be written: %s\n", path, strerror(errno));
}

static int fail(struct tracer *t)
{
	write_status(t, FAILED);
	return 1;
}

/* -- the file */

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

/* -- the probes */

static int quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, arguments) : 0;
}

/* Which events are wanted: all, or those whose numbers were given, and the processes' own. */
static void fill_wanted(struct tracer *t, uint8_t *wants, uint8_t *op_of)
{
	const char *at = t->wishes.ops;

	memset(wants, !at, EVENT_KINDS);
	while (at && *at) {
		char *end;
		unsigned long op = strtoul(at, &end, 10);

		if (op < EVENT_KINDS)
			wants[op] = 1;
		at = *end ? end + 1 : end;
	}
	for (int op = BDT_OP_EXECVE; op <= BDT_OP_EXIT; op++)
		wants[op] = 1;
	for (int number = 0; number < SYSCALLS; number++)
		if (!wants[op_of[number] % EVENT_KINDS])
			op_of[number] = 0;
}

/* Paths stand in records with their last component first, each with a slash behind. */
static void fill_prefix(struct bdtrace_bpf__rodata *rodata, int index, const char *path)
{
	size_t end = strlen(path), size = 0;
	char *text = (char *)rodata->prefixes[index].text;

	while (end) {
		size_t begin = end;

		while (begin && path[begin - 1] != '/')
			begin--;
		if (begin < end && size + end - begin + 1 <= BDT_MAX_PREFIX) {
			memcpy(text + size, path + begin, end - begin);
			size += end - begin;
			text[size++] = '/';
		}
		end = begin ? begin - 1 : 0;
	}
	*(uint32_t *)&rodata->prefixes[index].size = size;
}

static void fill_settings(struct tracer *t)
{
	struct bdtrace_bpf__rodata *rodata = t->probes->rodata;

	fill_operations((uint8_t *)rodata->op_of);
	fill_shapes((uint8_t *)rodata->op_of, (struct bdt_shape *)rodata->shapes);
	fill_wanted(t, (uint8_t *)rodata->wants, (uint8_t *)rodata->op_of);
	for (int i = 0; i < t->wishes.prefix_count; i++)
		fill_prefix(rodata, i, t->wishes.prefixes[i]);
	*(uint32_t *)&rodata->prefix_count = t->wishes.prefix_count;
	*(uint32_t *)&rodata->mode = t->wishes.mode;
	*(uint32_t *)&rodata->page_shift = __builtin_ctzl(sysconf(_SC_PAGESIZE));
	*(uint32_t *)&rodata->wakeup_bytes = t->wishes.ring_bytes / 8;
	bpf_map__set_max_entries(t->probes->maps.ring, t->wishes.ring_bytes);
}

static const char *optional_part(const char *program)
{
	for (size_t i = 0; i < sizeof(optional_programs) / sizeof(*optional_programs); i++)
		if (!strcmp(optional_programs[i].program, program))
			return optional_programs[i].what;
	return NULL;
}

/* The probes find mappings in the tree that the kernel keeps them in since 6.1. */
static bool finds_mappings(void)
{
	struct utsname system;
	int major = 0, minor = 0;

	uname(&system);
	return sscanf(system.release, "%d.%d", &major, &minor) == 2 && (major > 6 || (major == 6 && minor >= 1));
}

/* Attach every program; of what this kernel lacks the tracepoint, take a note. */
static bool attach_programs(struct tracer *t)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, t->probes->obj) {
		const char *part = optional_part(bpf_program__name(program));
		bool can_work = program != t->probes->progs.on_page_fault || finds_mappings();

		if (can_work && bpf_program__attach(program))
			continue;
		if (!part) {
			set_error(t, "the probe %s can't be attached: %s", bpf_program__name(program), strerror(errno));
			return false;
		}
		if (!strstr(t->unsupported, part)) {
			size_t n = strlen(t->unsupported);

			snprintf(t->unsupported + n, sizeof(t->unsupported) - n, "%s\"%s\"", n ? "," : "", part);
		}
	}
	/* The links are not kept: the probes stay attached until this process is gone, armed or not. */
	if (finds_mappings())
		bpf_program__attach_raw_tracepoint(t->probes->progs.on_page_fault, "page_fault_kernel");
	return true;
}

static bool attach(struct tracer *t)
{
	int64_t begun = clock_ns(CLOCK_MONOTONIC);
	LIBBPF_OPTS(bpf_object_open_opts, options);
	char types[PATH_MAX];
	struct utsname system;
	int error;

	libbpf_set_print(quiet);
	/* The types of the kernel for which the image was built are in it; reading those of any other takes longer. */
	uname(&system);
	snprintf(types, sizeof(types), "/btf/%s.btf", system.release);
	if (!access(types, R_OK))
		options.btf_custom_path = types;
	t->probes = bdtrace_bpf__open_opts(&options);
	if (!t->probes) {
		set_error(t, "the probes can't be opened: %s", strerror(errno));
		return false;
	}
	fill_settings(t);
	error = bdtrace_bpf__load(t->probes);
	if (error) {
		set_error(t, "the kernel refused the probes: %s; it must be 5.17 or later, with BTF, and the container needs "
			     "CAP_SYS_ADMIN (`bedrock doctor` says more)", strerror(-error));
		return false;
	}
	if (!attach_programs(t))
		return false;
	t->ring = ring_buffer__new(bpf_map__fd(t->probes->maps.ring), on_record, t, NULL);
	if (!t->ring) {
		set_error(t, "the ring can't be mapped: %s", strerror(errno));
		return false;
	}
	t->attach_ms = (clock_ns(CLOCK_MONOTONIC) - begun) / 1e6;
	return true;
}

/* Arm the probes for the PID namespace of a process. */
static bool arm(struct tracer *t, pid_t pid)
{
	struct bdt_start start = { .size = sizeof(start), .type = BDT_REC_START };
	char path[64], line[256];
	struct stat own, target;
	uint32_t level = 0;
	FILE *status;
	int namespace;

	/*
	 * Never closed: the kernel gives the number of a namespace that is gone to the next one, and the probes would take
	 * the container that gets it for the target, until we end.
	 */
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	namespace = open(path, O_RDONLY | O_CLOEXEC);
	if (stat("/proc/self/ns/pid", &own) || namespace < 0 || fstat(namespace, &target)) {
		set_error(t, "the target's PID namespace can't be read (%s); the tracer needs the host's PID namespace "
			     "and CAP_SYS_PTRACE", strerror(errno));
		return false;
	}
	if (own.st_ino == target.st_ino) {
		set_error(t, "the target has no PID namespace of its own, so it can't be told from the rest of the host");
		return false;
	}
	/* NSpid has a number for each namespace from this /proc's down to the target's own. */
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "r");
	while (status && fgets(line, sizeof(line), status))
		if (!strncmp(line, "NSpid:", 6))
			for (char *at = strtok(line + 6, "\t \n"); at; at = strtok(NULL, "\t \n"))
				level++;
	if (status)
		fclose(status);
	if (level < 2) {
		set_error(t, "the level of the target's PID namespace can't be read from %s", path);
		return false;
	}
	t->target = pid;
	t->probes->bss->target_level = level - 1;
	__atomic_store_n(&t->probes->bss->target_inum, (uint32_t)target.st_ino, __ATOMIC_SEQ_CST);
	start.tid = pid;
	start.time_ns = clock_ns(CLOCK_MONOTONIC);
	start.namespace = target.st_ino;
	start.level = level - 1;
	start.mode = t->wishes.mode;
	start.is_filtered = t->wishes.ops || t->wishes.prefix_count;
	t->total_records++;
	writer_append(t->writer, &start);
	return true;
}

/* -- the gate */

static bool listen_for_gate(struct tracer *t)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s/.gate/sock", t->wishes.directory) >=
	    sizeof(address.sun_path)) {
		set_error(t, "the path %s is too long for a socket", t->wishes.directory);
		return false;
	}
	unlink(address.sun_path);
	t->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* The target may run as any user. */
	umask(0);
	if (t->listener < 0 || bind(t->listener, (struct sockaddr *)&address, sizeof(address)) || listen(t->listener, 1)) {
		set_error(t, "%s can't be listened on: %s", address.sun_path, strerror(errno));
		return false;
	}
	umask(022);
	return true;
}

/* Wait until a descriptor is readable. False: a signal to end came first. */
static bool wait_for(struct tracer *t, int fd)
{
	struct pollfd fds[] = { { .fd = t->signals, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return !(fds[0].revents & POLLIN);
}

/* Read up to the end of the line, or of the conversation. */
static bool read_line(struct tracer *t, int fd, char *line, size_t room)
{
	size_t n = 0;

	for (;;) {
		ssize_t got;

		if (!wait_for(t, fd))
			return false;
		got = read(fd, line + n, room - 1 - n);
		if (got <= 0)
			break;
		n += got;
		if (line[n - 1] == '\n' || n == room - 1)
			break;
	}
	line[n] = 0;
	if (n && line[n - 1] == '\n')
		line[n - 1] = 0;
	return true;
}

static int exec_failed(struct tracer *t, const char *line)
{
	char *sentence;

	t->exit_code = (int)strtol(line + 1, &sentence, 10);
	set_error(t, "%s", *sentence == ' ' ? sentence + 1 : sentence);
	write_status(t, EXEC_FAILED);
	return 0;
}

/* Let the target go. 0: it runs. Otherwise why there is nothing to trace is written down. */
static bool open_gate(struct tracer *t)
{
	char line[MESSAGE_BYTES];
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int gate;

	if (!wait_for(t, t->listener))
		return false;
	gate = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
	/* One target, and what runs in it later has no business here. */
	close(t->listener);
	if (gate < 0 || getsockopt(gate, SOL_SOCKET, SO_PEERCRED, &peer, &size)) {
		set_error(t, "the gate can't be talked to: %s", strerror(errno));
		fail(t);
		return false;
	}
	if (!read_line(t, gate, line, sizeof(line)))
		return false;
	if (line[0] != 'R') {
		exec_failed(t, line[0] == 'E' ? line : "E125 the gate closed before it was opened");
		return false;
	}
	if (!arm(t, peer.pid)) {
		fail(t);
		return false;
	}
	t->t0_ns = clock_ns(CLOCK_MONOTONIC);
	if (write(gate, "g", 1) != 1 || !read_line(t, gate, line, sizeof(line)))
		return false;
	close(gate);
	if (line[0] == 'X') {
		exec_failed(t, line);
		return false;
	}
	write_status(t, RUNNING);
	return true;
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
		uint64_t key[2];
		uint64_t next[2];
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
	flush(t);
	end.time_ns = clock_ns(CLOCK_MONOTONIC);
	end.seen = read_counts(t).seen;
	end.written = writer_state(t->writer).records;
	t->total_records++;
	writer_append(t->writer, &end);
	flush(t);
	error = writer_sync(t->writer);
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
	if (!open_output(&t) || !attach(&t) || !listen_for_gate(&t))
		return fail(&t);
	write_status(&t, ATTACHED);
	if (open_gate(&t))
		follow(&t);
	if (t.state == RUNNING || t.state == ATTACHED)
		finish(&t);
	return t.state == FAILED;
}
