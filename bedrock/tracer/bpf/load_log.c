// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "load_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/libbpf.h>

#define LOG_BYTES (256 << 10)

static char *load_log;
static size_t load_log_bytes;

static int keep_log(enum libbpf_print_level level, const char *format, va_list arguments)
{
	char *text;
	size_t n;

	if (level != LIBBPF_WARN || vasprintf(&text, format, arguments) < 0)
		return 0;
	fputs(text, stderr);
	n = strlen(text);
	if (load_log && n < LOG_BYTES / 2) {
		/* The last words count: of a long log the beginning goes. */
		if (load_log_bytes + n >= LOG_BYTES) {
			memmove(load_log, load_log + LOG_BYTES / 2, load_log_bytes - LOG_BYTES / 2);
			load_log_bytes -= LOG_BYTES / 2;
		}
		memcpy(load_log + load_log_bytes, text, n + 1);
		load_log_bytes += n;
	} else if (load_log) {
		load_log_bytes = LOG_BYTES / 2;
		memcpy(load_log, text + n - load_log_bytes, load_log_bytes + 1);
	}
	free(text);
	return 0;
}

bool open_load_log(void)
{
	load_log = malloc(LOG_BYTES + 1);
	libbpf_set_print(keep_log);
	return load_log;
}

void clear_load_log(void)
{
	load_log_bytes = 0;
	*load_log = 0;
}

void close_load_log(void)
{
	free(load_log);
	load_log = NULL;
}

void refused_program(char *name, size_t room)
{
	char *at = load_log, *found = NULL;

	*name = 0;
	while (at && (at = strstr(at, "prog '"))) {
		at += 6;
		if (strstr(at, "': BPF program load failed") || strstr(at, "': failed to load"))
			found = at;
	}
	if (found)
		snprintf(name, room, "%.*s", (int)strcspn(found, "'"), found);
}

void last_words(char *text, size_t room)
{
	char *end = strstr(load_log, "processed "), *next, *begin;
	int lines = 0;

	while (end && (next = strstr(end + 1, "processed ")))
		end = next;
	if (!end) {
		snprintf(text, room, "%s", load_log + (load_log_bytes > room ? load_log_bytes - room + 1 : 0));
		return;
	}
	for (begin = end; begin > load_log && lines < 4; begin--)
		lines += begin[-1] == '\n';
	while (*begin == '\n')
		begin++;
	snprintf(text, room, "%.*s", (int)(end - begin), begin);
	for (char *at = text; *at; at++)
		if (*at == '\n')
			*at = at[1] ? '|' : 0;
}
