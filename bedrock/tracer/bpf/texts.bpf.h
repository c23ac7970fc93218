// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Records of variable length: paths, strings and argument vectors. */
#pragma once

#include "tasks.bpf.h"

static __always_inline void emit_text(struct scratch *scratch, __u32 head, __u32 text)
{
	__u32 size;

	/* The verifier must see the bound, which the compiler knows to be superfluous. */
	asm volatile("" : "+r"(text));
	size = (head + (text & (MAX_PATH - 1)) + 7) & ~7u;
	count_seen();
	scratch->head.string.size = size;
	if (is_full)
		count_cause(BDT_CAUSE_SIZE_LIMIT);
	else if (bpf_ringbuf_output(&ring, scratch, size, wakeup()))
		count_cause(BDT_CAUSE_RING_FULL);
}

/*
 * Functions that are not static here are so on purpose: the verifier looks at such a function once, and not again at
 * every place that calls it, which keeps attaching quick.
 */

/* Where a walk from a file towards the root has come to. */
struct walk {
	__u64 dentry;
	__u64 mnt;
	__u32 at;
	__u32 flags;
};

/* One step: a component of the path, or from the root of a mount to where it is mounted. 1 ends the walk. */
static long step(__u32 index, struct walk *walk)
{
	struct dentry *dentry = (struct dentry *)walk->dentry;
	struct vfsmount *mnt = (struct vfsmount *)walk->mnt;
	__u64 mount_offset = bpf_core_field_offset(struct mount, mnt);
	struct dentry *parent;
	__u32 zero = 0, at = walk->at, size;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	if (!scratch)
		return 1;
	if (walk->dentry == root_dentry && walk->mnt == root_mnt) {
		walk->flags &= ~BDT_TEXT_CUT;
		return 1;
	}
	if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
		struct mount *mount = (struct mount *)(walk->mnt - mount_offset);
		struct mount *above = BPF_CORE_READ(mount, mnt_parent);

		if (above == mount || !above) {
			walk->flags = (walk->flags & ~BDT_TEXT_CUT) | BDT_TEXT_OUTSIDE;
			return 1;
		}
		walk->dentry = (__u64)BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mnt = (__u64)above + mount_offset;
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry || !parent) {
		walk->flags = (walk->flags & ~BDT_TEXT_CUT) | BDT_TEXT_OUTSIDE;
		return 1;
	}
	size = BPF_CORE_READ(dentry, d_name.len);
	if (size >= MAX_NAME || at + size + 1 >= MAX_PATH)
		return 1;
	bpf_probe_read_kernel(&scratch->text[at & (MAX_PATH - 1)], size & (MAX_NAME - 1), BPF_CORE_READ(dentry, d_name.name));
	at += size;
	scratch->text[at & (MAX_PATH - 1)] = '/';
	walk->at = at + 1;
	walk->dentry = (__u64)parent;
	return 0;
}

/* The path of what never had one, such as memory that is shared: a name alone, if that. False: it is not of this kind. */
static __always_inline bool name_pathless(struct walk *walk, struct scratch *scratch)
{
	struct dentry *dentry = (struct dentry *)walk->dentry;
	struct vfsmount *mnt = (struct vfsmount *)walk->mnt;
	__u32 size;

	if (BPF_CORE_READ(dentry, d_parent) != dentry || BPF_CORE_READ(mnt, mnt_root) == dentry)
		return false;
	size = BPF_CORE_READ(dentry, d_name.len) & (MAX_NAME - 1);
	bpf_probe_read_kernel(scratch->text, size, BPF_CORE_READ(dentry, d_name.name));
	walk->at = size;
	walk->flags = BDT_TEXT_OUTSIDE | BDT_TEXT_PATHLESS;
	return true;
}

struct comparison {
	__u32 prefix;
	__u32 from;
	bool differs;
};

static long compare_byte(__u32 index, struct comparison *it)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	if (!scratch || scratch->text[(it->from + index) & (MAX_PATH - 1)] !=
				prefixes[it->prefix & (BDT_MAX_PREFIXES - 1)].text[index & (BDT_MAX_PREFIX - 1)]) {
		it->differs = true;
		return 1;
	}
	return 0;
}

/* Whether the path in the scratch is one of those that were asked for, or below one. */
static __always_inline bool is_wanted(struct scratch *scratch, __u32 size)
{
	if (!prefix_count)
		return true;
	for (__u32 i = 0; i < BDT_MAX_PREFIXES; i++) {
		struct comparison it = { .prefix = i };
		__u32 length = prefixes[i].size;

		if (i >= prefix_count)
			break;
		if (length > size || length > BDT_MAX_PREFIX)
			continue;
		it.from = size - length;
		if (it.from && scratch->text[(it.from - 1) & (MAX_PATH - 1)] != '/')
			continue;
		bpf_loop(length, compare_byte, &it, 0);
		if (!it.differs)
			return true;
	}
	return false;
}

/*
 * Write which path a file has: its components from the last one up to the container's root, across mounts. Whoever
 * reads the trace turns them round. Returns WANTED_FILE or UNWANTED_FILE.
 */
