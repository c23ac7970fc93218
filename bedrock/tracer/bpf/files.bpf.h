// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Which file a call is about. */
#pragma once

#include "texts.bpf.h"

/*
 * Take down the identity of a file, and introduce it if it is a new one. A file of a stacked file system that is mapped
 * is the lower file to the kernel; its user knows it by the path through which it was opened, and by that path's inode.
 */
static __always_inline void identify(struct subject *subject, __u64 dentry, __u64 mnt, struct inode *inode,
				     __u64 time_ns, __u32 tid, bool always_introduce)
{
	struct identity identity = {};
	__u8 *known, wanted;

	subject->inode = identity.inode = BPF_CORE_READ(inode, i_ino);
	subject->device = identity.device = BPF_CORE_READ(inode, i_sb, s_dev);
	known = bpf_map_lookup_elem(&known_files, &identity);
	if (known && !always_introduce) {
		wanted = *known;
	} else {
		wanted = emit_path(dentry, mnt, (__u64)inode, time_ns, tid);
		bpf_map_update_elem(&known_files, &identity, &wanted, BPF_ANY);
	}
	if (wanted == UNWANTED_FILE)
		subject->flags |= UNWANTED;
}

/* Take down which file a call is about. */
int __noinline note_file(struct subject *subject, __u64 file_address, __u64 time_ns, __u32 tid, __u32 always_introduce)
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
		 tid, always_introduce);
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
		note_file(subject, file, time_ns, task->pid, false);
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
	identify(subject, (__u64)dentry, (__u64)mnt, BPF_CORE_READ(dentry, d_inode), time_ns, task->pid, false);
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
	subject->flags = 0;
}
