/* SPDX-License-Identifier: Apache-2.0 */
/* The trace file: records in, compressed blocks out. See format.py for the layout. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct writer;

/* What has become of the records. */
struct written {
	uint64_t records;
	uint64_t bytes; /* of the file, its header included */
	uint64_t lost; /* records that the file system did not take */
	int error; /* the last errno of that; 0 for none */
};

/* Make the file, header included. NULL with errno set when that is impossible. */
struct writer *writer_open(const char *path, int64_t realtime_offset_ns);

/*
 * Add one record, whose size stands in its head. It is in the file once the block that it belongs to has been flushed;
 * true: to make room for this one, the block before it has been.
 */
bool writer_append(struct writer *w, const void *record);

/* Write what is buffered, as a block. What can't be written is counted, and the file is as it was before. */
void writer_flush(struct writer *w);

/* How many records are buffered. */
size_t writer_pending(const struct writer *w);

struct written writer_state(const struct writer *w);

/* 0, or an errno. */
int writer_sync(struct writer *w);

/* Close the file; what is not flushed is gone. */
void writer_close(struct writer *w);
