// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The probes. They run on every system call of the machine, so the first thing each does is to find out, with a few
 * loads, that a task is none of the target's.
 *
 * A task belongs to the target when its PID namespace is the target's or one below it. What a call needs from before it
 * (the time, its arguments, the file behind its descriptor, the position) is kept in the task's own storage until the
 * call returns; then one fixed-size record goes into the ring. Nothing is formatted, and nothing ever waits: what does
 * not fit is counted by cause.
 *
 * Only the kernel types' fields that are read are declared; CO-RE finds them in the kernel that is there.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

/* stdint.h drags in a libc, which the BPF target has none of. */
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
typedef __s32 int32_t;
typedef __s64 int64_t;
#include "bdt_format.h"

#define CORE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} CORE;
struct pid_namespace {
	unsigned int level;
	struct pid_namespace *parent;
	struct ns_common ns;
} CORE;
struct nsproxy {
	struct pid_namespace *pid_ns_for_children;
} CORE;
struct upid {
	int nr;
	struct pid_namespace *ns;
} CORE;
struct pid {
	unsigned int level;
	struct upid numbers[1];
} CORE;
struct qstr {
	union {
		struct {
			__u32 hash;
			__u32 len;
		};
	};
	const unsigned char *name;
} CORE;
struct hlist_bl_node {
	struct hlist_bl_node **pprev;
} CORE;
struct inode;
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
} CORE;
struct super_block {
	__u32 s_dev;
} CORE;
struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
} CORE;
struct vfsmount {
	struct dentry *mnt_root;
} CORE;
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} CORE;
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} CORE;
struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	long long f_pos;
	struct inode *f_inode;
	struct path f_path;
} CORE;
/* What a file system that is stacked on another (overlayfs) maps: the lower file, and how its user named it. */
struct backing_file {
	struct file file;
	struct path user_path;
} CORE;
struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_pgoff;
	struct file *vm_file;
} CORE;
struct kiocb {
	long long ki_pos;
} CORE;
struct io_cqe {
	int res;
	int fd;
} CORE;
struct io_kiocb {
	struct file *file;
	unsigned char opcode;
	struct io_cqe cqe;
} CORE;
struct io_rw {
	struct kiocb kiocb;
	unsigned int len;
} CORE;
struct filename {
	const char *name;
} CORE;
struct io_open {
	struct filename *filename;
} CORE;
struct io_close {
	int fd;
} CORE;
struct io_statx {
	struct filename *filename;
} CORE;
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} CORE;
struct files_struct {
	struct fdtable *fdt;
} CORE;
struct fs_struct {
	struct path root;
	struct path pwd;
} CORE;
struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
} CORE;
struct linux_binprm {
	struct file *file;
	const char *filename;
} CORE;
struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	int pagefault_disabled;
	char comm[16];
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct nsproxy *nsproxy;
	struct files_struct *files;
	struct fs_struct *fs;
	struct mm_struct *mm;
} CORE;

/* The registers of a system call's arguments, as both architectures lay them out for user space. */
#if defined(__TARGET_ARCH_x86)
struct registers {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
};
#define ARGUMENTS(r) { (r).di, (r).si, (r).dx, (r).r10, (r).r8 }
#define SIXTH_ARGUMENT(r) ((r).r9)
#elif defined(__TARGET_ARCH_arm64)
struct registers {
	__u64 x[6];
};
#define ARGUMENTS(r) { (r).x[0], (r).x[1], (r).x[2], (r).x[3], (r).x[4] }
#define SIXTH_ARGUMENT(r) ((r).x[5])
#else
#error "the probes know x86-64 and arm64"
#endif

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define O_APPEND 02000
#define O_DIRECT 040000
/* FMODE_BACKING was bit 25 when it was new (6.5) and is bit 24 since 6.10; where it is the one, the other is rare. */
#define MAY_BE_BACKING (1u << 24 | 1u << 25)
#define MAP_ANONYMOUS 0x20
#define AT_FDCWD -100
#define EBUSY 16
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030

#define MAX_PATH 4096
#define MAX_NAME 256
#define MAX_LEVELS 64
#define MAX_IOVECS 1024 /* the kernel's own limit, UIO_MAXIOV */
#define MAX_ARGV_PARTS 64
#define FAULT_WRITE 2 /* x86's error code: the access was a write */
#define SYSCALLS 512

/* Set by the loader before it loads us: which Op a system call of this architecture is, 0 for none. */
const volatile __u8 op_of[SYSCALLS];
/* And for the Ops from BDT_OP_STAT on, which of its arguments is what. */
const volatile struct bdt_shape shapes[128];
const volatile __u32 wakeup_bytes;
const volatile __u32 page_shift;
/* BDT_MODE_EVENTS or BDT_MODE_SUMMARY. */
const volatile __u32 mode;
/* Which events that are no system calls are wanted. */
const volatile __u8 wants[128];
/* Of which files events are wanted, as paths stand in a FILE record; none means all. */
const volatile struct bdt_prefix prefixes[BDT_MAX_PREFIXES];
const volatile __u32 prefix_count;

/* Set by the loader to arm and to disarm. */
__u32 target_inum;
__u32 target_level;
/* Set by the loader when the trace has its upper size: from then on records are only counted. */
__u32 is_full;
/* Set here, once the target's own program has begun. */
__u32 has_begun;
__u64 root_dentry;
__u64 root_mnt;

/* A file that a call is about, as it was when the call began. */
struct subject {
	__u64 file;
	__u64 inode;
	__s64 position;
	__u32 device;
	__u32 flags;
};

/* A look-up fails for as long as the one before it on this processor has not been cleaned up behind, which waits for
 * interrupts; a program may fault some times until then. */
#define BUSY 64

