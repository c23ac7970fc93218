// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tracer.h"

static const char *const state_names[] = { "attached", "running", "ended", "failed", "exec_failed" };
static const char *const cause_names[BDT_CAUSES] = {
	[BDT_CAUSE_RING_FULL] = "ring_full",
	[BDT_CAUSE_MAP_FULL] = "map_full",
	[BDT_CAUSE_WRITE_ERROR] = "write_error",
	[BDT_CAUSE_STRING_CUT] = "string_cut",
	[BDT_CAUSE_READ_FAULT] = "read_fault",
	[BDT_CAUSE_SIZE_LIMIT] = "size_limit",
	[BDT_CAUSE_MAPPING_BUSY] = "mapping_busy",
	[BDT_CAUSE_FOREIGN_ABI] = "foreign_abi",
	[BDT_CAUSE_PROBE_MISSED] = "probe_missed",
	[BDT_CAUSE_END_UNSEEN] = "end_unseen",
	[BDT_CAUSE_REQUEST_UNREAD] = "request_unread",
};

void set_error(struct tracer *t, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(t->error, sizeof(t->error), format, arguments);
	va_end(arguments);
	fprintf(stderr, "bdtrace: %s\n", t->error);
}

static void write_json_string(FILE *file, const char *text)
{
	fputc('"', file);
	for (; *text; text++) {
		unsigned char c = *text;

		if (c == '"' || c == '\\')
			fprintf(file, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(file, "\\u%04x", c);
		else
			fputc(c, file);
	}
	fputc('"', file);
}

void write_status(struct tracer *t, enum state state)
{
	char path[PATH_MAX], temporary[PATH_MAX];
	struct written written = t->writer ? writer_state(t->writer) : (struct written){};
	struct counts counts = read_counts(t);
	FILE *file;

	t->state = state;
	snprintf(path, sizeof(path), "%s/tracer.json", t->wishes.directory);
	snprintf(temporary, sizeof(temporary), "%s/.tracer.json.tmp", t->wishes.directory);
	file = fopen(temporary, "w");
	if (!file)
		return;
	fprintf(file, "{\"state\":\"%s\",\"pid\":%d,\"exit_code\":%d,\"t0_ns\":%" PRIu64, state_names[state], t->target,
		t->exit_code, t->t0_ns);
	fprintf(file, ",\"realtime_offset_ns\":%" PRId64 ",\"attach_ms\":%.3f,\"error\":", t->realtime_offset_ns,
		t->attach_ms);
	write_json_string(file, t->error);
	fprintf(file, ",\"synced\":%s", t->synced ? "true" : "false");
	fprintf(file, ",\"mode\":%u,\"unsupported\":[%s],\"filtered\":%" PRIu64, t->wishes.mode, t->unsupported,
		counts.filtered);
	fprintf(file, ",\"seen\":%" PRIu64 ",\"written\":%" PRIu64 ",\"written_bytes\":%" PRIu64 ",\"lost\":{",
		counts.seen, written.records, written.bytes);
	for (int cause = 0, some = 0; cause < BDT_CAUSES; cause++)
		if (counts.by_cause[cause])
			fprintf(file, "%s\"%s\":%" PRIu64, some++ ? "," : "", cause_names[cause], counts.by_cause[cause]);
	fprintf(file, "}}\n");
	fflush(file);
	fsync(fileno(file));
	if (fclose(file) || rename(temporary, path))
		fprintf(stderr, "bdtrace: %s can't be written: %s\n", path, strerror(errno));
}
