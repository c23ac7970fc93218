// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "probes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bdtrace.skel.h"
#include "clocks.h"
#include "kernel.h"
#include "load_log.h"
#include "look.h"
#include "syscalls.h"

#define SYSCALLS 512
#define TRACEFS "/sys/kernel/tracing"

/*
 * Programs that a kernel may not take, or lack the tracepoint for, and what is not in traces then. Those of a kind that
 * has two programs are listed with both; what is missing is said only where neither works.
 */
static const struct optional {
	const char *program;
	uint32_t feature; /* 0: another program does the same */
} optional_programs[] = {
	{ "on_page_fault", BDT_FEATURE_PAGE_FAULTS },
	{ "on_signal", BDT_FEATURE_FAILED_FAULTS },
	{ "on_page_in", BDT_FEATURE_DEVICE_READS },
	{ "on_uring_submit", 0 },
	{ "on_uring_submit_sqe", 0 },
	{ "on_uring_complete", BDT_FEATURE_IO_URING },
	{ "on_enter_event", 0 },
	{ "on_exit_event", 0 },
	{ "on_page_fault_event", 0 },
	{ "on_page_in_event", 0 },
	{ "on_uring_submit_event", 0 },
	{ "on_uring_complete_event", 0 },
	{ "on_task_exit_event", 0 },
	{ "on_exec_copy", 0 },
	{ "on_fork_copy", 0 },
	{ "on_signal_copy", 0 },
};
#define OPTIONAL_COUNT (sizeof(optional_programs) / sizeof(*optional_programs))

static const struct {
	uint32_t bit;
	const char *name;
} feature_names[] = {
	{ BDT_FEATURE_PAGE_FAULTS, "page_faults" },
	{ BDT_FEATURE_DEVICE_READS, "device_reads" },
	{ BDT_FEATURE_IO_URING, "io_uring" },
	{ BDT_FEATURE_IO_URING_PATHS, "io_uring_paths" },
	{ BDT_FEATURE_MAPPINGS, "mappings" },
	{ BDT_FEATURE_FAILED_FAULTS, "failed_faults" },
	{ BDT_FEATURE_CALLS_32, "calls_32" },
	{ BDT_FEATURE_DEEP_PATHS, "deep_paths" },
};

void list_features(uint32_t mask, char *text, size_t room)
{
	size_t n = 0;

	*text = 0;
	for (size_t i = 0; i < sizeof(feature_names) / sizeof(*feature_names); i++)
		if (mask & feature_names[i].bit && n < room)
			n += snprintf(text + n, room - n, "%s\"%s\"", n ? "," : "", feature_names[i].name);
}

static const struct optional *optional_of(const char *program)
{
	for (size_t i = 0; i < OPTIONAL_COUNT; i++)
		if (!strcmp(optional_programs[i].program, program))
			return &optional_programs[i];
	return NULL;
}

/* The highest number that the kernel may give to a processor, plus one. */
static uint32_t count_processors(void)
{
	FILE *file = fopen("/sys/devices/system/cpu/possible", "r");
	uint32_t last = 0;
	int c;

	if (!file)
		return sysconf(_SC_NPROCESSORS_CONF);
	/* Ranges, such as "0-3,8-11"; the last number is the highest. */
	while ((c = getc(file)) != EOF && c != '\n')
		last = c >= '0' && c <= '9' ? last * 10 + c - '0' : 0;
	fclose(file);
	return last + 1;
}

/* Have the counts in this process's memory. */
static bool map_counts(struct probes *probes, char error[MESSAGE_BYTES])
{
	size_t bytes = sizeof(struct counts) * MAX_SESSIONS * probes->processors;

	probes->counts = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			      bpf_map__fd(probes->skeleton->maps.counters), 0);
	if (probes->counts != MAP_FAILED)
		return true;
	snprintf(error, MESSAGE_BYTES, "the counts of the probes can't be mapped: %s", strerror(errno));
	return false;
}

static bool ends_with(const char *text, const char *end)
{
	size_t size = strlen(text), end_size = strlen(end);

	return size >= end_size && !strcmp(text + size - end_size, end);
}

/* Whether a program stands in for another one, or beside it, where a task can lose the processor in a probe. */
static bool is_twin(const char *program)
{
	return ends_with(program, "_event") || ends_with(program, "_copy");
}

/* The program that stands in for one (_event) or beside it (_copy); NULL where there is none that can be attached. */
static struct bpf_program *twin_of(struct probes *probes, const char *program, const char *kind)
{
	struct bpf_program *twin;
	char name[128];

	snprintf(name, sizeof(name), "%s%s", program, kind);
	twin = probes->uses_events ? bpf_object__find_program_by_name(probes->skeleton->obj, name) : NULL;
	return twin && bpf_program__autoload(twin) ? twin : NULL;
}