struct call {
	__u64 time_ns;
	__u64 argument[8];
	struct subject from;
	struct subject to; /* of calls that move bytes from one file to another */
	__u64 faulted_at; /* when the last fault began that no system call has followed yet */
	struct subject fault;
	__s64 fault_offset;
	__u64 busy[BUSY]; /* addresses of faults whose mappings could not be looked up; bit 0: it was a write */
	__u32 busy_count;
	__u16 op;
	__u8 introduced;
	__u8 waited; /* pages came from the device during this call, or this fault */
};

enum { MEMBER = 1, OUTSIDER = 2 };

/* Of a subject: the session has not asked for this file. Never written. */
#define UNWANTED 0x8000

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct call);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 25);
} ring SEC(".maps");

struct counts {
	__u64 seen;
	__u64 filtered;
	__u64 by_cause[BDT_CAUSES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

struct identity {
	__u64 inode;
	__u64 device;
};

/* Files whose path has been written. The least recently used goes first: then its path is written once more. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct identity);
	__type(value, __u8);
} known_files SEC(".maps");

#define WANTED_FILE 1
#define UNWANTED_FILE 2

/* A request to an io_uring, from its submission on. */
struct request {
	__u64 time_ns;
	__s64 offset;
	__u64 requested;
	struct subject subject;
	__u64 name;
	__u32 tid;
	__u32 tgid;
	__s32 fd;
	__u16 op;
	__u16 opcode;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct request);
} requests SEC(".maps");

/* The counts of mode SUMMARY. */
struct file_key {
	__u64 inode;
	__u32 device;
	__u32 tgid;
};
struct op_key {
	__u32 tgid;
	__u32 op;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct file_key);
	__type(value, struct bdt_file_total);
} file_totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct op_key);
	__type(value, struct bdt_op_total);
} op_totals SEC(".maps");

static const struct bdt_file_total no_file_total;
static const struct bdt_op_total no_op_total;

