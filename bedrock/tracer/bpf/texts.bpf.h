// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Records of variable length: paths, strings and argument vectors. */
#pragma once

#include "loops.bpf.h"
#include "tasks.bpf.h"

/* Write what the thread's scratch holds: a head, and text behind it. */
static __always_inline void emit_text(struct thread *thread, __u32 head, __u32 text)
{
	void *ring;
	__u32 size;

	/* The verifier must see the bound, which the compiler knows to be superfluous. */
	asm volatile("" : "+r"(text));
	size = (head + (text & (MAX_PATH - 1)) + 7) & ~7u;
	thread->scratch.head.string.size = size;
	ring = ring_for_record(thread->slot);
	if (ring && bpf_ringbuf_output(ring, &thread->scratch, size, wakeup(ring, thread->slot, thread)))
		count_cause(thread->slot, BDT_CAUSE_RING_FULL);
}

/*
 * Functions that are not static here are so on purpose: the verifier looks at such a function once, and not again at
 * every place that calls it, which keeps attaching quick.
 */

/* Where a walk from a file towards the root has come to. */
struct walk {
	__u64 dentry;
	__u64 mnt;
	__u64 root_dentry;
	__u64 root_mnt;
	__u32 at;
	__u32 flags;
	__u32 turns;
};

/* One step: a component of the path, or from the root of a mount to where it is mounted. 1 ends the walk. */
static __always_inline long step(__u32 index, struct walk *walk)
{
	struct dentry *dentry = (struct dentry *)walk->dentry;
	struct vfsmount *mnt = (struct vfsmount *)walk->mnt;
	__u64 mount_offset = bpf_core_field_offset(struct mount, mnt);
	struct thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);
	struct dentry *parent;
	__u32 at = walk->at, size;

	if (!thread)
		return 1;
	if (walk->dentry == walk->root_dentry && walk->mnt == walk->root_mnt) {
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
	bpf_probe_read_kernel(&thread->scratch.text[at & (MAX_PATH - 1)], size & (MAX_NAME - 1),
			      BPF_CORE_READ(dentry, d_name.name));
	at += size;
	thread->scratch.text[at & (MAX_PATH - 1)] = '/';
	walk->at = at + 1;
	walk->dentry = (__u64)parent;
	return 0;
}

LOOP(step, walk)

#define PIDFD_NAME "[pidfd]"

/*
 * The path of what never had one, such as memory that is shared: a name alone, if that. False: it is not of this kind.
 */
static __always_inline bool name_pathless(struct walk *walk, struct thread *thread, struct inode *inode)
{
	struct dentry *dentry = (struct dentry *)walk->dentry;
	struct vfsmount *mnt = (struct vfsmount *)walk->mnt;
	__u32 size;

	if (BPF_CORE_READ(inode, i_sb, s_magic) == PIDFS_MAGIC) {
		/* The kernel makes the name up when somebody asks for it. */
		__builtin_memcpy(thread->scratch.text, PIDFD_NAME, sizeof(PIDFD_NAME));
		walk->at = sizeof(PIDFD_NAME) - 1;
	} else if (BPF_CORE_READ(dentry, d_parent) != dentry || BPF_CORE_READ(mnt, mnt_root) == dentry) {
		return false;
	} else {
		size = BPF_CORE_READ(dentry, d_name.len) & (MAX_NAME - 1);
		bpf_probe_read_kernel(thread->scratch.text, size, BPF_CORE_READ(dentry, d_name.name));
		walk->at = size;
	}
	walk->flags = BDT_TEXT_OUTSIDE | BDT_TEXT_PATHLESS;
	return true;
}

struct comparison {
	__u32 prefix;
	__u32 from;
	__u32 turns;
	bool differs;
};

static __always_inline long compare_byte(__u32 index, struct comparison *it)
{
	struct thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);

	if (!thread || thread->scratch.text[(it->from + index) & (MAX_PATH - 1)] !=
			       session_at(thread->slot)
				       ->prefixes[it->prefix & (BDT_MAX_PREFIXES - 1)]
				       .text[index & (BDT_MAX_PREFIX - 1)]) {
		it->differs = true;
		return 1;
	}
	return 0;
}

LOOP(compare_byte, comparison)

/* Whether the path in the scratch is one of those that were asked for, or below one. */
static __always_inline bool is_wanted(struct thread *thread, __u32 size)
{
	struct session *session = session_at(thread->slot);

	for (__u32 i = 0; i < BDT_MAX_PREFIXES; i++) {
		struct comparison it = { .prefix = i };
		__u32 length = session->prefixes[i].size;

		if (i >= session->prefix_count)
			break;
		if (length > size || length > BDT_MAX_PREFIX)
			continue;
		it.from = size - length;
		if (it.from && thread->scratch.text[(it.from - 1) & (MAX_PATH - 1)] != '/')
			continue;
		run_compare_byte(&it, length);
		if (!it.differs)
			return true;
	}
	return false;
}

/*
 * Write which path a file has: its components from the last one up to the container's root, across mounts. Whoever
 * reads the trace turns them round. Returns WANTED_FILE or UNWANTED_FILE.
 */