static void fill_settings(struct bdtrace_bpf *skeleton, const struct kernel *kernel, const struct probes *probes)
{
	struct bdtrace_bpf__rodata *rodata = skeleton->rodata;

	bpf_map__set_max_entries(skeleton->maps.counters, MAX_SESSIONS * probes->processors);
	*(bool *)&rodata->is_preemptible = probes->is_preemptible;
	fill_operations((uint8_t *)rodata->op_of);
	fill_operations32((uint8_t *)rodata->op32_of, (uint8_t *)rodata->form32_of);
	fill_shapes((struct bdt_shape *)rodata->shapes);
	*(uint32_t *)&rodata->page_shift = __builtin_ctzl(sysconf(_SC_PAGESIZE));
	*(bool *)&rodata->has_loop = kernel->has_loop;
	*(bool *)&rodata->can_cast = kernel->can_cast;
	*(bool *)&rodata->exit_says_last = kernel->exit_says_last;
	/* That can't fail but on a machine that has only just started. */
	while (getrandom((void *)&rodata->hash_key, sizeof(rodata->hash_key), 0) < 0 && errno == EINTR)
		;
}

/* Open the object and load it, but for the programs in ``left_out``. An errno, 0 for success. */
static int load(struct probes *probes, const struct kernel *kernel, const bool *left_out)
{
	struct bdtrace_bpf *skeleton = bdtrace_bpf__open();
	struct bpf_program *program;
	int error;

	if (!skeleton)
		return errno;
	fill_settings(skeleton, kernel, probes);
	for (size_t i = 0; i < OPTIONAL_COUNT; i++) {
		program = bpf_object__find_program_by_name(skeleton->obj, optional_programs[i].program);
		if (left_out[i])
			bpf_program__set_autoload(program, false);
	}
	error = -bdtrace_bpf__load(skeleton);
	if (error)
		bdtrace_bpf__destroy(skeleton);
	else
		probes->skeleton = skeleton;
	return error;
}

/* Load as many programs as this kernel takes; those that must be there it must take. */
static bool load_what_works(struct probes *probes, const struct kernel *kernel, bool *left_out,
			    char error[MESSAGE_BYTES])
{
	char name[128], words[1024];

	for (size_t tries = 0; tries <= OPTIONAL_COUNT; tries++) {
		const struct optional *optional;
		int code;

		clear_load_log();
		code = load(probes, kernel, left_out);
		if (!code)
			return true;
		refused_program(name, sizeof(name));
		optional = optional_of(name);
		if (!optional || left_out[optional - optional_programs]) {
			last_words(words, sizeof(words));
			snprintf(error, MESSAGE_BYTES, "the kernel refused the probe %s: %s%s%s", *name ? name : "object",
				 strerror(code), *words ? "; the verifier's last words: " : "", words);
			return false;
		}
		left_out[optional - optional_programs] = true;
	}
	return false;
}

/* Perf events are found by numbers that are in a file system of the kernel's. Whoever may load probes may mount it. */
static bool has_tracefs(void)
{
	if (!access(TRACEFS "/events/raw_syscalls/sys_enter/id", R_OK))
		return true;
	return !mount("tracefs", TRACEFS, "tracefs", 0, NULL) && !access(TRACEFS "/events/raw_syscalls/sys_enter/id", R_OK);
}

/* See the calls: through perf events where a task can lose the processor in a probe, by raw tracepoints elsewhere. */
static bool attach_calls(struct probes *probes, char error[MESSAGE_BYTES])
{
	struct bdtrace_bpf *skeleton = probes->skeleton;

	if (probes->is_preemptible && bpf_program__autoload(skeleton->progs.on_enter_event) &&
	    bpf_program__autoload(skeleton->progs.on_exit_event) && has_tracefs()) {
		struct bpf_link *enter = bpf_program__attach(skeleton->progs.on_enter_event);
		struct bpf_link *exit = enter ? bpf_program__attach(skeleton->progs.on_exit_event) : NULL;

		if (enter && exit) {
			probes->uses_events = true;
			return true;
		}
		bpf_link__destroy(enter);
	}
	/* The links are not kept: the probes stay attached until this process is gone. */
	if (bpf_program__attach(skeleton->progs.on_exit) && bpf_program__attach(skeleton->progs.on_enter))
		return true;
	snprintf(error, MESSAGE_BYTES, "the probes of system calls can't be attached: %s", strerror(errno));
	return false;
}

/* The kernel touches the target's memory on its behalf. */
static void attach_kernel_faults(struct bpf_program *program, struct bpf_program *event)
{
	if (!event || !bpf_program__attach_tracepoint(event, "exceptions", "page_fault_kernel"))
		bpf_program__attach_raw_tracepoint(program, "page_fault_kernel");
}

