/* SPDX-License-Identifier: Apache-2.0 */
/* The programs in the kernel: one set for the host, and an entry for each session that is traced by it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bdt_format.h"
#include "calls.h"
#include "session.h"
#include "options.h"

#define MESSAGE_BYTES 4096

struct bdtrace_bpf;

struct probes {
	struct bdtrace_bpf *skeleton;
	uint32_t unsupported; /* BDT_FEATURE_... that this kernel does not give */
	bool is_preemptible; /* a task may lose the processor within a probe */
	bool uses_events; /* calls are seen through perf events, which is the way round that */
	double attach_ms;
	struct counts *counts; /* of all sessions on all processors, see COUNTS_AT */
	uint32_t processors; /* the highest number that the kernel may give to one, plus one */
};

/* Load and attach the probes, which let everything pass as long as no session is there. False: ``error`` says why. */
bool open_probes(struct probes *probes, char error[MESSAGE_BYTES]);

/* How often the kernel left out the probes of calls, and all of them, for whichever task. */
uint64_t missed_calls(struct probes *probes);
uint64_t missed_probes(struct probes *probes);

/* Which probes were left out how often since they were attached, for the log. */
void describe_misses(struct probes *probes, char *text, size_t room);

/* What the probes are told of one session. */
struct target {
	uint32_t slot; /* which entry is its own */
	uint32_t number; /* by which it is told from others that had the entry */
	uint32_t inum; /* of its PID namespace; 0 before it is armed */
	uint32_t level; /* of its PID namespace */
	int namespace; /* a descriptor, kept so that the kernel gives the number to no other one */
	int ring; /* the map */
};

/* Take a free entry and give it a ring. May be called by several threads. False: ``error`` says why. */
bool prepare_target(struct probes *probes, struct target *target, const struct options *options,
		    char error[MESSAGE_BYTES]);

/* See to it that the next target of this size need not wait for a ring. */
void keep_ring_ready(struct probes *probes, uint32_t bytes);

/* From now on trace the PID namespace of a process. False: ``error`` says why. */
bool arm_target(struct probes *probes, struct target *target, pid_t pid, char error[MESSAGE_BYTES]);

/* Trace it no more; what is under way may still come. */
void disarm_target(struct probes *probes, struct target *target);

/* Give the entry back, when no probe can be in it any more. */
void release_target(struct probes *probes, struct target *target);

/* From now on records are counted only: the trace has its upper size. */
void set_full(struct probes *probes, struct target *target);
bool is_full(struct probes *probes, struct target *target);

/* Whether events of a kind are wanted. */
bool is_wanted(struct probes *probes, struct target *target, int op);

/* What has been seen and lost up to now, as the probes count it. */
struct counts read_counts(struct probes *probes, struct target *target);

/* The maps of what is kept in the kernel beside the ring: they are all sessions' together. */
int totals_of_files(struct probes *probes);
int totals_of_ops(struct probes *probes);
int requests_under_way(struct probes *probes);

/* The names of the features in a mask, as JSON strings with commas between. */
void list_features(uint32_t mask, char *text, size_t room);
