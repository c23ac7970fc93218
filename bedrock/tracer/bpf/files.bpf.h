// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Which file a call is about. */
#pragma once

#include "texts.bpf.h"

/*
 * What tells apart the files that have had the same inode number, one after the other. An overlay has numbers for its
 * files but no generations: that is the upper file's, and 0 for one that has none, which can't be removed either.
 */
__u32 __noinline generation_of(__u64 dentry)
{
	struct inode *inode = BPF_CORE_READ((struct dentry *)dentry, d_inode);
	struct super_block *sb = FIELD(inode, inode, i_sb);
	struct dentry *upper;

	if (FIELD(super_block, sb, s_magic) != OVERLAYFS_MAGIC)
		return FIELD(inode, inode, i_generation);
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
 * Tells apart the names (hard links) of one inode, and the mounts through which one is reached. A name that is gone may
 * leave its place in memory to another one: then that is introduced anew, like everything that is opened.
 */
static __always_inline __u32 link_of(__u64 dentry, __u64 mnt)
{
	return ((dentry >> 3) * 0x9e3779b97f4a7c15ULL ^ (mnt >> 3) * 0xc2b2ae3d27d4eb4fULL) >> 32 | 1;
}

/*
 * When a file is introduced, which is to say that its path is written: when it is a new one, or its path may have
 * changed; also when its number may have been given to another file; in any case.
 */
enum introduction { IF_NEW, IF_ANOTHER, ALWAYS };

/* Take down what a file is, by the name through which it was reached. */
int __noinline number_file(struct subject *subject, __u64 dentry, __u64 mnt)
{
	struct inode *inode = FIELD(dentry, dentry, d_inode);
	struct super_block *sb = FIELD(inode, inode, i_sb);

	if (!subject)
		return 0;
	subject->inode = FIELD(inode, inode, i_ino);
	subject->device = FIELD(super_block, sb, s_dev);
	subject->link = link_of(dentry, mnt);
	if (FIELD(super_block, sb, s_magic) == ANON_INODE_MAGIC)
		subject->inode |= bits_of_name(dentry);
	return 0;
}

/* Whether a thread used this file last, and what is known of files has not changed since. */
static __always_inline bool is_recent(struct recent *recent, struct subject *subject, struct session *session)
{
	return recent->identity.inode == subject->inode && recent->identity.link == subject->link &&
	       recent->identity.device == subject->device && recent->identity.session == session->number &&
	       recent->introductions == session->introductions && recent->known.tree_changes == session->tree_changes;
}

/*
 * Take down the identity of a file, and introduce it. A file of a stacked file system that is mapped is the lower file to
 * the kernel; its user knows it by the path through which it was opened, and by that path's inode.
 */
int __noinline identify(struct thread *thread, struct subject *subject, __u64 dentry, __u64 mnt, __u32 when)
{
	struct session *session;
	struct recent *recent;
	struct known *before;

	if (!thread || !subject)
		return 0;
	session = session_at(thread->slot);
	if (when == IF_NEW && session->opens_are_untold)
		when = IF_ANOTHER;
	number_file(subject, dentry, mnt);
	if (when != IF_NEW || !is_recent(&thread->recent, subject, session)) {
		/* Kernels before 6.5 take keys from a map or the stack, where there is no room; this is in a map to them. */
		thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);
		if (!thread)
			return 0;
		recent = &thread->recent;
		recent->identity.inode = subject->inode;
		recent->identity.device = subject->device;
		recent->identity.link = subject->link;
		recent->identity.session = session->number;
		/* Before we look: what is introduced meanwhile makes it another number. */
		recent->introductions = session->introductions;
		before = bpf_map_lookup_elem(&known_files, &recent->identity);
		if (before)
			recent->known = *before;
		if (!before || when == ALWAYS || recent->known.tree_changes != session->tree_changes ||
		    (when == IF_ANOTHER && recent->known.generation != generation_of(dentry))) {
			subject->generation = generation_of(dentry);
			recent->known.tree_changes = session->tree_changes;
			recent->known.generation = subject->generation;
			recent->known.wanted = emit_path(thread, subject, dentry, mnt);
			bpf_map_update_elem(&known_files, &recent->identity, &recent->known, BPF_ANY);
			__sync_fetch_and_add(&session->introductions, 1);
		}
	}
	subject->generation = thread->recent.known.generation;
	if (thread->recent.known.wanted == UNWANTED_FILE)
		subject->flags |= UNWANTED;
	return 0;
}

/* An address that functions take. */
static __always_inline __u64 as_number(struct thread *thread, const void *pointer)
{
	thread->number_of = (__u64)pointer;
	return thread->number_of;
}

/* Take down which file a call is about. */
int __noinline note_file(struct thread *thread, struct subject *subject, __u64 file, __u32 when)
{
	struct inode *inode = FIELD(file, file, f_inode);
	__u16 mode = FIELD(inode, inode, i_mode) & S_IFMT;
	__u64 dentry;

	if (!thread || !subject)
		return 0;
	subject->file = file;
	subject->flags = BDT_CALL_HAS_FILE;
	if (mode == S_IFREG || mode == S_IFBLK) {
		subject->flags |= BDT_CALL_HAS_OFFSET;
		subject->position = FIELD(file, file, f_pos);
		if (FIELD(file, file, f_flags) & O_APPEND)
			subject->flags |= BDT_CALL_APPEND;
	}
	dentry = as_number(thread, FIELD(file, file, f_path.dentry));
	return identify(thread, subject, dentry, as_number(thread, FIELD(file, file, f_path.mnt)), when);
}

static __always_inline __u64 size_of(__u64 file)
{
	struct inode *inode = FIELD(file, file, f_inode);

	return FIELD(inode, inode, i_size);
}

/*
 * Take down from which directory a path counts, by its first character: the working directory or a descriptor's for a
 * relative one, the root for an absolute one of a process that has changed its root.
 */
int __noinline note_base(struct thread *thread, struct subject *subject, __u32 first, __s32 base)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	/* What is below it may have been asked for, also when it was not itself. */
	__u32 flags = BDT_CALL_FROM_BASE;
	struct session *session;
	struct path *path;

	if (!fs || !thread || !subject)
		return 0;
	session = session_at(thread->slot);
	if (first == '/') {
		path = &fs->root;
	} else if (base != AT_FDCWD) {
		subject->file = file_of(base);
		if (!subject->file)
			return 0;
		path = &((struct file *)subject->file)->f_path;
		/* An empty path means the descriptor's own file. */
		if (!first)
			flags = BDT_CALL_HAS_FILE;
	} else {
		path = &fs->pwd;
	}
	if (first == '/' && (__u64)BPF_CORE_READ(path, dentry) == session->root_dentry &&
	    (__u64)BPF_CORE_READ(path, mnt) == session->root_mnt)
		return 0;
	identify(thread, subject, (__u64)BPF_CORE_READ(path, dentry), (__u64)BPF_CORE_READ(path, mnt), IF_NEW);
	subject->flags = flags | (first ? 0 : subject->flags & UNWANTED);
	return 0;
}

static __always_inline void forget(struct subject *subject)
{
	__builtin_memset(subject, 0, sizeof(*subject));
}
