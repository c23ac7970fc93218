/* SPDX-License-Identifier: Apache-2.0 */
/* The trace of one session, from before its target begins to the last record. */
#pragma once

#include "options.h"
#include "probes.h"
#include "proof.h"
#include "status.h"
#include "writer.h"

struct ring_buffer;

struct trace {
	struct probes *probes;
	struct options options;
	int stop; /* readable when the trace is to end */
	void (*on_state)(struct trace *trace); /* called after a state was entered; may be NULL */
	struct target target;
	struct ring_buffer *ring;
	struct writer *writer;
	struct proof proof;
	struct status status;
	int64_t flushed_ns;
	int told_errno; /* of the writer, the last that was said */
	uint64_t missed_before; /* probes that were left out before the session began, for whichever task */
	uint64_t total_records; /* that the loader makes itself */
	uint64_t unproven; /* records that were taken out because the probes' pairing can't be proven */
	uint64_t size_lost;
	uint64_t unseen_ends; /* requests that had not completed when the trace ended */
};

/* Trace one session; return when ``stop`` is readable and everything is written. False: nothing could be traced. */
bool run_trace(struct trace *trace);
