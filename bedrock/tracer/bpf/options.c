// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t parse_ring(const char *text)
{
	unsigned long wanted = strtoul(text, NULL, 10), size = sysconf(_SC_PAGESIZE);

	/* The kernel takes powers of two of whole pages. */
	while (size < wanted && size < 1UL << 30)
		size *= 2;
	return size;
}

bool parse_options(struct options *options, int count, char **words)
{
	*options = (struct options){ .directory = "/logs", .ring_bytes = 32 << 20, .mode = BDT_MODE_EVENTS };
	if (count % 2)
		return false;
	for (int i = 0; i < count; i += 2) {
		const char *name = words[i], *value = words[i + 1];

		if (!strcmp(name, "-o"))
			options->directory = value;
		else if (!strcmp(name, "--ring-bytes"))
			options->ring_bytes = parse_ring(value);
		else if (!strcmp(name, "--mode"))
			options->mode = !strcmp(value, "summary") ? BDT_MODE_SUMMARY : BDT_MODE_EVENTS;
		else if (!strcmp(name, "--max-bytes"))
			options->max_bytes = strtoull(value, NULL, 10);
		else if (!strcmp(name, "--ops"))
			options->ops = value;
		else if (!strcmp(name, "--path") && options->prefix_count < BDT_MAX_PREFIXES)
			options->prefixes[options->prefix_count++] = value;
		else if (strcmp(name, "--container"))
			return false;
	}
	return true;
}
