/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the loader share: what was asked for, and how far the tracer has come. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "bdt_format.h"
#include "writer.h"

#define NS_PER_S 1000000000LL
#define MESSAGE_BYTES 4096

enum state { ATTACHED, RUNNING, ENDED, FAILED, EXEC_FAILED };

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
	uint64_t unseen_ends; /* requests that had not completed when the trace ended */
	bool synced; /* the file system has promised to keep the trace */
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

/* Time on a clock, in ns. */
int64_t clock_ns(clockid_t clock);

/* status.c: what the tracer says of itself, in DIRECTORY/tracer.json. */

/* Keep a sentence for tracer.json, and print it. */
void set_error(struct tracer *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Enter a state: replace tracer.json as a whole, so that a reader never sees half of it. */
void write_status(struct tracer *t, enum state state);

/* probes.c: the programs in the kernel. */

struct counts {
	uint64_t seen;
	uint64_t filtered;
	uint64_t by_cause[BDT_CAUSES];
};

/* What has been seen and lost up to now, by the probes and by the loader. */
struct counts read_counts(struct tracer *t);

/* Load and attach the probes, which let everything pass until they are armed. False: the error has been set. */
bool attach(struct tracer *t, int (*on_record)(void *tracer, void *record, size_t size));

/* Arm the probes for the PID namespace of a process. False: the error has been set. */
bool arm(struct tracer *t, pid_t pid);

/* gatekeeper.c: the conversation with the gate, which holds the target until it is let go. */

bool listen_for_gate(struct tracer *t);

/* Let the target go. True: it runs. Otherwise why there is nothing to trace is in tracer.json, or a signal came first. */
bool open_gate(struct tracer *t);