int __noinline emit_path(struct thread *thread, struct subject *subject, __u64 dentry_address, __u64 mnt)
{
	struct dentry *dentry = (struct dentry *)dentry_address;
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct walk walk = { .dentry = dentry_address, .mnt = mnt, .flags = BDT_TEXT_CUT };
	struct session *session;
	struct bdt_file *head;
	__u8 wanted = WANTED_FILE;

	if (!thread || !subject)
		return 0;
	session = session_at(thread->slot);
	walk.root_dentry = session->root_dentry;
	walk.root_mnt = session->root_mnt;
	if (!name_pathless(&walk, thread, inode))
		run_step(&walk, MAX_LEVELS);
	if (session->prefix_count && (walk.flags & BDT_TEXT_OUTSIDE || !is_wanted(thread, walk.at)))
		wanted = UNWANTED_FILE;
	/* Relative paths count from directories, so those are always named. */
	if (wanted == UNWANTED_FILE && (BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFDIR)
		return wanted;
	if (walk.flags & BDT_TEXT_CUT)
		count_cause(thread->slot, BDT_CAUSE_STRING_CUT);
	if (!BPF_CORE_READ(dentry, d_hash.pprev) && dentry != BPF_CORE_READ(dentry, d_parent))
		walk.flags |= BDT_TEXT_DELETED;
	head = &thread->scratch.head.file;
	head->type = BDT_REC_FILE;
	head->tid = bpf_get_current_task_btf()->pid;
	head->time_ns = thread->noted_ns;
	head->inode = subject->inode;
	head->device = subject->device;
	head->mode = BPF_CORE_READ(inode, i_mode);
	head->text_size = walk.at;
	head->flags = walk.flags;
	head->generation = subject->generation;
	head->link = subject->link;
	emit_text(thread, sizeof(*head), walk.at);
	return wanted;
}

/* Where a string is, whether it is a loss when it can't be read, whether it is a second one. */
enum { FROM_KERNEL = 0, FROM_USER = 1, MAY_FAIL = 2, IS_SECOND = 4 };

/* Write a string that the scratch holds the text of. A second path counts from the directory in ``thread->to``. */
static __always_inline void emit_scratch_string(struct thread *thread, __u32 tid, __u64 time_ns, __u32 text, __u32 flags)
{
	bool has_base = flags & BDT_TEXT_SECOND;
	struct bdt_string *head = &thread->scratch.head.string;

	head->type = BDT_REC_STRING;
	head->tid = tid;
	head->time_ns = time_ns;
	head->text_size = text;
	head->flags = flags;
	head->inode = has_base ? thread->to.inode : 0;
	head->device = has_base ? thread->to.device : 0;
	head->link = has_base ? thread->to.link : 0;
	emit_text(thread, sizeof(*head), text);
}

/* Bring a string into the scratch. Returns its size without the NUL; ``flags`` are BDT_TEXT_... */
static __always_inline __u32 read_string(struct thread *thread, __u64 address, __u32 kind, __u32 *flags)
{
	char *room = (char *)&thread->scratch + sizeof(struct bdt_string);
	__u32 limit = kind & FROM_USER && thread->text_limit < MAX_PATH ? thread->text_limit : MAX_PATH;
	long size;

	asm volatile("" : "+r"(limit));
	if (limit > MAX_PATH)
		return 0;
	size = kind & FROM_USER ? bpf_probe_read_user_str(room, limit, (void *)address) :
				  bpf_probe_read_kernel_str(room, limit, (void *)address);

	if (size < 0) {
		*flags |= BDT_TEXT_UNREADABLE;
		return 0;
	}
	if (size == MAX_PATH)
		*flags |= BDT_TEXT_CUT;
	return size > 0 ? size - 1 : 0;
}

/* Read a string and write it. */
int __noinline emit_string(struct thread *thread, __u64 address, __u32 kind)
{
	__u32 flags = kind & IS_SECOND ? BDT_TEXT_SECOND : 0, text;

	if (!thread)
		return 0;
	text = read_string(thread, address, kind, &flags);
	if (flags & BDT_TEXT_UNREADABLE && !(kind & MAY_FAIL))
		count_cause(thread->slot, BDT_CAUSE_READ_FAULT);
	if (flags & BDT_TEXT_CUT)
		count_cause(thread->slot, BDT_CAUSE_STRING_CUT);
	emit_scratch_string(thread, bpf_get_current_task_btf()->pid, thread->time_ns, text, flags);
	return 0;
}

/* An argument vector, in as many records as it takes. */
struct argv_walk {
	__u64 at;
	__u64 end;
	__u32 turns;
};

static __always_inline long emit_argv_part(__u32 index, struct argv_walk *walk)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread = bpf_task_storage_get(&threads, task, NULL, 0);
	__u64 left = walk->end - walk->at;
	struct bdt_string *head;
	__u32 flags = 0, part;

	if (!thread)
		return 1;
	part = left < MAX_PATH ? left : MAX_PATH - 1;
	if (part < left)
		flags |= index + 1 < MAX_ARGV_PARTS ? BDT_TEXT_MORE : BDT_TEXT_CUT;
	if (bpf_probe_read_user((char *)&thread->scratch + sizeof(struct bdt_argv), part & (MAX_PATH - 1),
				(void *)walk->at)) {
		flags = BDT_TEXT_UNREADABLE;
		part = 0;
		count_cause(thread->slot, BDT_CAUSE_READ_FAULT);
	} else if (flags & BDT_TEXT_CUT) {
		count_cause(thread->slot, BDT_CAUSE_STRING_CUT);
	}
	head = &thread->scratch.head.string;
	head->type = BDT_REC_ARGV;
	head->tid = task->pid;
	head->time_ns = thread->time_ns;
	head->text_size = part;
	head->flags = flags;
	emit_text(thread, sizeof(struct bdt_argv), part);
	walk->at += part;
	return !(flags & BDT_TEXT_MORE);
}

LOOP(emit_argv_part, argv_walk)

static __always_inline void emit_argv(struct task_struct *task)
{
	struct argv_walk walk = {};
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	if (!mm)
		return;
	walk.at = BPF_CORE_READ(mm, arg_start);
	walk.end = BPF_CORE_READ(mm, arg_end);
	if (walk.end > walk.at)
		run_emit_argv_part(&walk, MAX_ARGV_PARTS);
}
