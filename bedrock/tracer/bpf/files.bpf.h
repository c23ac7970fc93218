// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Which file a call is about. */
#pragma once

#include "texts.bpf.h"

/*
 * What tells apart the files that have had the same inode number, one after the other. An overlay has numbers for its
 * files but no generations: that is the upper file's, and 0 for one that has none, which can't be removed either.
 */
static __always_inline __u32 generation_of(struct inode *inode, __u64 magic)
{
	struct dentry *upper;

	if (magic != OVERLAYFS_MAGIC)
		return BPF_CORE_READ(inode, i_generation);
	/* struct ovl_inode may be a module's, whose types are not at hand: this pointer stands behind its inode. */
	upper = (struct dentry *)word_at((__u64)inode + bpf_core_type_size(struct inode));
	return upper ? BPF_CORE_READ(upper, d_inode, i_generation) : 0;
}

/* All eventfds, timers and the like have one inode. What tells them apart is the beginning of their names. */
static __always_inline __u64 bits_of_name(__u64 dentry)
{
	return word_at((__u64)BPF_CORE_READ((struct dentry *)dentry, d_name.name)) * 0x9e3779b97f4a7c15ULL >> 32 << 32;
}

/*
 * How a file is introduced, which is to say that its path is written: when it is a new one; also when its number may
 * have been given to another file; also when its path may have changed; in any case.
 */
enum introduction { IF_NEW, IF_ANOTHER, IF_MOVED, ALWAYS };

/*
 * Take down the identity of a file, and introduce it. A file of a stacked file system that is mapped is the lower file to
 * the kernel; its user knows it by the path through which it was opened, and by that path's inode.
 */
static __always_inline void identify(struct subject *subject, __u64 dentry, __u64 mnt, struct inode *inode,
				     __u64 time_ns, enum introduction when)
{
	struct super_block *sb = BPF_CORE_READ(inode, i_sb);
	__u64 magic = BPF_CORE_READ(sb, s_magic);
	struct identity identity = {};
	struct known *before, known = {};

	if (when == IF_NEW && opens_are_untold)
		when = IF_ANOTHER;
	subject->inode = BPF_CORE_READ(inode, i_ino);
	subject->device = BPF_CORE_READ(sb, s_dev);
	if (magic == ANON_INODE_MAGIC)
		subject->inode |= bits_of_name(dentry);
	identity.inode = subject->inode;
	identity.device = subject->device;
	before = bpf_map_lookup_elem(&known_files, &identity);
	if (before)
		known = *before;
	if (!before || when == ALWAYS || (when == IF_MOVED && known.tree_changes != tree_changes) ||
	    (when == IF_ANOTHER && known.generation != generation_of(inode, magic))) {
		subject->generation = generation_of(inode, magic);
		known.tree_changes = tree_changes;
		known.generation = subject->generation;
		known.wanted = emit_path(subject, dentry, mnt, (__u64)inode, time_ns);
		bpf_map_update_elem(&known_files, &identity, &known, BPF_ANY);
	}
	subject->generation = known.generation;
	if (known.wanted == UNWANTED_FILE)
		subject->flags |= UNWANTED;
}

/* Take down which file a call is about. */
int __noinline note_file(struct subject *subject, __u64 file_address, __u64 time_ns, __u32 when)
{
	struct file *file = (struct file *)file_address;
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	__u16 mode = BPF_CORE_READ(inode, i_mode) & S_IFMT;

	if (!subject)
		return 0;
	subject->file = file_address;
	subject->flags = BDT_CALL_HAS_FILE;
	if (mode == S_IFREG || mode == S_IFBLK) {
		subject->flags |= BDT_CALL_HAS_OFFSET;
		subject->position = BPF_CORE_READ(file, f_pos);
		if (BPF_CORE_READ(file, f_flags) & O_APPEND)
			subject->flags |= BDT_CALL_APPEND;
	}
	identify(subject, (__u64)BPF_CORE_READ(file, f_path.dentry), (__u64)BPF_CORE_READ(file, f_path.mnt), inode, time_ns,
		 when);
	return 0;
}

#define UNREADABLE 256

/* The first character of a path in user memory: 0 for an empty one, and where none is given. */
static __always_inline __u32 first_of(__u64 path)
{
	__u8 first = 0;

	if (path && bpf_probe_read_user(&first, 1, (void *)path))
		return UNREADABLE;
	return first;
}

/*
 * Take down from which directory a path counts, by its first character: the working directory or a descriptor's for a
 * relative one, the root for an absolute one of a process that has changed its root.
 */
int __noinline note_base(struct subject *subject, __u32 first, __s32 base, __u64 time_ns)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct dentry *dentry;
	struct vfsmount *mnt;
	__u64 file;

	if (!fs || !subject || first == UNREADABLE)
		return 0;
	if (first == '/') {
		dentry = BPF_CORE_READ(fs, root.dentry);
		mnt = BPF_CORE_READ(fs, root.mnt);
		if ((__u64)dentry == root_dentry && (__u64)mnt == root_mnt)
			return 0;
	} else if (base != AT_FDCWD) {
		file = file_of(base);
		if (!file)
			return 0;
		note_file(subject, file, time_ns, IF_MOVED);
		/* An empty path means the descriptor's own file. */
		if (first)
			subject->flags = BDT_CALL_FROM_BASE;
		else
			subject->flags &= ~BDT_CALL_HAS_OFFSET;
		return 0;
	} else {
		dentry = BPF_CORE_READ(fs, pwd.dentry);
		mnt = BPF_CORE_READ(fs, pwd.mnt);
	}
	identify(subject, (__u64)dentry, (__u64)mnt, BPF_CORE_READ(dentry, d_inode), time_ns, IF_MOVED);
	/* What is below it may have been asked for, also when it has not been itself. */
	subject->flags = BDT_CALL_FROM_BASE;
	return 0;
}

static __always_inline void forget(struct subject *subject)
{
	subject->file = 0;
	subject->inode = 0;
	subject->position = 0;
	subject->device = 0;
	subject->generation = 0;
	subject->flags = 0;
}
