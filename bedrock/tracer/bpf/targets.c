// SPDX-License-Identifier: Apache-2.0
/* The sessions' entries among the probes: which are free, what is in them, and the rings that belong to them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/membarrier.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "probes.h"

#include "bdtrace.skel.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t last_number;
static bool is_taken[MAX_SESSIONS];
/* A ring outlives its session: making it known to the probes takes the kernel longer than all the rest. */
static struct {
	int map;
	uint32_t bytes;
} ring_of[MAX_SESSIONS];
/* How many live namespaces share a bit of the filter, and have a level. */
static uint16_t sharing[NAMESPACE_BITS];
static uint16_t on_level[32];

static struct session *entry(struct probes *probes, uint32_t slot)
{
	return &probes->skeleton->bss->sessions[slot];
}

/* Which events are wanted: all, or those whose numbers were given, and the processes' own. */
static void fill_wanted(uint8_t *wants, const char *ops)
{
	memset(wants, !ops, OPS);
	while (ops && *ops) {
		char *end;
		unsigned long op = strtoul(ops, &end, 10);

		if (op < OPS)
			wants[op] = 1;
		ops = *end ? end + 1 : end;
	}
	for (int op = BDT_OP_EXECVE; op <= BDT_OP_EXIT; op++)
		wants[op] = 1;
	wants[BDT_OP_CORE_DUMP] = 1;
	wants[0] = 0;
}

/* Paths stand in records with their last component first, each with a slash behind. */
static void fill_prefix(struct bdt_prefix *prefix, const char *path)
{
	size_t end = strlen(path), size = 0;

	while (end) {
		size_t begin = end;

		while (begin && path[begin - 1] != '/')
			begin--;
		if (begin < end && size + end - begin + 1 <= BDT_MAX_PREFIX) {
			memcpy(prefix->text + size, path + begin, end - begin);
			size += end - begin;
			prefix->text[size++] = '/';
		}
		end = begin ? begin - 1 : 0;
	}
	prefix->size = size;
}

/* Give an entry a ring of a size. False: ``errno`` says why. */
static bool give_ring(struct probes *probes, uint32_t slot, uint32_t bytes)
{
	int map;

	if (ring_of[slot].bytes == bytes)
		return true;
	map = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "ring", 0, 0, bytes, NULL);
	if (map < 0 || bpf_map_update_elem(bpf_map__fd(probes->skeleton->maps.rings), &slot, &map, BPF_ANY))
		return false;
	if (ring_of[slot].bytes)
		close(ring_of[slot].map);
	ring_of[slot].map = map;
	ring_of[slot].bytes = bytes;
	return true;
}

void keep_ring_ready(struct probes *probes, uint32_t bytes)
{
	int free = -1;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_SESSIONS; i++) {
		if (is_taken[i])
			continue;
		if (ring_of[i].bytes == bytes) {
			free = -1;
			break;
		}
		if (free < 0)
			free = i;
	}
	/* Nobody else may have it meanwhile. */
	if (free >= 0)
		is_taken[free] = true;
	pthread_mutex_unlock(&lock);
	if (free < 0)
		return;
	give_ring(probes, free, bytes);
	pthread_mutex_lock(&lock);
	is_taken[free] = false;
	pthread_mutex_unlock(&lock);
}

static bool take_slot(struct target *target, uint32_t ring_bytes)
{
	int best = -1;

	pthread_mutex_lock(&lock);
	/* One that has a ring of this size already is the quickest. */
	for (int i = MAX_SESSIONS - 1; i >= 0; i--)
		if (!is_taken[i] && (best < 0 || ring_of[i].bytes == ring_bytes))
			best = i;
	if (best >= 0) {
		is_taken[best] = true;
		target->number = ++last_number;
	}
	pthread_mutex_unlock(&lock);
	target->slot = best;
	return best >= 0;
}

static void clear_counts(struct probes *probes, uint32_t slot)
{
	for (uint32_t processor = 0; processor < probes->processors; processor++)
		memset(&probes->counts[COUNTS_AT(processor, slot)], 0, sizeof(struct counts));
}

bool prepare_target(struct probes *probes, struct target *target, const struct options *options,
		    char error[MESSAGE_BYTES])
{
	struct session *session;

	*target = (struct target){ .namespace = -1, .ring = -1 };
	if (!take_slot(target, options->ring_bytes)) {
		snprintf(error, MESSAGE_BYTES, "%d sessions are traced already, which is as many as there is room for",
			 MAX_SESSIONS);
		return false;
	}
	if (!give_ring(probes, target->slot, options->ring_bytes)) {
		snprintf(error, MESSAGE_BYTES, "a ring of %u bytes can't be made: %s", options->ring_bytes, strerror(errno));
		release_target(probes, target);
		return false;
	}
	target->ring = ring_of[target->slot].map;
	clear_counts(probes, target->slot);
	session = entry(probes, target->slot);
	memset(session, 0, sizeof(*session));
	session->mode = options->mode;
	session->wakeup_bytes = options->ring_bytes / 8;
	session->prefix_count = options->prefix_count;
	for (int i = 0; i < options->prefix_count; i++)
		fill_prefix(&session->prefixes[i], options->prefixes[i]);
	fill_wanted(session->wants, options->ops);
	session->opens_are_untold = !session->wants[BDT_OP_OPENAT] || options->prefix_count;
	return true;
}

