// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Which file is mapped at an address. */
#pragma once

#include "files.bpf.h"

enum { NOT_MAPPED, MAPPED, MAPPING_CHANGES };

/* A tree of so many levels holds more mappings than a process may have; what is more are walks begun anew. */
#define MAPLE_STEPS 16
#define MAPLE_PIVOTS 15
#define MAPLE_NODE (~255ULL)

/* A walk: the entry it has come to, and the largest address that the entry is about. */
struct maple_walk {
	__u64 address;
	__u64 root;
	__u64 entry;
	__u64 max;
	struct mapping mapping;
	int found;
	__u32 turns;
};

/* The offset of a field in a node, which is of one layout or the other. */
#define IN_NODE(is_arange, field)                                                                    \
	((is_arange) ? bpf_core_field_offset(struct maple_arange_64, field) :                        \
		       bpf_core_field_offset(struct maple_range_64, field))

/* From a node of the tree to the entry that the address belongs to. */
static __always_inline void descend(struct maple_walk *walk, __u64 node, bool is_arange)
{
	__u64 pivots[MAPLE_PIVOTS] = {};
	__u8 end = 0;
	__u32 slot;

	bpf_probe_read_kernel(pivots, is_arange ? sizeof(__u64) * 9 : sizeof(pivots),
			      (void *)(node + IN_NODE(is_arange, pivot)));
	/* Behind the last slot that is in use, pivots may be left over from before. Where all are in use, none tells. */
	if (is_arange || !pivots[MAPLE_PIVOTS - 1])
		bpf_probe_read_kernel(&end, sizeof(end), (void *)(node + IN_NODE(is_arange, meta.end)));
	else
		end = pivots[MAPLE_PIVOTS - 1] == walk->max ? MAPLE_PIVOTS - 1 : MAPLE_PIVOTS;
	slot = end;
#pragma unroll
	for (int i = MAPLE_PIVOTS - 1; i >= 0; i--)
		if (i < end && pivots[i] >= walk->address) {
			slot = i;
			walk->max = pivots[i];
		}
	walk->entry = word_at(node + IN_NODE(is_arange, slot) + slot * sizeof(__u64));
}

/* One level down; 1 ends the walk. */
static __always_inline long walk_down(__u32 index, struct maple_walk *walk)
{
	__u64 node = walk->entry & MAPLE_NODE;
	__u32 type = walk->entry >> 3 & 15;
	struct vm_area_struct *vma;

	if (!node) {
		walk->mapping.end = walk->max;
		walk->found = NOT_MAPPED;
		return 1;
	}
	descend(walk, node, type == bpf_core_enum_value(enum maple_type, maple_arange_64));
	/* A node that is no longer in the tree is its own parent. */
	if ((word_at(node) & MAPLE_NODE) != node) {
		if (type >= bpf_core_enum_value(enum maple_type, maple_range_64))
			return 0;
		vma = (struct vm_area_struct *)walk->entry;
		if (!vma) {
			/* Nothing is mapped up to there. */
			walk->mapping.end = walk->max;
			walk->found = NOT_MAPPED;
			return 1;
		}
		walk->mapping.start = FIELD(vm_area_struct, vma, vm_start);
		walk->mapping.end = FIELD(vm_area_struct, vma, vm_end);
		walk->mapping.page_offset = FIELD(vm_area_struct, vma, vm_pgoff);
		walk->mapping.file = (__u64)BPF_CORE_READ(vma, vm_file);
		walk->mapping.flags = FIELD(vm_area_struct, vma, vm_flags);
		if (walk->mapping.start <= walk->address && walk->address < walk->mapping.end) {
			walk->found = MAPPED;
			return 1;
		}
	}
	walk->entry = word_at(walk->root);
	walk->max = ~0ULL;
	return 0;
}

LOOP(walk_down, maple_walk)

/*
 * What is mapped at an address of the current process. The kernel's own look-up needs the lock of the map, which it can
 * give back only later when interrupts are off, as they are when a fault begins; that interrupt costs many times what
 * all the rest of a probe does. Nodes and mappings that are replaced live on until all who may look at them, such as
 * we, are gone; what is read is checked, and the walk begun anew when somebody has been at it.
 */