/* Where records of variable length are put together: the stack of a BPF program has 512 bytes. */
struct scratch {
	union {
		struct bdt_file file;
		struct bdt_string string;
	} head;
	char text[MAX_PATH + MAX_NAME];
	char spare[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline struct counts *counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline void count_cause(int cause)
{
	struct counts *c = counts();

	if (c)
		c->by_cause[cause]++;
}

static __always_inline void count_seen(void)
{
	struct counts *c = counts();

	if (c)
		c->seen++;
}

static __always_inline void count_filtered(void)
{
	struct counts *c = counts();

	if (c)
		c->filtered++;
}

/* Wake the loader when there is much to do; otherwise it looks by itself now and then. */
static __always_inline __u64 wakeup(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wakeup_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Room in the ring, counted; NULL when there is none, which is counted by cause. */
static __always_inline void *reserve(__u64 size)
{
	void *record;

	count_seen();
	if (is_full) {
		count_cause(BDT_CAUSE_SIZE_LIMIT);
		return NULL;
	}
	record = bpf_ringbuf_reserve(&ring, size, 0);
	if (!record)
		count_cause(BDT_CAUSE_RING_FULL);
	return record;
}

static __always_inline bool is_target(struct task_struct *task)
{
	struct pid_namespace *ns;
	struct nsproxy *proxy;

	if (!target_inum)
		return false;
	proxy = task->nsproxy;
	if (!proxy)
		return false;
	ns = proxy->pid_ns_for_children;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		if (!ns || ns->level < target_level)
			return false;
		if (ns->level == target_level)
			return ns->ns.inum == target_inum;
		ns = ns->parent;
	}
	return false;
}

static __always_inline __u32 number_in(__u64 pid_address)
{
	struct pid *pid = (struct pid *)pid_address;
	struct upid number = {};
	__u32 level = target_level & 31;

	bpf_probe_read_kernel(&number.nr, sizeof(number.nr),
			      (void *)(pid_address + bpf_core_field_offset(pid->numbers) +
				       level * bpf_core_type_size(struct upid) + bpf_core_field_offset(number.nr)));
	return number.nr;
}

/* A thread that has not been seen: how the host's numbers and the container's belong together. */
int __noinline introduce(__u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bdt_process *record;

	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	record->size = sizeof(*record);
	record->type = BDT_REC_PROCESS;
	record->tid = task->pid;
	record->time_ns = now;
	record->tgid = task->tgid;
	record->parent = task->real_parent->tgid;
	record->container_tid = number_in((__u64)BPF_CORE_READ(task, thread_pid));
	record->container_pid = number_in((__u64)BPF_CORE_READ(task, group_leader, thread_pid));
	bpf_probe_read_kernel(&record->comm_low, 16, &task->comm);
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

/*
 * Whether a task lives in the target's PID namespace, or below. One that has only entered it (setns) has its children
 * there, which is all that is_target can tell; which namespace a task has its number in never changes.
 */
static __always_inline bool is_member(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);

	return pid && BPF_CORE_READ(pid, level) >= target_level;
}

static __always_inline struct call *call_of(struct task_struct *task, __u64 now)
{
	struct call *call = bpf_task_storage_get(&calls, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!call) {
		count_seen();
		count_cause(BDT_CAUSE_MAP_FULL);
		return NULL;
	}
	if (!call->introduced) {
		call->introduced = is_member(task) ? MEMBER : OUTSIDER;
		if (call->introduced == MEMBER)
			introduce(now);
	}
	return call->introduced == MEMBER ? call : NULL;
}

static __always_inline __u64 file_of(struct task_struct *task, __s32 fd)
{
	struct files_struct *files = task->files;
	struct fdtable *table;
	__u64 file = 0;

	if (fd < 0 || !files)
		return 0;
	table = files->fdt;
	if (!table || (__u32)fd >= table->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), (void *)((__u64)table->fd + (__u64)fd * sizeof(file)));
	return file;
}

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
int __noinline emit_path(__u64 dentry_address, __u64 mnt, __u64 inode_address, __u64 time_ns, __u32 tid)
{
	struct inode *inode = (struct inode *)inode_address;
	struct dentry *dentry = (struct dentry *)dentry_address;
	struct walk walk = { .dentry = dentry_address, .mnt = mnt, .flags = BDT_TEXT_CUT };
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	__u8 wanted = WANTED_FILE;

	if (!scratch)
		return 0;
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
	scratch->head.file.tid = tid;
	scratch->head.file.time_ns = time_ns;
	scratch->head.file.inode = BPF_CORE_READ(inode, i_ino);
	scratch->head.file.device = BPF_CORE_READ(inode, i_sb, s_dev);
	scratch->head.file.mode = BPF_CORE_READ(inode, i_mode);
	scratch->head.file.text_size = walk.at;
	scratch->head.file.flags = walk.flags;
	emit_text(scratch, sizeof(struct bdt_file), walk.at);
	return wanted;
}

/* Strings share the scratch with FILE, whose head is larger: their text begins right behind their own head. */
int __noinline emit_string(__u64 address, __u32 is_user, __u32 flags, __u64 time_ns, __u32 tid)
{
	__u32 zero = 0, text = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	char *room;
	long size;

	if (!scratch)
		return 0;
	room = (char *)scratch + sizeof(struct bdt_string);
	size = is_user ? bpf_probe_read_user_str(room, MAX_PATH, (void *)address) :
			 bpf_probe_read_kernel_str(room, MAX_PATH, (void *)address);
	if (size < 0) {
		flags |= BDT_TEXT_UNREADABLE;
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
	struct mm_struct *mm = task->mm;

	if (!mm)
		return;
	walk.at = mm->arg_start;
	walk.end = mm->arg_end;
	if (walk.end > walk.at)
		bpf_loop(MAX_ARGV_PARTS, emit_argv_part, &walk, 0);
}

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

/*
 * Take down from which directory a path counts: the working directory or a descriptor's for a relative one, the root for
 * an absolute one of a process that has changed its root.
 */
int __noinline note_base(struct subject *subject, __u64 raw, __s32 base, __u64 time_ns)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = task->fs;
	struct dentry *dentry;
	struct vfsmount *mnt;
	char first = '/';
	__u64 file;

	if (!fs || !subject)
		return 0;
	bpf_probe_read_user(&first, 1, (void *)raw);
	if (first == '/') {
		dentry = BPF_CORE_READ(fs, root.dentry);
		mnt = BPF_CORE_READ(fs, root.mnt);
		if ((__u64)dentry == root_dentry && (__u64)mnt == root_mnt)
			return 0;
	} else if (base != AT_FDCWD) {
		file = file_of(task, base);
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

static __always_inline bool reads(__u16 op)
{
	return (op >= BDT_OP_READ && op <= BDT_OP_PREADV2) || op == BDT_OP_URING_READ;
}

static __always_inline bool writes(__u16 op)
{
	return (op >= BDT_OP_WRITE && op <= BDT_OP_PWRITEV2) || op == BDT_OP_URING_WRITE;
}

static __always_inline bool moves(__u16 op)
{
	return op >= BDT_OP_SENDFILE && op <= BDT_OP_SPLICE;
}

static __always_inline bool opens(__u16 op)
{
	return op >= BDT_OP_OPEN && op <= BDT_OP_CREAT;
}

static __always_inline bool takes_descriptor(__u16 op)
{
	return op >= BDT_OP_CLOSE && op <= BDT_OP_FCNTL_DUPFD && op != BDT_OP_MMAP;
}

/* What is mapped at an address, as the callback of the look-up finds it. */
struct mapping {
	__u64 file;
	__u64 start;
	__u64 page_offset;
};

static long found_mapping(struct task_struct *task, struct vm_area_struct *vma, struct mapping *mapping)
{
	mapping->file = (__u64)BPF_CORE_READ(vma, vm_file);
	mapping->start = BPF_CORE_READ(vma, vm_start);
	mapping->page_offset = BPF_CORE_READ(vma, vm_pgoff);
	return 0;
}

/* How often a look-up is tried while another thread changes the map of this memory: some microseconds, no more. */
#define FIND_TRIES 64

struct search {
	__u64 address;
	struct mapping mapping;
	long error;
};

static long try_to_find(__u32 index, struct search *search)
{
	struct task_struct *task = bpf_get_current_task_btf();

	search->error = bpf_find_vma(task, search->address, found_mapping, &search->mapping, 0);
	return search->error != -EBUSY;
}

/* What is mapped at search->address. Not static, so that it is verified once. */
int __noinline find_mapping(struct search *search)
{
	/* Call-backs take addresses on the stack of their caller only. */
	struct search own = {};

	if (!search)
		return 0;
	own.address = search->address;
	bpf_loop(FIND_TRIES, try_to_find, &own, 0);
	*search = own;
	return 0;
}

/* Take down a file by one of its mappings; there, the kernel keeps the lower file of a stacked one. */
static __always_inline void note_mapped(struct subject *subject, __u64 file_address, __u64 time_ns, __u32 tid)
{
	struct file *file = (struct file *)file_address;
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct vfsmount *mnt = BPF_CORE_READ(file, f_path.mnt);

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
	identify(subject, (__u64)dentry, (__u64)mnt, BPF_CORE_READ(dentry, d_inode), time_ns, tid, false);
}

/* Take down which file is mapped at an address; false when none is. */
static __always_inline bool note_mapping(struct task_struct *task, struct subject *subject, __u64 address, __u64 time_ns)
{
	struct search search = { .address = address };

	find_mapping(&search);
	if (search.error == -EBUSY)
		/* Which file it is stays unknown. */
		return true;
	if (search.error || !search.mapping.file)
		return false;
	note_mapped(subject, search.mapping.file, time_ns, task->pid);
	return true;
}

struct iovec_walk {
	__u64 at;
	__u64 sum;
};

static long add_iovec(__u32 index, struct iovec_walk *walk)
{
	struct {
		__u64 base;
		__u64 size;
	} iovec;

	if (bpf_probe_read_user(&iovec, sizeof(iovec), (void *)(walk->at + index * sizeof(iovec))))
		return 1;
	walk->sum += iovec.size;
	return 0;
}

static __always_inline __u64 sum_of_iovecs(struct call *call)
{
	struct iovec_walk walk = { .at = call->argument[1] };
	__u64 count = call->argument[2];

	if (count > MAX_IOVECS) {
		call->from.flags |= BDT_CALL_REQUEST_CUT;
		count = MAX_IOVECS;
	}
	bpf_loop(count, add_iovec, &walk, 0);
	return walk.sum;
}

/*
 * Where a transfer through a file's own position began. The kernel moves the position by what it transferred, holding
 * the position's lock; so where it stands behind us, less what we moved, is where we were, also when appending. Only
 * when somebody who shares the position has moved it as well does that not hold.
 */
static __always_inline __s64 began_at(struct subject *subject, __s64 moved)
{
	struct file *file = (struct file *)subject->file;
	__s64 offset = moved > 0 ? BPF_CORE_READ(file, f_pos) - moved : subject->position;

	if (offset != subject->position && !(subject->flags & BDT_CALL_APPEND))
		subject->flags |= BDT_CALL_OFFSET_SHARED;
	return offset;
}

/* The same for calls that may be given the address of an offset, which they move instead. */
static __always_inline __s64 moved_from(struct subject *subject, __u64 address, __s64 moved)
{
	__s64 after = 0;

	if (!(subject->flags & BDT_CALL_HAS_OFFSET))
		return -1;
	if (!address)
		return began_at(subject, moved);
	bpf_probe_read_user(&after, sizeof(after), (void *)address);
	return moved > 0 ? after - moved : after;
}

static __always_inline __u32 bucket_of(__u64 duration_ns)
{
	__u32 bucket = 0;

	if (duration_ns >> 32)
		return BDT_BUCKETS - 1;
#pragma unroll
	for (int shift = 16; shift; shift /= 2)
		if (duration_ns >> shift) {
			duration_ns >>= shift;
			bucket += shift;
		}
	return bucket & (BDT_BUCKETS - 1);
}

/* Mode SUMMARY: add a call up instead of writing it. Not static, so that it is verified once. */
int __noinline tally_op(__u32 tgid, __u32 op, __s64 result, __u64 duration_ns)
{
	struct op_key key = { .tgid = tgid, .op = op };
	struct bdt_op_total *total = bpf_map_lookup_elem(&op_totals, &key);

	if (!total) {
		bpf_map_update_elem(&op_totals, &key, &no_op_total, BPF_NOEXIST);
		total = bpf_map_lookup_elem(&op_totals, &key);
		if (!total) {
			count_seen();
			count_cause(BDT_CAUSE_MAP_FULL);
			return 0;
		}
	}
	__sync_fetch_and_add(&total->calls, 1);
	if (result < 0 && result > -4096)
		__sync_fetch_and_add(&total->errors, 1);
	__sync_fetch_and_add(&total->duration_ns, duration_ns);
	__sync_fetch_and_add(&total->latency[bucket_of(duration_ns)], 1);
	return 0;
}

struct tally {
	struct file_key key;
	__u64 time_ns;
	__u64 duration_ns;
	__s64 result;
	__u16 op;
	__u16 flags;
};

static __always_inline void tally_file(struct tally *it)
{
	struct bdt_file_total *total = bpf_map_lookup_elem(&file_totals, &it->key);
	__u32 bucket = bucket_of(it->duration_ns);
	bool is_target_of_move = it->flags & BDT_CALL_TO_FILE;

	if (!total) {
		bpf_map_update_elem(&file_totals, &it->key, &no_file_total, BPF_NOEXIST);
		total = bpf_map_lookup_elem(&file_totals, &it->key);
		if (!total) {
			count_seen();
			count_cause(BDT_CAUSE_MAP_FULL);
			return;
		}
	}
	if (!total->first_ns)
		total->first_ns = it->time_ns;
	total->last_ns = it->time_ns;
	if (it->result < 0 && it->result > -4096) {
		__sync_fetch_and_add(&total->others, 1);
	} else if (reads(it->op) || (moves(it->op) && !is_target_of_move)) {
		__sync_fetch_and_add(&total->reads, 1);
		__sync_fetch_and_add(&total->read_bytes, it->result);
		__sync_fetch_and_add(&total->read_ns, it->duration_ns);
		__sync_fetch_and_add(&total->read_latency[bucket], 1);
	} else if (writes(it->op) || moves(it->op)) {
		__sync_fetch_and_add(&total->writes, 1);
		__sync_fetch_and_add(&total->written_bytes, it->result);
		__sync_fetch_and_add(&total->write_ns, it->duration_ns);
		__sync_fetch_and_add(&total->write_latency[bucket], 1);
	} else if (opens(it->op) || it->op == BDT_OP_URING_OPEN) {
		__sync_fetch_and_add(&total->opens, 1);
	} else if (it->op == BDT_OP_MMAP) {
		__sync_fetch_and_add(&total->maps, 1);
	} else if (it->op == BDT_OP_FAULT) {
		__sync_fetch_and_add(&total->faults, 1);
	} else {
		__sync_fetch_and_add(&total->others, 1);
	}
}

/* What mode SUMMARY does with a call; true: that was all. */
static __always_inline bool tally(__u32 tgid, struct subject *subject, __u64 time_ns, __u64 duration_ns, __s64 result,
				  __u16 op)
{
	struct tally it = {
		.key = { .inode = subject->inode, .device = subject->device, .tgid = tgid },
		.time_ns = time_ns,
		.duration_ns = duration_ns,
		.result = result,
		.op = op,
		.flags = subject->flags,
	};

	/* The tree of processes is told in any mode. */
	if (mode != BDT_MODE_SUMMARY || op == BDT_OP_EXECVE || op == BDT_OP_EXECVEAT)
		return false;
	if (!(subject->flags & BDT_CALL_TO_FILE))
		tally_op(tgid, op, result, duration_ns);
	if (subject->flags & BDT_CALL_HAS_FILE)
		tally_file(&it);
	return true;
}

static __always_inline void emit_call(struct task_struct *task, struct call *call, struct subject *subject,
				      struct bdt_call *values)
{
	struct bdt_call *record;

	if (subject->flags & UNWANTED && values->op != BDT_OP_EXECVE && values->op != BDT_OP_EXECVEAT) {
		count_filtered();
		return;
	}
	/* A program is told by the name that was given to exec where its file has none. */
	if (subject->flags & UNWANTED)
		subject->flags &= ~BDT_CALL_HAS_FILE;
	if (call->waited && reads(values->op))
		subject->flags |= BDT_CALL_DEVICE;
	if (tally(task->tgid, subject, call->time_ns, values->duration_ns, values->result, values->op))
		return;
	record = reserve(sizeof(*record));
	if (!record)
		return;
	record->size = sizeof(*record);
	record->type = BDT_REC_CALL;
	record->tid = task->pid;
	record->time_ns = call->time_ns;
	record->duration_ns = values->duration_ns;
	record->result = values->result;
	record->inode = subject->inode;
	record->offset = values->offset;
	record->requested = values->requested;
	record->arg = values->arg;
	record->device = subject->device;
	record->fd = values->fd;
	record->tgid = task->tgid;
	record->op = values->op;
	record->flags = subject->flags & ~UNWANTED;
	bpf_ringbuf_submit(record, wakeup());
}

/* Both sides of a call that moves bytes from one file to another. */
static __always_inline void emit_move(struct task_struct *task, struct call *call, struct bdt_call *values)
{
	bool is_sendfile = values->op == BDT_OP_SENDFILE;
	__s32 in = is_sendfile ? call->argument[1] : call->argument[0];
	__s32 out = is_sendfile ? call->argument[0] : call->argument[2];

	values->requested = is_sendfile ? call->argument[3] : call->argument[4];
	values->fd = in;
	values->arg = out;
	values->offset = moved_from(&call->from, is_sendfile ? call->argument[2] : call->argument[1], values->result);
	emit_call(task, call, &call->from, values);
	values->fd = out;
	values->arg = in;
	values->offset = moved_from(&call->to, is_sendfile ? 0 : call->argument[3], values->result);
	call->to.flags |= BDT_CALL_TO_FILE;
	emit_call(task, call, &call->to, values);
}

/* A call whose arguments the loader's table describes. */
static __always_inline void emit_shaped(struct task_struct *task, struct call *call, struct bdt_call *values)
{
	const volatile struct bdt_shape *shape = &shapes[values->op & 127];
	__u64 path;

	if (shape->fd) {
		values->fd = call->argument[(shape->fd - 1) & 7];
		call->from.flags &= ~BDT_CALL_HAS_OFFSET;
	}
	if (shape->size)
		values->requested = call->argument[(shape->size - 1) & 7];
	if (shape->arg)
		values->arg = call->argument[(shape->arg - 1) & 7];
	if (shape->path && mode == BDT_MODE_EVENTS) {
		path = call->argument[(shape->path - 1) & 7];
		emit_string(path, 1, 0, call->time_ns, task->pid);
		note_base(&call->from, path,
			  shape->base ? (__s32)call->argument[(shape->base - 1) & 7] : AT_FDCWD, call->time_ns);
	}
	if (shape->second && mode == BDT_MODE_EVENTS)
		emit_string(call->argument[(shape->second - 1) & 7], 1, BDT_TEXT_SECOND, call->time_ns, task->pid);
	emit_call(task, call, &call->from, values);
}

/* A fault, or that it had to wait. */
static __always_inline void emit_fault(struct task_struct *task, struct call *call, __u16 op, __u64 time_ns)
{
	struct bdt_call *record;

	if (call->fault.flags & UNWANTED) {
		count_filtered();
		return;
	}
	if (tally(task->tgid, &call->fault, time_ns, 0, 0, op))
		return;
	record = reserve(sizeof(*record));
	if (!record)
		return;
	__builtin_memset(record, 0, sizeof(*record));
	record->size = sizeof(*record);
	record->type = BDT_REC_CALL;
	record->tid = task->pid;
	record->time_ns = time_ns;
	record->inode = call->fault.inode;
	record->offset = call->fault_offset;
	record->requested = 1 << page_shift;
	record->arg = call->fault.position;
	record->device = call->fault.device;
	record->fd = -1;
	record->tgid = task->tgid;
	record->op = op;
	record->flags = call->fault.flags & ~UNWANTED;
	bpf_ringbuf_submit(record, wakeup());
}

int __noinline tell_fault(struct call *call, struct mapping *mapping, __u64 address, __u32 is_write)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!call || !mapping)
		return 0;
	note_mapped(&call->fault, mapping->file, call->faulted_at, task->pid);
	call->fault.position = address;
	if (is_write)
		call->fault.flags |= BDT_CALL_FOR_WRITE;
	call->fault_offset =
		(mapping->page_offset << page_shift) + ((address - mapping->start) >> page_shift << page_shift);
	emit_fault(task, call, BDT_OP_FAULT, call->faulted_at);
	return 0;
}

/* Faults whose mappings could not be looked up are looked up when the thread makes a call, or ends. */
int __noinline settle_faults(struct call *call)
{
	if (!call)
		return 0;
	for (__u32 i = 0; i < BUSY; i++) {
		struct search search = {};

		if (i >= call->busy_count)
			break;
		search.address = call->busy[i & (BUSY - 1)] & ~1ULL;
		find_mapping(&search);
		if (search.error) {
			count_seen();
			count_cause(BDT_CAUSE_MAPPING_BUSY);
		} else if (search.mapping.file) {
			tell_fault(call, &search.mapping, search.address, call->busy[i & (BUSY - 1)] & 1);
		}
	}
	call->busy_count = 0;
	return 0;
}

static __always_inline int on_fault(__u64 address, __u64 error_code)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct search search = { .address = address };
	struct call *call;

