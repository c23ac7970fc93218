/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether what two probes saw belongs together.
 *
 * The kernel leaves a probe out on a processor on which another task is within that same probe. The return of one call
 * could then be taken for that of an earlier one, and a call whose beginning was left out for one that a seccomp filter
 * answered. The kernel counts what it leaves out, and does so before the next probe of that thread can run. So when the
 * count did not move between the time before a call and the time after it, its record holds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "probes.h"

#define MAX_GAPS 64

struct proof {
	struct probes *probes;
	uint64_t missed; /* the kernel's count when it was last looked at */
	int64_t looked_ns;
	int gap_count;
	struct {
		int64_t from_ns, until_ns; /* within which probes were left out */
	} gaps[MAX_GAPS];
};

void begin_proof(struct proof *proof, struct probes *probes);

/* Whether no probe of a call was left out between two times on the monotonic clock, of which the later one is past. */
bool nothing_missed(struct proof *proof, int64_t from_ns, int64_t until_ns);
