/* SPDX-License-Identifier: Apache-2.0 */
/* How a session is to be traced, as the command line says it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bdt_format.h"

struct options {
	const char *directory; /* where the session's files go */
	const char *prefixes[BDT_MAX_PREFIXES];
	int prefix_count;
	const char *ops; /* comma-separated numbers; NULL means all */
	uint32_t mode;
	uint32_t ring_bytes;
	uint64_t max_bytes; /* 0: no limit */
};

/* Read ``count`` words, two for each option. False: they make no sense. The words must live as long as the options. */
bool parse_options(struct options *options, int count, char **words);