	/* With faults disabled nobody waits for the page: the kernel, or we, only try whether it is there. */
	if (!has_begun || !wants[BDT_OP_FAULT] || !is_target(task) || task->pagefault_disabled)
		return 0;
	find_mapping(&search);
	if ((search.error && search.error != -EBUSY) || (!search.error && !search.mapping.file))
		return 0;
	call = call_of(task, bpf_ktime_get_ns());
	if (!call)
		return 0;
	call->faulted_at = bpf_ktime_get_ns();
	if (!search.error) {
		tell_fault(call, &search.mapping, address, error_code & FAULT_WRITE);
	} else {
		__u32 at = call->busy_count;

		call->fault.flags = 0;
		if (at < BUSY) {
			call->busy[at & (BUSY - 1)] = (address & ~1ULL) | !!(error_code & FAULT_WRITE);
			call->busy_count = at + 1;
		} else {
			count_seen();
			count_cause(BDT_CAUSE_MAPPING_BUSY);
		}
	}
	return 0;
}

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 number = ctx->args[1];
	struct registers registers;
	struct call *call;
	__u64 now, file;
	__u16 op;
	__s32 fd;

	if (number >= SYSCALLS)
		return 0;
	op = op_of[number];
	if (!op || !is_target(task))
		return 0;
	/* The gate itself is not the target's doing, up to the exec with which it becomes the target. */
	if (!has_begun && op != BDT_OP_EXECVE && op != BDT_OP_EXECVEAT)
		return 0;
	now = bpf_ktime_get_ns();
	call = call_of(task, now);
	if (!call)
		return 0;
	bpf_probe_read_kernel(&registers, sizeof(registers), (void *)ctx->args[0]);
	{
		__u64 argument[5] = ARGUMENTS(registers);

		__builtin_memcpy(call->argument, argument, sizeof(argument));
	}
	if (op == BDT_OP_FCNTL_DUPFD && call->argument[1] != F_DUPFD && call->argument[1] != F_DUPFD_CLOEXEC)
		return 0;
	if (op == BDT_OP_MMAP && (call->argument[3] & MAP_ANONYMOUS))
		return 0;
	call->time_ns = now;
	call->op = op;
	call->waited = 0;
	if (call->busy_count)
		settle_faults(call);
	call->faulted_at = 0;
	forget(&call->from);
	fd = op == BDT_OP_MMAP ? call->argument[4] : op == BDT_OP_SENDFILE ? call->argument[1] : call->argument[0];
	if (takes_descriptor(op) || op == BDT_OP_MMAP || moves(op)) {
		file = file_of(task, fd);
		if (file)
			note_file(&call->from, file, now, task->pid, false);
	}
	if (op >= BDT_OP_STAT && op != BDT_OP_MUNMAP && op != BDT_OP_MSYNC && shapes[op & 127].fd) {
		file = file_of(task, call->argument[(shapes[op & 127].fd - 1) & 7]);
		if (file)
			note_file(&call->from, file, now, task->pid, false);
	}
	if ((op == BDT_OP_MUNMAP || op == BDT_OP_MSYNC) && !note_mapping(task, &call->from, call->argument[0], now)) {
		/* Of memory without a file. */
		call->op = 0;
		return 0;
	}
	if (reads(op) && call->from.file) {
		struct file *opened = (struct file *)call->from.file;

		/* Past the page cache, so always from the device. */
		if (BPF_CORE_READ(opened, f_flags) & O_DIRECT)
			call->waited = 1;
	}
	if (moves(op)) {
		forget(&call->to);
		file = file_of(task, op == BDT_OP_SENDFILE ? call->argument[0] : call->argument[2]);
		if (file)
			note_file(&call->to, file, now, task->pid, false);
	}
	return 0;
}

