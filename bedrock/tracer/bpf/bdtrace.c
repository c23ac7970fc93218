// SPDX-License-Identifier: Apache-2.0
/*
 * bdtrace: loads the probes, opens the target's gate, and writes what the probes record to a file.
 *
 *	bdtrace --container NAME -o DIRECTORY [--ring-bytes N]
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
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bdt_format.h"
#include "bdtrace.skel.h"

#define SYSCALLS 512
#define BUFFER_BYTES (4 << 20)
#define IDLE_MIN_MS 1
#define IDLE_MAX_MS 32
#define MESSAGE_BYTES 4096
#define NS_PER_S 1000000000LL

enum state { ATTACHED, RUNNING, ENDED, FAILED, EXEC_FAILED };

static const char *const state_names[] = { "attached", "running", "ended", "failed", "exec_failed" };
static const char *const cause_names[BDT_CAUSES] = {
	[BDT_CAUSE_RING_FULL] = "ring_full",	 [BDT_CAUSE_MAP_FULL] = "map_full",	 [BDT_CAUSE_WRITE_ERROR] = "write_error",
	[BDT_CAUSE_STRING_CUT] = "string_cut", [BDT_CAUSE_READ_FAULT] = "read_fault",
};

struct counts {
	uint64_t seen;
	uint64_t by_cause[BDT_CAUSES];
};

struct tracer {
	const char *directory;
	struct bdtrace_bpf *probes;
	struct ring_buffer *ring;
	int signals;
	int listener;
	int output;
	char *buffer;
	size_t buffered;
	uint32_t buffered_records;
	int write_errno;
	enum state state;
	char error[MESSAGE_BYTES];
	int exit_code;
	pid_t target;
	uint64_t t0_ns;
	int64_t realtime_offset_ns;
	double attach_ms;
	uint64_t written;
	uint64_t written_bytes;
	uint64_t write_lost;
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
			for (int cause = 0; cause < BDT_CAUSES; cause++)
				sum.by_cause[cause] += each[i].by_cause[cause];
		}
	free(each);
	sum.by_cause[BDT_CAUSE_WRITE_ERROR] += t->write_lost;
	return sum;
}

/* Replace tracer.json as a whole, so that a reader never sees half of it. */
static void write_status(struct tracer *t, enum state state)
{
	char path[PATH_MAX], temporary[PATH_MAX];
	struct counts counts = read_counts(t);
	FILE *file;

	t->state = state;
	snprintf(path, sizeof(path), "%s/tracer.json", t->directory);
	snprintf(temporary, sizeof(temporary), "%s/.tracer.json.tmp", t->directory);
	file = fopen(temporary, "w");
	if (!file)
		return;
	fprintf(file, "{\"state\":\"%s\",\"pid\":%d,\"exit_code\":%d,\"t0_ns\":%" PRIu64, state_names[state], t->target,
		t->exit_code, t->t0_ns);
	fprintf(file, ",\"realtime_offset_ns\":%" PRId64 ",\"attach_ms\":%.3f,\"error\":", t->realtime_offset_ns,
		t->attach_ms);
	write_json_string(file, t->error);
	fprintf(file, ",\"seen\":%" PRIu64 ",\"written\":%" PRIu64 ",\"written_bytes\":%" PRIu64 ",\"lost\":{",
		counts.seen, t->written, t->written_bytes);
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

static void flush_buffer(struct tracer *t)
{
	size_t done = 0;

	while (done < t->buffered && !t->write_errno) {
		ssize_t n = write(t->output, t->buffer + done, t->buffered - done);

		if (n < 0 && errno != EINTR) {
			t->write_errno = errno;
			set_error(t, "the trace can't be written: %s", strerror(errno));
		} else if (n > 0) {
			done += n;
		}
	}
	if (t->write_errno) {
		/* Half a record at the end would be misread: take the file back to where it was whole. */
		if (ftruncate(t->output, t->written_bytes) == 0)
			lseek(t->output, t->written_bytes, SEEK_SET);
		t->write_lost += t->buffered_records;
	} else {
		t->written_bytes += t->buffered;
		t->written += t->buffered_records;
	}
	t->buffered = 0;
	t->buffered_records = 0;
	/* Room may be made while we run. The target never waits for that. */
	t->write_errno = 0;
}

static void append(struct tracer *t, const void *data, size_t size, uint32_t records)
{
	if (t->buffered + size > BUFFER_BYTES)
		flush_buffer(t);
	memcpy(t->buffer + t->buffered, data, size);
	t->buffered += size;
	t->buffered_records += records;
}

static int on_record(void *context, void *data, size_t size)
{
	/* The ring rounds sizes up; the record's own is the true one. */
	const struct bdt_start *head = data;

	append(context, data, head->size <= size ? head->size : size, 1);
	return 0;
}

static bool open_output(struct tracer *t)
{
	struct bdt_file_header header = {
		.magic = BDT_MAGIC,
		.version = BDT_VERSION,
		.header_size = sizeof(header),
	};
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/trace.bdt", t->directory);
	t->output = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	t->buffer = malloc(BUFFER_BYTES);
	if (t->output < 0 || !t->buffer) {
		set_error(t, "%s can't be made: %s", path, strerror(errno));
		return false;
	}
	t->realtime_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
	header.realtime_offset_ns = t->realtime_offset_ns;
	append(t, &header, sizeof(header), 0);
	return true;
}

/* -- the probes */

static void fill_operations(uint8_t *op_of)
{
#define IS(name, op) op_of[__NR_##name] = BDT_OP_##op
#ifdef __NR_open
	IS(open, OPEN);
	IS(creat, CREAT);
	IS(dup2, DUP2);
#endif
	IS(openat, OPENAT);
	IS(openat2, OPENAT2);
	IS(close, CLOSE);
	IS(read, READ);
	IS(pread64, PREAD64);
	IS(readv, READV);
	IS(preadv, PREADV);
	IS(preadv2, PREADV2);
	IS(write, WRITE);
	IS(pwrite64, PWRITE64);
	IS(writev, WRITEV);
	IS(pwritev, PWRITEV);
	IS(pwritev2, PWRITEV2);
	IS(lseek, LSEEK);
	IS(mmap, MMAP);
	IS(dup, DUP);
	IS(dup3, DUP3);
	IS(fcntl, FCNTL_DUPFD);
	IS(execve, EXECVE);
	IS(execveat, EXECVEAT);
	IS(sendfile, SENDFILE);
	IS(copy_file_range, COPY_FILE_RANGE);
	IS(splice, SPLICE);
#undef IS
}

/* Which argument is what, counted from 1: path, second path, directory of a relative path, descriptor, size, another. */
static void fill_shapes(uint8_t *op_of, struct bdt_shape *shapes)
{
#define IS(name, op, ...)                                                            \
	do {                                                                         \
		op_of[__NR_##name] = BDT_OP_##op;                                    \
		shapes[BDT_OP_##op] = (struct bdt_shape){ __VA_ARGS__ };                 \
	} while (0)
#ifdef __NR_stat
	IS(stat, STAT, .path = 1);
	IS(lstat, LSTAT, .path = 1);
	IS(access, ACCESS, .path = 1, .arg = 2);
	IS(readlink, READLINK, .path = 1, .size = 3);
	IS(getdents, GETDENTS, .fd = 1, .size = 3);
	IS(rename, RENAME, .path = 1, .second = 2);
	IS(unlink, UNLINK, .path = 1);
	IS(link, LINK, .path = 1, .second = 2);
	IS(symlink, SYMLINK, .path = 2, .second = 1);
	IS(mkdir, MKDIR, .path = 1, .arg = 2);
	IS(rmdir, RMDIR, .path = 1);
	IS(chmod, CHMOD, .path = 1, .arg = 2);
	IS(chown, CHOWN, .path = 1, .arg = 2);
	IS(lchown, LCHOWN, .path = 1, .arg = 2);
	IS(renameat, RENAMEAT, .path = 2, .second = 4, .base = 1);
#endif
	IS(fstat, FSTAT, .fd = 1);
	IS(newfstatat, NEWFSTATAT, .path = 2, .base = 1, .arg = 4);
	IS(statx, STATX, .path = 2, .base = 1, .arg = 3);
	IS(faccessat, FACCESSAT, .path = 2, .base = 1, .arg = 3);
	IS(faccessat2, FACCESSAT2, .path = 2, .base = 1, .arg = 3);
	IS(readlinkat, READLINKAT, .path = 2, .base = 1, .size = 4);
	IS(getdents64, GETDENTS64, .fd = 1, .size = 3);
	IS(truncate, TRUNCATE, .path = 1, .size = 2);
	IS(ftruncate, FTRUNCATE, .fd = 1, .size = 2);
	IS(fallocate, FALLOCATE, .fd = 1, .size = 4, .arg = 3);
	IS(fsync, FSYNC, .fd = 1);
	IS(fdatasync, FDATASYNC, .fd = 1);
	IS(renameat2, RENAMEAT2, .path = 2, .second = 4, .base = 1, .arg = 5);
	IS(unlinkat, UNLINKAT, .path = 2, .base = 1, .arg = 3);
	IS(linkat, LINKAT, .path = 2, .second = 4, .base = 1, .arg = 5);
	IS(symlinkat, SYMLINKAT, .path = 3, .second = 1, .base = 2);
	IS(mkdirat, MKDIRAT, .path = 2, .base = 1, .arg = 3);
	IS(fchmod, FCHMOD, .fd = 1, .arg = 2);
	IS(fchmodat, FCHMODAT, .path = 2, .base = 1, .arg = 3);
	IS(fchown, FCHOWN, .fd = 1, .arg = 2);
	IS(fchownat, FCHOWNAT, .path = 2, .base = 1, .arg = 3);
	IS(chdir, CHDIR, .path = 1);
	IS(fchdir, FCHDIR, .fd = 1);
#undef IS
}

static int quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, arguments) : 0;
}

static bool attach(struct tracer *t, uint32_t ring_bytes)
{
	int64_t begun = clock_ns(CLOCK_MONOTONIC);
	int error;

	libbpf_set_print(quiet);
	t->probes = bdtrace_bpf__open();
	if (!t->probes) {
		set_error(t, "the probes can't be opened: %s", strerror(errno));
		return false;
	}
	fill_operations((uint8_t *)t->probes->rodata->op_of);
	fill_shapes((uint8_t *)t->probes->rodata->op_of, (struct bdt_shape *)t->probes->rodata->shapes);
	t->probes->rodata->wakeup_bytes = ring_bytes / 8;
	bpf_map__set_max_entries(t->probes->maps.ring, ring_bytes);
	error = bdtrace_bpf__load(t->probes);
	if (error) {
		set_error(t, "the kernel refused the probes: %s; it must be 5.17 or later, with BTF, and the container needs "
			     "CAP_SYS_ADMIN (`bedrock doctor` says more)", strerror(-error));
		return false;
	}
	error = bdtrace_bpf__attach(t->probes);
	if (error) {
		set_error(t, "the probes can't be attached: %s", strerror(-error));
		return false;
	}
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

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	if (stat("/proc/self/ns/pid", &own) || stat(path, &target)) {
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
	append(t, &start, sizeof(start), 0);
	return true;
}

/* -- the gate */

static bool listen_for_gate(struct tracer *t)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s/.gate/sock", t->directory) >=
	    sizeof(address.sun_path)) {
		set_error(t, "the path %s is too long for a socket", t->directory);
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

		idle_ms = got > 0 ? IDLE_MIN_MS : idle_ms * 2 < IDLE_MAX_MS ? idle_ms * 2 : IDLE_MAX_MS;
		if (poll(fds, 2, idle_ms) > 0 && fds[0].revents & POLLIN)
			return;
	}
}