/* Attach the probes of everything but calls; what this kernel does not give is taken down in ``unsupported``. */
static bool attach_others(struct probes *probes, const struct kernel *kernel, char error[MESSAGE_BYTES])
{
	struct bdtrace_bpf *skeleton = probes->skeleton;
	struct bpf_program *program, *twin;
	bool has_submit = false;

	bpf_object__for_each_program(program, skeleton->obj) {
		const char *name = bpf_program__name(program);
		const struct optional *optional = optional_of(name);
		bool is_done;

		if (program == skeleton->progs.on_enter || program == skeleton->progs.on_exit || is_twin(name))
			continue;
		twin = twin_of(probes, name, "_event");
		is_done = (twin && bpf_program__attach(twin)) ||
			  (bpf_program__autoload(program) && bpf_program__attach(program));
		if (is_done && program == skeleton->progs.on_page_fault)
			attach_kernel_faults(program, twin);
		twin = twin_of(probes, name, "_copy");
		if (is_done && twin)
			bpf_program__attach(twin);
		if (is_done && (program == skeleton->progs.on_uring_submit || program == skeleton->progs.on_uring_submit_sqe))
			has_submit = true;
		if (is_done)
			continue;
		if (!optional) {
			snprintf(error, MESSAGE_BYTES, "the probe %s can't be attached: %s", name, strerror(errno));
			return false;
		}
		probes->unsupported |= optional->feature;
	}
	if (!has_submit)
		probes->unsupported |= BDT_FEATURE_IO_URING;
	if (!kernel->has_request_names)
		probes->unsupported |= BDT_FEATURE_IO_URING_PATHS;
	if (!kernel->has_mapping_tree)
		probes->unsupported |= BDT_FEATURE_PAGE_FAULTS | BDT_FEATURE_MAPPINGS;
	if (probes->unsupported & BDT_FEATURE_PAGE_FAULTS)
		probes->unsupported |= BDT_FEATURE_FAILED_FAULTS;
	return true;
}

bool open_probes(struct probes *probes, char error[MESSAGE_BYTES])
{
	int64_t begun = clock_ns(CLOCK_MONOTONIC);
	bool left_out[OPTIONAL_COUNT] = {}, is_open = false;
	struct kernel kernel;

	*probes = (struct probes){};
	if (!open_load_log() || !look_at_kernel(&kernel, error))
		return false;
	probes->processors = count_processors();
	probes->is_preemptible = find_preemptible(&kernel);
	/* These would be taken, but could not find what they look for, or are of no use here. */
	for (size_t i = 0; i < OPTIONAL_COUNT; i++) {
		const char *name = optional_programs[i].program;

		left_out[i] = (!kernel.has_mapping_tree && !strcmp(name, "on_page_fault")) ||
			      (!kernel.has_submit_req && !strcmp(name, "on_uring_submit")) ||
			      (!kernel.has_submit_sqe && !strcmp(name, "on_uring_submit_sqe")) ||
			      (!kernel.completes_requests && !strcmp(name, "on_uring_complete")) ||
			      (!probes->is_preemptible && is_twin(name));
	}
	is_open = load_what_works(probes, &kernel, left_out, error) && map_counts(probes, error) &&
		  attach_calls(probes, error) && attach_others(probes, &kernel, error);
	close_load_log();
#if defined(__aarch64__)
	probes->unsupported |= BDT_FEATURE_CALLS_32;
#endif
	probes->attach_ms = (clock_ns(CLOCK_MONOTONIC) - begun) / 1e6;
	return is_open;
}

static uint64_t misses_of(struct bpf_program *program)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);
	int fd = bpf_program__fd(program);

	return fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &size) ? info.recursion_misses : 0;
}

/* How often neither a program nor its copy has run: at most as often as that which was left out more rarely. */
static uint64_t misses_with_copy(struct probes *probes, struct bpf_program *program)
{
	struct bpf_program *copy = twin_of(probes, bpf_program__name(program), "_copy");
	uint64_t missed = misses_of(program), of_copy;

	if (!copy || !missed)
		return missed;
	of_copy = misses_of(copy);
	return of_copy < missed ? of_copy : missed;
}

uint64_t missed_calls(struct probes *probes)
{
	struct bdtrace_bpf *skeleton = probes->skeleton;

	return probes->uses_events ?
		       misses_of(skeleton->progs.on_enter_event) + misses_of(skeleton->progs.on_exit_event) :
		       misses_of(skeleton->progs.on_enter) + misses_of(skeleton->progs.on_exit);
}

uint64_t missed_probes(struct probes *probes)
{
	struct bpf_program *program;
	uint64_t missed = 0;

	bpf_object__for_each_program(program, probes->skeleton->obj)
		if (!ends_with(bpf_program__name(program), "_copy"))
			missed += misses_with_copy(probes, program);
	return missed;
}

void describe_misses(struct probes *probes, char *text, size_t room)
{
	struct bpf_program *program;
	size_t n = 0;

	*text = 0;
	bpf_object__for_each_program(program, probes->skeleton->obj) {
		uint64_t missed = misses_of(program);

		if (missed && n < room)
			n += snprintf(text + n, room - n, "%s%s %llu", n ? ", " : "", bpf_program__name(program),
				      (unsigned long long)missed);
	}
}