SEC("raw_tp/sys_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call *call = bpf_task_storage_get(&calls, task, NULL, 0);
	struct bdt_call values = { .fd = -1, .offset = -1 };
	bool has_own_offset = false;
	struct registers registers;
	bool tells = mode == BDT_MODE_EVENTS;
	__u64 file;
	__u16 op;

	if (!call || !call->op || !target_inum)
		return 0;
	values.op = op = call->op;
	call->op = 0;
	values.duration_ns = bpf_ktime_get_ns() - call->time_ns;
	values.result = (__s64)ctx->args[1];
	if (moves(op)) {
		emit_move(task, call, &values);
		return 0;
	}
	if (op >= BDT_OP_STAT && op != BDT_OP_MUNMAP && op != BDT_OP_MSYNC) {
		emit_shaped(task, call, &values);
		return 0;
	}
	switch (op) {
	case BDT_OP_OPEN:
	case BDT_OP_CREAT:
		values.arg = op == BDT_OP_OPEN ? call->argument[1] : 01101;
		if (tells)
			emit_string(call->argument[0], 1, 0, call->time_ns, task->pid);
		break;
	case BDT_OP_OPENAT:
	case BDT_OP_OPENAT2:
		if (op == BDT_OP_OPENAT)
			values.arg = call->argument[2];
		else
			bpf_probe_read_user(&values.arg, sizeof(values.arg), (void *)call->argument[2]);
		if (tells)
			emit_string(call->argument[1], 1, 0, call->time_ns, task->pid);
		break;
	case BDT_OP_EXECVE:
	case BDT_OP_EXECVEAT:
		/* One that succeeded was told by on_exec, when the old memory was still to be read. */
		if (values.result < 0) {
			bool at = op == BDT_OP_EXECVEAT;

			emit_string(call->argument[at], 1, 0, call->time_ns, task->pid);
			note_base(&call->from, call->argument[at], at ? (__s32)call->argument[0] : AT_FDCWD, call->time_ns);
		}
		break;
	case BDT_OP_READ:
	case BDT_OP_WRITE:
		values.requested = call->argument[2];
		values.fd = call->argument[0];
		break;
	case BDT_OP_PREAD64:
	case BDT_OP_PWRITE64:
		values.requested = call->argument[2];
		values.offset = call->argument[3];
		values.fd = call->argument[0];
		has_own_offset = true;
		break;
	case BDT_OP_READV:
	case BDT_OP_WRITEV:
		values.requested = sum_of_iovecs(call);
		values.fd = call->argument[0];
		break;
	case BDT_OP_PREADV:
	case BDT_OP_PWRITEV:
	case BDT_OP_PREADV2:
	case BDT_OP_PWRITEV2:
		values.requested = sum_of_iovecs(call);
		/* On 64-bit kernels the low word holds all of the offset; -1 means the file's own position. */
		values.offset = call->argument[3];
		values.fd = call->argument[0];
		has_own_offset = values.offset != -1;
		break;
	case BDT_OP_LSEEK:
		values.offset = call->argument[1];
		values.arg = call->argument[2];
		values.fd = call->argument[0];
		has_own_offset = true;
		break;
	case BDT_OP_MMAP:
		values.requested = call->argument[1];
		values.arg = (call->argument[2] & 0xffffffff) | call->argument[3] << 32;
		values.fd = call->argument[4];
		/* The sixth argument, which only this call needs. */
		bpf_probe_read_kernel(&registers, sizeof(registers), (void *)ctx->args[0]);
		values.offset = SIXTH_ARGUMENT(registers);
		has_own_offset = true;
		break;
	case BDT_OP_MUNMAP:
	case BDT_OP_MSYNC:
		values.arg = call->argument[0];
		values.requested = call->argument[1];
		break;
	default:
		values.fd = call->argument[0];
		values.arg = call->argument[1];
	}
	if (opens(op)) {
		if (values.result >= 0) {
			values.fd = values.result;
			file = file_of(task, values.fd);
			if (file)
				note_file(&call->from, file, call->time_ns, task->pid, tells);
		} else if (tells) {
			bool at = op == BDT_OP_OPENAT || op == BDT_OP_OPENAT2;

			note_base(&call->from, at ? call->argument[1] : call->argument[0],
				  at ? (__s32)call->argument[0] : AT_FDCWD, call->time_ns);
		}
		call->from.flags &= ~BDT_CALL_HAS_OFFSET;
	} else if (op < BDT_OP_READ || op > BDT_OP_MMAP) {
		call->from.flags &= ~BDT_CALL_HAS_OFFSET;
	} else if (!has_own_offset && (call->from.flags & BDT_CALL_HAS_OFFSET)) {
		values.offset = began_at(&call->from, values.result);
	}
	emit_call(task, call, &call->from, &values);
	return 0;
}