static void finish(struct tracer *t)
{
	struct bdt_end end = { .size = sizeof(end), .type = BDT_REC_END };

	__atomic_store_n(&t->probes->bss->target_inum, 0, __ATOMIC_SEQ_CST);
	bdtrace_bpf__detach(t->probes);
	while (ring_buffer__consume(t->ring) > 0)
		;
	flush_buffer(t);
	end.time_ns = clock_ns(CLOCK_MONOTONIC);
	end.seen = read_counts(t).seen;
	end.written = t->written;
	append(t, &end, sizeof(end), 0);
	flush_buffer(t);
	if (fsync(t->output) && !t->error[0])
		set_error(t, "the trace can't be synced: %s", strerror(errno));
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

int main(int argc, char **argv)
{
	struct tracer t = { .directory = "/logs", .listener = -1, .output = -1 };
	uint32_t ring_bytes = 32 << 20;
	sigset_t ending;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "-o"))
			t.directory = argv[i + 1];
		else if (!strcmp(argv[i], "--ring-bytes"))
			ring_bytes = parse_ring(argv[i + 1]);
		else if (strcmp(argv[i], "--container")) {
			fprintf(stderr, "usage: bdtrace --container NAME -o DIRECTORY [--ring-bytes N]\n");
			return 2;
		}
	}
	/* As PID 1 of a container we get no signal that we don't ask for. */
	sigemptyset(&ending);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGINT);
	sigprocmask(SIG_BLOCK, &ending, NULL);
	signal(SIGPIPE, SIG_IGN);
	t.signals = signalfd(-1, &ending, SFD_CLOEXEC);
	if (!open_output(&t) || !attach(&t, ring_bytes) || !listen_for_gate(&t))
		return fail(&t);
	write_status(&t, ATTACHED);
	if (open_gate(&t))
		follow(&t);
	if (t.state == RUNNING || t.state == ATTACHED)
		finish(&t);
	return t.state == FAILED;
}
