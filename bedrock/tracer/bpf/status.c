// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "status.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static const char *const state_names[] = { "starting", "attached", "running", "ended", "failed", "exec_failed" };
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
	[BDT_CAUSE_STRING_CHANGED] = "string_changed",
	[BDT_CAUSE_PROBE_SKIPPED] = "probe_skipped",
};

void set_error(struct status *status, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(status->error, sizeof(status->error), format, arguments);
	va_end(arguments);
	fprintf(status->log, "bdtrace: %s\n", status->error);
	fflush(status->log);
}

void print_json_string(FILE *file, const char *text)
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

void write_status(struct status *status, enum state state)
{
	char path[PATH_MAX], temporary[PATH_MAX], features[512];
	FILE *file;

	status->state = state;
	list_features(status->unsupported, features, sizeof(features));
	snprintf(path, sizeof(path), "%s/tracer.json", status->directory);
	snprintf(temporary, sizeof(temporary), "%s/.tracer.json.tmp", status->directory);
	file = fopen(temporary, "we");
	if (!file)
		return;
	fprintf(file, "{\"state\":\"%s\",\"pid\":%d,\"exit_code\":%d,\"t0_ns\":%" PRIu64, state_names[state],
		status->target, status->exit_code, status->t0_ns);
	fprintf(file, ",\"realtime_offset_ns\":%" PRId64 ",\"attach_ms\":%.3f,\"error\":", status->realtime_offset_ns,
		status->attach_ms);
	print_json_string(file, status->error);
	fprintf(file, ",\"synced\":%s", status->synced ? "true" : "false");
	fprintf(file, ",\"mode\":%u,\"unsupported\":[%s],\"filtered\":%" PRIu64, status->mode, features,
		status->counts.filtered);
	fprintf(file, ",\"seen\":%" PRIu64 ",\"written\":%" PRIu64 ",\"written_bytes\":%" PRIu64 ",\"lost\":{",
		status->counts.seen, status->written, status->written_bytes);
	for (int cause = 0, some = 0; cause < BDT_CAUSES; cause++)
		if (status->counts.by_cause[cause])
			fprintf(file, "%s\"%s\":%" PRIu64, some++ ? "," : "", cause_names[cause],
				status->counts.by_cause[cause]);
	fprintf(file, "}}\n");
	fflush(file);
	/* Of the states before the end only the last one must outlive the machine. */
	if (state >= ENDED)
		fsync(fileno(file));
	if (fclose(file) || rename(temporary, path))
		fprintf(status->log, "bdtrace: %s can't be written: %s\n", path, strerror(errno));
}