/* A program has been replaced: the new one's name and arguments are in kernel memory and on its fresh stack. */
SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct linux_binprm *binprm = (struct linux_binprm *)ctx->args[2];
	struct fs_struct *fs;
	struct call *call;

	if (!is_target(task))
		return 0;
	call = call_of(task, bpf_ktime_get_ns());
	if (!call)
		return 0;
	if (!has_begun) {
		fs = task->fs;
		root_dentry = (__u64)BPF_CORE_READ(fs, root.dentry);
		root_mnt = (__u64)BPF_CORE_READ(fs, root.mnt);
		has_begun = 1;
	}
	/* The program itself: of a script, its interpreter. */
	note_file(&call->from, (__u64)BPF_CORE_READ(binprm, file), call->time_ns, task->pid, false);
	emit_string((__u64)BPF_CORE_READ(binprm, filename), 0, 0, call->time_ns, task->pid);
	emit_argv(task, call->time_ns, task->pid);
	return 0;
}

static __always_inline void emit_event(struct task_struct *task, __u16 op, __s64 result, __u64 argument, __u16 flags)
{
	struct bdt_call *record;

	record = reserve(sizeof(*record));
	if (!record)
		return;
	__builtin_memset(record, 0, sizeof(*record));
	record->size = sizeof(*record);
	record->type = BDT_REC_CALL;
	record->tid = task->pid;
	record->time_ns = bpf_ktime_get_ns();
	record->result = result;
	record->offset = -1;
	record->arg = argument;
	record->fd = -1;
	record->tgid = task->tgid;
	record->op = op;
	record->flags = flags;
	bpf_ringbuf_submit(record, wakeup());
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *child = (struct task_struct *)ctx->args[1];

	if (!has_begun || !is_target(task) || !call_of(task, bpf_ktime_get_ns()))
		return 0;
	emit_event(task, BDT_OP_FORK, BPF_CORE_READ(child, pid), BPF_CORE_READ(child, tgid), 0);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_task_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call *call;

	if (!has_begun || !is_target(task))
		return 0;
	/* One that never made a call that is traced is introduced here. */
	call = call_of(task, bpf_ktime_get_ns());
	if (!call)
		return 0;
	if (call->busy_count)
		settle_faults(call);
	emit_event(task, BDT_OP_EXIT, task->exit_code, 0, ctx->args[1] ? BDT_CALL_GROUP_DEAD : 0);
	return 0;
}

