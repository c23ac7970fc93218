// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <zstd.h>

#include "bdt_format.h"

#define MAX_CALLS 65536
#define MAX_NOTES 65536
#define MAX_NOTE_BYTES (4 << 20)
/* The lowest level: columns compress well by their shape, and the target shares the processors with us. */
#define LEVEL 1

struct writer {
	int file;
	struct bdt_call *calls;
	struct bdt_note_entry *entries;
	char *notes;
	char *raw;
	char *packed;
	size_t raw_room;
	size_t packed_room;
	ZSTD_CCtx *compressor;
	uint32_t call_count;
	uint32_t note_count;
	uint32_t note_bytes;
	uint64_t first_call;
	struct written written;
};

static bool write_whole(struct writer *w, const struct iovec *parts, int count)
{
	for (int i = 0; i < count; i++) {
		const char *at = parts[i].iov_base;
		size_t left = parts[i].iov_len;

		while (left) {
			ssize_t n = write(w->file, at, left);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0) {
				w->written.error = errno;
				/* Half a block would be misread: take the file back to where it was whole. */
				if (ftruncate(w->file, w->written.bytes) == 0)
					lseek(w->file, w->written.bytes, SEEK_SET);
				return false;
			}
			at += n;
			left -= n;
		}
	}
	return true;
}

struct writer *writer_open(const char *path, int64_t realtime_offset_ns)
{
	struct bdt_file_header header = {
		.frame = BDT_SKIPPABLE,
		.frame_size = sizeof(header) - 8,
		.magic = BDT_MAGIC,
		.version = BDT_VERSION,
		.page_size = sysconf(_SC_PAGESIZE),
		.realtime_offset_ns = realtime_offset_ns,
	};
	struct iovec part = { &header, sizeof(header) };
	struct writer *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		return NULL;
	w->file = -1;
	w->raw_room = MAX_CALLS * sizeof(struct bdt_call) + MAX_NOTES * sizeof(struct bdt_note_entry) + MAX_NOTE_BYTES;
	w->packed_room = 2 * ZSTD_compressBound(w->raw_room);
	w->calls = malloc(MAX_CALLS * sizeof(*w->calls));
	w->entries = malloc(MAX_NOTES * sizeof(*w->entries));
	w->notes = malloc(MAX_NOTE_BYTES);
	w->raw = malloc(w->raw_room);
	w->packed = malloc(w->packed_room);
	w->compressor = ZSTD_createCCtx();
	if (!w->calls || !w->entries || !w->notes || !w->raw || !w->packed || !w->compressor) {
		writer_close(w);
		errno = ENOMEM;
		return NULL;
	}
	ZSTD_CCtx_setParameter(w->compressor, ZSTD_c_compressionLevel, LEVEL);
	/* A block that was damaged on its way must not be taken for a whole one. */
	ZSTD_CCtx_setParameter(w->compressor, ZSTD_c_checksumFlag, 1);
	w->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (w->file < 0 || !write_whole(w, &part, 1)) {
		error = errno;
		writer_close(w);
		errno = error;
		return NULL;
	}
	w->written.bytes = sizeof(header);
	return w;
}

bool writer_append(struct writer *w, const void *record)
{
	const struct bdt_string *head = record;
	bool is_full = w->call_count == MAX_CALLS || w->note_count == MAX_NOTES ||
		       w->note_bytes + head->size > MAX_NOTE_BYTES;

	if (is_full)
		writer_flush(w);
	if (head->type == BDT_REC_CALL) {
		memcpy(&w->calls[w->call_count++], record, sizeof(struct bdt_call));
		return is_full;
	}
	w->entries[w->note_count++] = (struct bdt_note_entry){ w->note_bytes, w->call_count };
	memcpy(w->notes + w->note_bytes, record, head->size);
	w->note_bytes += head->size;
	return is_full;
}

/* From rows to columns: what stands below each other is alike, which the compressor needs to see. */
static size_t lay_out_calls(struct writer *w)
{
	char *at = w->raw;
	uint64_t before = 0;

#define COLUMN(type, name)                                                   \
	for (uint32_t i = 0; i < w->call_count; i++) {                       \
		memcpy(at, &w->calls[i].name, sizeof(type));                 \
		at += sizeof(type);                                          \
	}
	for (uint32_t i = 0; i < w->call_count; i++) {
		uint64_t time_ns = w->calls[i].time_ns;

		w->calls[i].time_ns -= before;
		before = time_ns;
	}
	BDT_COLUMNS(COLUMN)
#undef COLUMN
	return at - w->raw;
}

static size_t lay_out_notes(struct writer *w)
{
	size_t entries = w->note_count * sizeof(*w->entries);

	memcpy(w->raw, w->entries, entries);
	memcpy(w->raw + entries, w->notes, w->note_bytes);
	return entries + w->note_bytes;
}

/* When the calls of the block began: they come in the order in which they ended. */
static void span(struct writer *w, struct bdt_block_header *header)
{
	header->first_ns = w->call_count ? w->calls[0].time_ns : ((struct bdt_string *)w->notes)->time_ns;
	header->last_ns = header->first_ns;
	for (uint32_t i = 0; i < w->call_count; i++) {
		if (w->calls[i].time_ns < header->first_ns)
			header->first_ns = w->calls[i].time_ns;
		if (w->calls[i].time_ns > header->last_ns)
			header->last_ns = w->calls[i].time_ns;
	}
}

/* Compress what is laid out behind what is compressed already. False: there is no memory for it. */
static bool pack(struct writer *w, size_t raw, size_t *packed, uint32_t *added)
{
	size_t n;

	*added = 0;
	if (!raw)
		return true;
	n = ZSTD_compress2(w->compressor, w->packed + *packed, w->packed_room - *packed, w->raw, raw);
	if (ZSTD_isError(n))
		return false;
	*added = n;
	*packed += n;
	return true;
}

void writer_flush(struct writer *w)
{
	struct bdt_block_header header = {
		.frame = BDT_SKIPPABLE,
		.frame_size = sizeof(header) - 8,
		.calls = w->call_count,
		.notes = w->note_count,
		.note_bytes = w->note_bytes,
		.first_call = w->first_call,
	};
	uint32_t records = w->call_count + w->note_count;
	struct iovec parts[2];
	size_t packed = 0;

	if (!records)
		return;
	span(w, &header);
	if (!pack(w, lay_out_notes(w), &packed, &header.packed_notes) ||
	    !pack(w, lay_out_calls(w), &packed, &header.packed_calls)) {
		w->written.error = ENOMEM;
		w->written.lost += records;
	} else {
		parts[0] = (struct iovec){ &header, sizeof(header) };
		parts[1] = (struct iovec){ w->packed, packed };
		if (write_whole(w, parts, 2)) {
			w->written.bytes += sizeof(header) + packed;
			w->written.records += records;
			w->first_call += w->call_count;
		} else {
			w->written.lost += records;
		}
	}
	w->call_count = 0;
	w->note_count = 0;
	w->note_bytes = 0;
}

size_t writer_pending(const struct writer *w)
{
	return w->call_count + w->note_count;
}

struct written writer_state(const struct writer *w)
{
	return w->written;
}

int writer_sync(struct writer *w)
{
	return fsync(w->file) ? errno : 0;
}

void writer_close(struct writer *w)
{
	if (w->file >= 0)
		close(w->file);
	ZSTD_freeCCtx(w->compressor);
	free(w->calls);
	free(w->entries);
	free(w->notes);
	free(w->raw);
	free(w->packed);
	free(w);
}
