// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The text arguments of a call: paths and names in the target's memory.
 *
 * They are written when the call begins, since by its return another thread may have put other text there. They are read
 * again at the return: where they differ, the kernel may have acted on either, and the call is marked. What was not in
 * memory at the beginning (a probe can't wait for a page) is read at the return alone, and marked as that.
 */
#pragma once

#include "files.bpf.h"

#define WORDS_AT_ONCE 8 /* of a text, before it takes a loop */

struct hashing {
	__u64 hash;
	__u32 size;
	__u32 turns;
};

/* One word of the text in the scratch. A product with a secret key is what a target can't forge. */
static __always_inline __u64 hash_word(struct thread *thread, __u64 hash, __u32 at, __u32 size)
{
	char *text = (char *)&thread->scratch + sizeof(struct bdt_string);
	__u64 word = *(__u64 *)(text + (at & (MAX_PATH - 8)));

	if (size - at < 8)
		word &= (1ULL << (size - at) * 8) - 1;
	hash = (hash ^ word) * (hash_key | 1);
	return hash ^ hash >> 29;
}

static __always_inline long hash_turn(__u32 index, struct hashing *it)
{
	struct thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);
	__u32 at = (index + WORDS_AT_ONCE) * 8;

	if (!thread || at >= it->size)
		return 1;
	it->hash = hash_word(thread, it->hash, at, it->size);
	return 0;
}

LOOP(hash_turn, hashing)

static __always_inline __u64 hash_text(struct thread *thread, __u32 size)
{
	struct hashing it = { .hash = hash_key ^ size, .size = size };

	for (__u32 i = 0; i < WORDS_AT_ONCE; i++) {
		if (i * 8 >= size)
			break;
		it.hash = hash_word(thread, it.hash, i * 8, size);
	}
	if (size > WORDS_AT_ONCE * 8)
		run_hash_turn(&it, MAX_PATH / 8 - WORDS_AT_ONCE);
	return it.hash;
}

/* Read a text argument when its call begins, and write it. */
int __noinline take_text(struct thread *thread, struct argument *argument, __u64 address, __u32 kind)
{
	char *text;
	__u32 flags = kind & IS_SECOND ? BDT_TEXT_SECOND : 0, size;

	if (!thread || !argument)
		return 0;
	argument->address = address;
	argument->first = 0;
	argument->is_unread = 0;
	if (!address)
		return 0;
	size = read_string(thread, address, FROM_USER, &flags);
	if (flags & BDT_TEXT_UNREADABLE) {
		argument->is_unread = 1;
		return 0;
	}
	if (flags & BDT_TEXT_CUT)
		count_cause(thread->slot, BDT_CAUSE_STRING_CUT);
	text = (char *)&thread->scratch + sizeof(struct bdt_string);
	argument->first = size ? text[0] : 0;
	argument->size = size;
	argument->hash = hash_text(thread, size);
	emit_scratch_string(thread, thread->entry_tid, thread->time_ns, size, flags);
	return 0;
}

/* Look at a text argument once more when its call returns. ``kind`` has MAY_FAIL where the kernel could not read it. */
int __noinline check_text(struct thread *thread, struct argument *argument, __u32 kind)
{
	__u32 flags = kind & IS_SECOND ? BDT_TEXT_SECOND : 0, size;
	char *text;

	if (!thread || !argument || !argument->address)
		return 0;
	size = read_string(thread, argument->address, FROM_USER, &flags);
	if (!argument->is_unread) {
		if (flags & BDT_TEXT_UNREADABLE || size != argument->size || hash_text(thread, size) != argument->hash) {
			thread->changed = 1;
			count_cause(thread->slot, BDT_CAUSE_STRING_CHANGED);
		}
		return 0;
	}
	if (flags & BDT_TEXT_UNREADABLE) {
		if (!(kind & MAY_FAIL))
			count_cause(thread->slot, BDT_CAUSE_READ_FAULT);
		size = 0;
	} else {
		thread->late = 1;
	}
	if (flags & BDT_TEXT_CUT)
		count_cause(thread->slot, BDT_CAUSE_STRING_CUT);
	text = (char *)&thread->scratch + sizeof(struct bdt_string);
	argument->first = size ? text[0] : 0;
	emit_scratch_string(thread, thread->entry_tid, thread->time_ns, size, flags);
	return 0;
}

/*
 * The directories from which a call's paths count, when it begins. ``from`` is that of the first path, unless the call is
 * about a descriptor; ``to`` is that of the second one.
 */
static __always_inline int take_bases(struct thread *thread, __u32 op)
{
	const volatile struct bdt_shape *shape = &shapes[op & (OPS - 1)];
	__u32 first;
	__s32 base;

	if (!thread)
		return 0;
	base = shape->base ? (__s32)thread->argument[(shape->base - 1) & 7] : AT_FDCWD;
	first = thread->path.first;
	if (shape->path) {
		/* Where the text is not known yet, it is taken for a relative one; correct_base sees to the others. */
		if (thread->path.is_unread || (first == '/' && thread->in_root))
			first = '.';
		note_base(thread, &thread->from, first, base);
		thread->has_base = 1;
	}
	return 0;
}