int __noinline emit_path(struct subject *subject, __u64 dentry_address, __u64 mnt, __u64 inode_address, __u64 time_ns)
{
	struct inode *inode = (struct inode *)inode_address;
	struct dentry *dentry = (struct dentry *)dentry_address;
	struct walk walk = { .dentry = dentry_address, .mnt = mnt, .flags = BDT_TEXT_CUT };
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	__u8 wanted = WANTED_FILE;

	if (!scratch || !subject)
		return 0;
	if (!name_pathless(&walk, scratch))
		bpf_loop(MAX_LEVELS, step, &walk, 0);
	if (prefix_count && (walk.flags & BDT_TEXT_OUTSIDE || !is_wanted(scratch, walk.at)))
		wanted = UNWANTED_FILE;
	/* Relative paths count from directories, so those are always named. */
	if (wanted == UNWANTED_FILE && (BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFDIR)
		return wanted;
	if (walk.flags & BDT_TEXT_CUT)
		count_cause(BDT_CAUSE_STRING_CUT);
	if (!BPF_CORE_READ(dentry, d_hash.pprev) && dentry != BPF_CORE_READ(dentry, d_parent))
		walk.flags |= BDT_TEXT_DELETED;
	scratch->head.file.type = BDT_REC_FILE;
	scratch->head.file.tid = bpf_get_current_task_btf()->pid;
	scratch->head.file.time_ns = time_ns;
	scratch->head.file.inode = subject->inode;
	scratch->head.file.device = subject->device;
	scratch->head.file.mode = BPF_CORE_READ(inode, i_mode);
	scratch->head.file.text_size = walk.at;
	scratch->head.file.flags = walk.flags;
	scratch->head.file.generation = subject->generation;
	scratch->head.file.reserved = 0;
	emit_text(scratch, sizeof(struct bdt_file), walk.at);
	return wanted;
}

/* What is to be known of a string: where it is, whether it is a loss when it can't be read, whether it is a second one. */
enum { FROM_KERNEL = 0, FROM_USER = 1, MAY_FAIL = 2, IS_SECOND = 4 };

/* ``base`` may be NULL; it is the directory from which a second path counts. */
int __noinline emit_string(struct subject *base, __u64 address, __u32 kind, __u64 time_ns, __u32 tid)
{
	__u32 zero = 0, text = 0, flags = kind & IS_SECOND ? BDT_TEXT_SECOND : 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	char *room;
	long size;

	if (!scratch)
		return 0;
	room = (char *)scratch + sizeof(struct bdt_string);
	size = kind & FROM_USER ? bpf_probe_read_user_str(room, MAX_PATH, (void *)address) :
				  bpf_probe_read_kernel_str(room, MAX_PATH, (void *)address);
	if (size < 0) {
		flags |= BDT_TEXT_UNREADABLE;
		if (!(kind & MAY_FAIL))
			count_cause(BDT_CAUSE_READ_FAULT);
	} else if (size == MAX_PATH) {
		flags |= BDT_TEXT_CUT;
		text = MAX_PATH - 1;
		count_cause(BDT_CAUSE_STRING_CUT);
	} else if (size > 0) {
		text = size - 1;
	}
	scratch->head.string.type = BDT_REC_STRING;
	scratch->head.string.tid = tid;
	scratch->head.string.time_ns = time_ns;
	scratch->head.string.text_size = text;
	scratch->head.string.flags = flags;
	scratch->head.string.inode = base ? base->inode : 0;
	scratch->head.string.device = base ? base->device : 0;
	scratch->head.string.reserved = 0;
	emit_text(scratch, sizeof(struct bdt_string), text);
	return 0;
}

/* An argument vector, in as many records as it takes. */
struct argv_walk {
	__u64 at;
	__u64 end;
	__u64 time_ns;
	__u32 tid;
};

static long emit_argv_part(__u32 index, struct argv_walk *walk)
{
	__u32 zero = 0, flags = 0, part;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	__u64 left = walk->end - walk->at;

	if (!scratch)
		return 1;
	part = left < MAX_PATH ? left : MAX_PATH - 1;
	if (part < left)
		flags |= index + 1 < MAX_ARGV_PARTS ? BDT_TEXT_MORE : BDT_TEXT_CUT;
	if (bpf_probe_read_user((char *)scratch + sizeof(struct bdt_argv), part & (MAX_PATH - 1), (void *)walk->at)) {
		flags = BDT_TEXT_UNREADABLE;
		part = 0;
		count_cause(BDT_CAUSE_READ_FAULT);
	} else if (flags & BDT_TEXT_CUT) {
		count_cause(BDT_CAUSE_STRING_CUT);
	}
	scratch->head.string.type = BDT_REC_ARGV;
	scratch->head.string.tid = walk->tid;
	scratch->head.string.time_ns = walk->time_ns;
	scratch->head.string.text_size = part;
	scratch->head.string.flags = flags;
	emit_text(scratch, sizeof(struct bdt_argv), part);
	walk->at += part;
	return !(flags & BDT_TEXT_MORE);
}

static __always_inline void emit_argv(struct task_struct *task, __u64 time_ns, __u32 tid)
{
	struct argv_walk walk = { .time_ns = time_ns, .tid = tid };
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	if (!mm)
		return;
	walk.at = BPF_CORE_READ(mm, arg_start);
	walk.end = BPF_CORE_READ(mm, arg_end);
	if (walk.end > walk.at)
		bpf_loop(MAX_ARGV_PARTS, emit_argv_part, &walk, 0);
}
