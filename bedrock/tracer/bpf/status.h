/* SPDX-License-Identifier: Apache-2.0 */
/* What the tracer says of a session: its state in DIRECTORY/tracer.json, and sentences in its log. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "bdt_format.h"
#include "probes.h"

enum state { STARTING, ATTACHED, RUNNING, ENDED, FAILED, EXEC_FAILED };

struct status {
	const char *directory;
	FILE *log; /* where sentences go */
	enum state state;
	char error[MESSAGE_BYTES]; /* the last sentence */
	int exit_code;
	pid_t target;
	uint64_t t0_ns;
	int64_t realtime_offset_ns;
	double attach_ms;
	bool synced; /* the file system has promised to keep the trace */
	uint32_t mode;
	uint32_t unsupported;
	uint64_t written;
	uint64_t written_bytes;
	struct counts counts;
};

/* Keep a sentence for tracer.json, and print it. */
void set_error(struct status *status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Enter a state: replace tracer.json as a whole, so that a reader never sees half of it. */
void write_status(struct status *status, enum state state);

/* Print a text as a JSON string. */
void print_json_string(FILE *file, const char *text);