int __noinline find_mapping(struct mapping *mapping, __u64 address)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	/* Call-backs take addresses on the stack of their caller only. */
	struct maple_walk walk = { .address = address, .max = ~0ULL, .found = MAPPING_CHANGES };

	if (!mapping || !mm || !bpf_core_field_exists(mm->mm_mt))
		return NOT_MAPPED;
	walk.root = (__u64)mm + bpf_core_field_offset(struct mm_struct, mm_mt.ma_root);
	walk.entry = word_at(walk.root);
	/* A tree of one entry has no node, and no process has one mapping only. */
	if ((walk.entry & 3) != 2 || walk.entry <= 4096)
		return NOT_MAPPED;
	run_walk_down(&walk, MAPLE_STEPS);
	*mapping = walk.mapping;
	return walk.found;
}

/* Take down a file by one of its mappings; there, the kernel keeps the lower file of a stacked one. */
int __noinline note_mapped(struct thread *thread, struct subject *subject, __u64 file_address)
{
	struct file *file = (struct file *)file_address;
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct vfsmount *mnt = BPF_CORE_READ(file, f_path.mnt);

	if (!thread || !subject)
		return 0;
	if (bpf_core_type_exists(struct backing_file) && BPF_CORE_READ(file, f_mode) & MAY_BE_BACKING) {
		struct backing_file *backing = (struct backing_file *)file_address;
		struct dentry *upper = BPF_CORE_READ(backing, user_path.dentry);

		/* The two are one file, so they are of one kind and have the same rights. */
		if (upper && BPF_CORE_READ(upper, d_inode, i_mode) == BPF_CORE_READ(file, f_inode, i_mode)) {
			dentry = upper;
			mnt = BPF_CORE_READ(backing, user_path.mnt);
		}
	}
	subject->file = file_address;
	subject->flags = BDT_CALL_HAS_FILE | BDT_CALL_HAS_OFFSET;
	return identify(thread, subject, (__u64)dentry, (__u64)mnt, IF_NEW);
}

/* Where a walk along the mappings of a call has come to; ``at`` is 0 when it is done. */
struct piece_walk {
	__u64 at;
	__u64 end;
	__u32 turns;
};

/* Take down the file that is mapped at an address, as a piece of what a call is about, and go on behind it. */
int __noinline take_piece(struct thread *thread, __u64 start, __u64 end)
{
	struct mapping *mapping;
	struct piece *piece;
	int found;

	if (!thread)
		return 0;
	mapping = &thread->mapping;
	found = find_mapping(mapping, start);
	if (found == MAPPING_CHANGES) {
		/* Whether there is a file, and which, stays unknown. */
		count_lost(thread->slot, BDT_CAUSE_MAPPING_BUSY);
		mapping->end = end;
		return 0;
	}
	if (found == NOT_MAPPED) {
		mapping->end++;
		if (mapping->end <= start)
			mapping->end = end;
		return 0;
	}
	if (!mapping->file)
		return 0;
	if (thread->piece_count >= MAX_PIECES) {
		count_lost(thread->slot, BDT_CAUSE_MAP_FULL);
		return 0;
	}
	piece = &thread->pieces[thread->piece_count & (MAX_PIECES - 1)];
	forget(&piece->subject);
	note_mapped(thread, &piece->subject, mapping->file);
	piece->subject.flags &= ~BDT_CALL_HAS_OFFSET;
	piece->start = start;
	piece->end = mapping->end < end ? mapping->end : end;
	thread->piece_count++;
	return 0;
}

static __always_inline long piece_turn(__u32 index, struct piece_walk *walk)
{
	struct thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);

	if (!thread)
		return 1;
	take_piece(thread, walk->at, walk->end);
	walk->at = thread->mapping.end;
	return walk->at >= walk->end;
}

LOOP(piece_turn, piece_walk)

/* Take down the files that are mapped between two addresses, when munmap or msync begins. */
static __always_inline int take_pieces(struct thread *thread, __u64 start, __u64 size)
{
	struct piece_walk walk = { .at = start, .end = start + size };

	if (!thread)
		return 0;
	thread->piece_count = 0;
	if (walk.end > walk.at)
		run_piece_turn(&walk, MAX_TURNS);
	return 0;
}