/* The level of a process's PID namespace: its status has a number for each from this /proc's down to its own. */
static uint32_t level_of(pid_t pid)
{
	char path[64], line[256];
	uint32_t level = 0;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "r");
	while (status && fgets(line, sizeof(line), status))
		if (!strncmp(line, "NSpid:", 6))
			for (char *rest, *at = strtok_r(line + 6, "\t \n", &rest); at; at = strtok_r(NULL, "\t \n", &rest))
				level++;
	if (status)
		fclose(status);
	return level;
}

static void set_lowest_level(struct probes *probes)
{
	uint32_t level = 0;

	while (level < 32 && !on_level[level])
		level++;
	__atomic_store_n(&probes->skeleton->data->lowest_level, level < 32 ? level : ~0U, __ATOMIC_SEQ_CST);
}

/* Make a namespace known to the probes, or have them forget it. */
static bool make_known(struct probes *probes, struct target *target, bool is_known)
{
	int map = bpf_map__fd(probes->skeleton->maps.slots);
	uint8_t *bit = &probes->skeleton->bss->namespaces[NAMESPACE_BIT(target->inum)];
	uint16_t *count = &sharing[NAMESPACE_BIT(target->inum)];
	bool is_done = true;

	pthread_mutex_lock(&lock);
	if (is_known) {
		is_done = !bpf_map_update_elem(map, &target->inum, &target->slot, BPF_NOEXIST);
		*count += is_done;
		on_level[target->level & 31] += is_done;
	} else {
		bpf_map_delete_elem(map, &target->inum);
		(*count)--;
		on_level[target->level & 31]--;
	}
	*bit = *count > 0;
	set_lowest_level(probes);
	pthread_mutex_unlock(&lock);
	return is_done;
}

bool arm_target(struct probes *probes, struct target *target, pid_t pid, char error[MESSAGE_BYTES])
{
	struct session *session = entry(probes, target->slot);
	struct stat own, other;
	char path[64];
	uint32_t level;

	/*
	 * Kept until the session is over: the kernel gives the number of a namespace that is gone to the next one, and the
	 * probes would take the container that gets it for this session's.
	 */
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	target->namespace = open(path, O_RDONLY | O_CLOEXEC);
	if (stat("/proc/self/ns/pid", &own) || target->namespace < 0 || fstat(target->namespace, &other)) {
		snprintf(error, MESSAGE_BYTES,
			 "the target's PID namespace can't be read (%s); the tracer needs the host's PID namespace and "
			 "CAP_SYS_PTRACE", strerror(errno));
		return false;
	}
	if (own.st_ino == other.st_ino) {
		snprintf(error, MESSAGE_BYTES,
			 "the target has no PID namespace of its own, so it can't be told from the rest of the host");
		return false;
	}
	level = level_of(pid);
	if (level < 2) {
		snprintf(error, MESSAGE_BYTES, "the level of the target's PID namespace can't be read from /proc/%d/status", pid);
		return false;
	}
	session->level = target->level = level - 1;
	__atomic_store_n(&session->number, target->number, __ATOMIC_SEQ_CST);
	target->inum = other.st_ino;
	if (!make_known(probes, target, true)) {
		target->inum = 0;
		snprintf(error, MESSAGE_BYTES, "the target's PID namespace is another session's already");
		return false;
	}
	return true;
}

void disarm_target(struct probes *probes, struct target *target)
{
	if (target->inum)
		make_known(probes, target, false);
	target->inum = 0;
	__atomic_store_n(&entry(probes, target->slot)->number, 0, __ATOMIC_SEQ_CST);
}

static int drop_record(void *context, void *data, size_t size)
{
	(void)context;
	(void)data;
	(void)size;
	return 0;
}

static void empty_ring(int map)
{
	struct ring_buffer *ring = map >= 0 ? ring_buffer__new(map, drop_record, NULL, NULL) : NULL;

	if (!ring)
		return;
	while (ring_buffer__consume(ring) > 0)
		;
	ring_buffer__free(ring);
}

void release_target(struct probes *probes, struct target *target)
{
	disarm_target(probes, target);
	/* A probe that began before may still write to the ring: wait for all of them, then empty it. */
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	empty_ring(target->ring);
	if (target->namespace >= 0)
		close(target->namespace);
	target->namespace = -1;
	pthread_mutex_lock(&lock);
	is_taken[target->slot] = false;
	pthread_mutex_unlock(&lock);
}

void set_full(struct probes *probes, struct target *target)
{
	__atomic_store_n(&entry(probes, target->slot)->is_full, 1, __ATOMIC_SEQ_CST);
}

bool is_full(struct probes *probes, struct target *target)
{
	return entry(probes, target->slot)->is_full;
}

bool is_wanted(struct probes *probes, struct target *target, int op)
{
	return entry(probes, target->slot)->wants[op & (OPS - 1)];
}

struct counts read_counts(struct probes *probes, struct target *target)
{
	struct counts sum = {};

	for (uint32_t processor = 0; processor < probes->processors; processor++) {
		const volatile struct counts *each = &probes->counts[COUNTS_AT(processor, target->slot)];

		sum.seen += each->seen;
		sum.filtered += each->filtered;
		for (int cause = 0; cause < BDT_CAUSES; cause++)
			sum.by_cause[cause] += each->by_cause[cause];
	}
	return sum;
}

int totals_of_files(struct probes *probes)
{
	return bpf_map__fd(probes->skeleton->maps.file_totals);
}

int totals_of_ops(struct probes *probes)
{
	return bpf_map__fd(probes->skeleton->maps.op_totals);
}

int requests_under_way(struct probes *probes)
{
	return bpf_map__fd(probes->skeleton->maps.requests);
}