/* -- faults */

/* Attached to page_fault_kernel too: the kernel touches the target's memory on its behalf. */
SEC("raw_tp/page_fault_user")
int on_page_fault(struct bpf_raw_tracepoint_args *ctx)
{
	return on_fault(ctx->args[0], ctx->args[2]);
}

/* Pages are being read into the page cache on behalf of this task. */
SEC("raw_tp/mm_filemap_add_to_page_cache")
int on_page_in(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call *call;

	if (!has_begun || !is_target(task))
		return 0;
	call = bpf_task_storage_get(&calls, task, NULL, 0);
	if (!call)
		return 0;
	if (call->op) {
		call->waited = 1;
	} else if (call->faulted_at && call->fault.flags & BDT_CALL_HAS_FILE && wants[BDT_OP_PAGE_IN]) {
		call->faulted_at = 0;
		emit_fault(task, call, BDT_OP_PAGE_IN, bpf_ktime_get_ns());
	}
	return 0;
}

/* -- io_uring */

/* The operations that are told apart, of enum io_uring_op, which is an interface to user space. */
static __always_inline __u16 op_of_uring(__u8 opcode)
{
	switch (opcode) {
	case 1: /* READV */
	case 4: /* READ_FIXED */
	case 22: /* READ */
	case 49: /* READ_MULTISHOT */
		return BDT_OP_URING_READ;
	case 2: /* WRITEV */
	case 5: /* WRITE_FIXED */
	case 23: /* WRITE */
		return BDT_OP_URING_WRITE;
	case 3: /* FSYNC */
		return BDT_OP_URING_FSYNC;
	case 18: /* OPENAT */
	case 28: /* OPENAT2 */
		return BDT_OP_URING_OPEN;
	case 19: /* CLOSE */
		return BDT_OP_URING_CLOSE;
	case 21: /* STATX */
		return BDT_OP_URING_STAT;
	}
	return BDT_OP_URING_OTHER;
}

