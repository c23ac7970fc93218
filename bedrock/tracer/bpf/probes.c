// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bdt_format.h"
#include "bdtrace.skel.h"
#include "calls.h"
#include "syscalls.h"
#include "tracer.h"

#define SYSCALLS 512
#define EVENT_KINDS 128

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

/* How often the kernel left a probe out because the same one was running on that processor, for whichever task. */
static uint64_t count_missed(struct tracer *t)
{
	struct bpf_program *program;
	uint64_t missed = 0;

	bpf_object__for_each_program(program, t->probes->obj) {
		struct bpf_prog_info info = {};
		uint32_t size = sizeof(info);
		int fd = bpf_program__fd(program);

		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &size))
			missed += info.recursion_misses;
	}
	return missed;
}

struct counts read_counts(struct tracer *t)
{
	struct counts sum = {}, *each;
	int cpus = libbpf_num_possible_cpus();
	uint32_t zero = 0;
	uint64_t missed;

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
	missed = count_missed(t);
	sum.by_cause[BDT_CAUSE_PROBE_MISSED] = missed;
	/* Records that no probe could count, and those that the loader makes itself. */
	sum.seen += missed + t->total_records;
	sum.by_cause[BDT_CAUSE_END_UNSEEN] += t->unseen_ends;
	sum.by_cause[BDT_CAUSE_WRITE_ERROR] += t->writer ? writer_state(t->writer).lost : 0;
	sum.by_cause[BDT_CAUSE_SIZE_LIMIT] += t->size_lost;
	return sum;
}

static int quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, arguments) : 0;
}

/* Which events are wanted: all, or those whose numbers were given, and the processes' own. */
static void fill_wanted(struct tracer *t, uint8_t *wants)
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
}

/* Calls that are not wanted are none that the probes know, but for those after which paths may be other ones. */
static void leave_out(uint8_t *op_of, const uint8_t *wants)
{
	for (int number = 0; number < SYSCALLS; number++)
		if (!wants[op_of[number] % EVENT_KINDS] && !changes_tree(op_of[number]))
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
	fill_operations32((uint8_t *)rodata->op32_of, (uint8_t *)rodata->form32_of);
	fill_shapes((struct bdt_shape *)rodata->shapes);
	fill_wanted(t, (uint8_t *)rodata->wants);
	for (int op = BDT_OP_OPEN; op <= BDT_OP_CREAT; op++)
		*(uint32_t *)&rodata->opens_are_untold |= !rodata->wants[op];
	leave_out((uint8_t *)rodata->op_of, (uint8_t *)rodata->wants);
	leave_out((uint8_t *)rodata->op32_of, (uint8_t *)rodata->wants);
	for (int i = 0; i < t->wishes.prefix_count; i++)
		fill_prefix(rodata, i, t->wishes.prefixes[i]);
	*(uint32_t *)&rodata->prefix_count = t->wishes.prefix_count;
	*(uint32_t *)&rodata->mode = t->wishes.mode;
	*(uint32_t *)&rodata->page_shift = __builtin_ctzl(sysconf(_SC_PAGESIZE));
	*(uint32_t *)&rodata->wakeup_bytes = t->wishes.ring_bytes / 8;
	bpf_map__set_max_entries(t->probes->maps.ring, t->wishes.ring_bytes);
	if (t->wishes.mode != BDT_MODE_SUMMARY) {
		/* Making them takes milliseconds, and nothing is counted in them. */
		bpf_map__set_max_entries(t->probes->maps.file_totals, 1);
		bpf_map__set_max_entries(t->probes->maps.op_totals, 1);
	}
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

bool attach(struct tracer *t, int (*on_record)(void *tracer, void *record, size_t size))
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

bool arm(struct tracer *t, pid_t pid)
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
