// SPDX-License-Identifier: Apache-2.0
#include "proof.h"

#include "clocks.h"

void begin_proof(struct proof *proof, struct probes *probes)
{
	*proof = (struct proof){ .probes = probes, .looked_ns = clock_ns(CLOCK_MONOTONIC) };
	proof->missed = missed_calls(probes);
}

static void look(struct proof *proof)
{
	/* First the time: what is left out from then on may not be in the count. */
	int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
	uint64_t missed = missed_calls(proof->probes);
	int last = proof->gap_count - 1;

	if (missed != proof->missed) {
		if (last >= 0 && (proof->gaps[last].until_ns == proof->looked_ns || last == MAX_GAPS - 1))
			proof->gaps[last].until_ns = now_ns;
		else {
			proof->gaps[proof->gap_count].from_ns = proof->looked_ns;
			proof->gaps[proof->gap_count++].until_ns = now_ns;
		}
	}
	proof->missed = missed;
	proof->looked_ns = now_ns;
}

bool nothing_missed(struct proof *proof, int64_t from_ns, int64_t until_ns)
{
	if (until_ns >= proof->looked_ns)
		look(proof);
	for (int i = proof->gap_count - 1; i >= 0; i--) {
		if (proof->gaps[i].until_ns < from_ns)
			break;
		if (proof->gaps[i].from_ns <= until_ns)
			return false;
	}
	return true;
}