SEC("raw_tp/io_uring_submit_req")
int on_uring_submit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct io_kiocb *io = (struct io_kiocb *)ctx->args[0];
	struct request request = {};
	__u64 key = ctx->args[0], file;
	struct io_rw *rw = (struct io_rw *)key;
	__u16 op;

	if (!has_begun || !is_target(task))
		return 0;
	request.opcode = BPF_CORE_READ(io, opcode);
	op = op_of_uring(request.opcode);
	/* A request that does nothing, and waiting for a clock, are no file's business. */
	if (!wants[op & 127] || !request.opcode)
		return 0;
	request.op = op;
	request.time_ns = bpf_ktime_get_ns();
	request.tid = task->pid;
	request.tgid = task->tgid;
	request.offset = -1;
	request.fd = -1;
	if (!call_of(task, request.time_ns))
		return 0;
	if (op == BDT_OP_URING_READ || op == BDT_OP_URING_WRITE) {
		request.offset = BPF_CORE_READ(rw, kiocb.ki_pos);
		/* Of a vector this is the number of its parts. */
		if (request.opcode > 2)
			request.requested = BPF_CORE_READ(rw, len);
	}
	if (op == BDT_OP_URING_OPEN)
		request.name = (__u64)BPF_CORE_READ((struct io_open *)key, filename, name);
	if (op == BDT_OP_URING_STAT)
		request.name = (__u64)BPF_CORE_READ((struct io_statx *)key, filename, name);
	if (request.name) {
		if (mode == BDT_MODE_EVENTS)
			emit_string(request.name, 0, 0, request.time_ns, task->pid);
	} else {
		request.fd = op == BDT_OP_URING_CLOSE ? BPF_CORE_READ((struct io_close *)key, fd) : BPF_CORE_READ(io, cqe.fd);
		file = file_of(task, request.fd);
		if (file)
			note_file(&request.subject, file, request.time_ns, task->pid, false);
	}
	if (bpf_map_update_elem(&requests, &key, &request, BPF_ANY)) {
		count_seen();
		count_cause(BDT_CAUSE_MAP_FULL);
	}
	return 0;
}

/* A completion may come in any task's context; what is known of the request's own is in the map. */
SEC("raw_tp/io_uring_complete")
int on_uring_complete(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 key = ctx->args[1], now, file;
	struct io_kiocb *io = (struct io_kiocb *)key;
	struct request *request;
	struct bdt_call *record;
	struct file *registered;
	__s64 result;

	if (!has_begun || !target_inum || !key)
		return 0;
	request = bpf_map_lookup_elem(&requests, &key);
	if (!request)
		return 0;
	now = bpf_ktime_get_ns();
	result = BPF_CORE_READ(io, cqe.res);
	registered = BPF_CORE_READ(io, file);
	if (request->op == BDT_OP_URING_OPEN) {
		file = result >= 0 ? file_of(bpf_get_current_task_btf(), result) : 0;
		if (file)
			note_file(&request->subject, file, request->time_ns, request->tid, true);
		request->fd = result >= 0 ? result : -1;
	} else if (registered && !request->name && request->op != BDT_OP_URING_CLOSE) {
		/* Also of a file that was registered with the ring and has no descriptor. */
		note_file(&request->subject, (__u64)registered, request->time_ns, request->tid, false);
	}
	if (request->op != BDT_OP_URING_READ && request->op != BDT_OP_URING_WRITE)
		request->subject.flags &= ~BDT_CALL_HAS_OFFSET;
	if (request->offset == -1 && request->subject.flags & BDT_CALL_HAS_OFFSET)
		request->offset = request->subject.position - (result > 0 ? result : 0);
	if (request->subject.flags & UNWANTED) {
		count_filtered();
	} else if (!tally(request->tgid, &request->subject, request->time_ns, now - request->time_ns, result, request->op)) {
		record = reserve(sizeof(*record));
		if (record) {
			record->size = sizeof(*record);
			record->type = BDT_REC_CALL;
			record->tid = request->tid;
			record->time_ns = request->time_ns;
			record->duration_ns = now - request->time_ns;
			record->result = result;
			record->inode = request->subject.inode;
			record->offset = request->offset;
			record->requested = request->requested ? request->requested : result > 0 ? result : 0;
			record->arg = request->opcode;
			record->device = request->subject.device;
			record->fd = request->fd;
			record->tgid = request->tgid;
			record->op = request->op;
			record->flags = request->subject.flags & ~UNWANTED;
			bpf_ringbuf_submit(record, wakeup());
		}
	}
	bpf_map_delete_elem(&requests, &key);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
