// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Loops whose length only the run tells, on kernels with and without bpf_loop. */
#pragma once

#include "kernel.bpf.h"

struct bpf_map;

/* Set by the loader: whether this kernel has bpf_loop (from 5.17 on). */
const volatile bool has_loop;

/* What bpf_for_each_map_elem goes through in place of a counter. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TURNS);
	__type(key, __u32);
	__type(value, __u32);
} turns SEC(".maps");

/*
 * Defines run_NAME(context, count), which calls the inline function NAME(index, context) up to ``count`` times, until it
 * returns 1. The context is a struct on the stack that has a field ``turns`` for this.
 */
#define LOOP(name, type)                                                                                       \
	static long name##_loop(__u32 index, struct type *context)                                             \
	{                                                                                                      \
		return name(index, context);                                                                   \
	}                                                                                                      \
	static long name##_turn(struct bpf_map *map, const __u32 *index, __u32 *value, struct type *context)   \
	{                                                                                                      \
		return *index >= context->turns || name(*index, context);                                      \
	}                                                                                                      \
	static __always_inline void run_##name(struct type *context, __u32 count)                              \
	{                                                                                                      \
		context->turns = count;                                                                        \
		if (has_loop)                                                                                  \
			bpf_loop(count, name##_loop, context, 0);                                              \
		else                                                                                           \
			bpf_for_each_map_elem(&turns, name##_turn, context, 0);                                \
	}
