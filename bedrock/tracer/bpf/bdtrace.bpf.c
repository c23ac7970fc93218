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
	unsigned int f_flags;
	long long f_pos;
	struct inode *f_inode;
	struct path f_path;
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
	const char *filename;
} CORE;
struct task_struct {
	int pid;
	int tgid;
	int exit_code;
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
#define O_APPEND 02000
#define MAP_ANONYMOUS 0x20
#define AT_FDCWD -100
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030

#define MAX_PATH 4096
#define MAX_NAME 256
#define MAX_LEVELS 64
#define MAX_IOVECS 32
#define SYSCALLS 512

/* Set by the loader before it loads us: which Op a system call of this architecture is, 0 for none. */
const volatile __u8 op_of[SYSCALLS];
/* And for the Ops from BDT_OP_STAT on, which of its arguments is what. */
const volatile struct bdt_shape shapes[128];
const volatile __u32 wakeup_bytes;

/* Set by the loader to arm and to disarm. */
__u32 target_inum;
__u32 target_level;
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

struct call {
	__u64 time_ns;
	__u64 argument[8];
	struct subject from;
	struct subject to; /* of calls that move bytes from one file to another */
	__u16 op;
	__u16 introduced;
};

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

/* Wake the loader when there is much to do; otherwise it looks by itself now and then. */
static __always_inline __u64 wakeup(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wakeup_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
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
static __always_inline void introduce(struct task_struct *task, __u64 now)
{
	struct bdt_process *record;

	count_seen();
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count_cause(BDT_CAUSE_RING_FULL);
		return;
	}
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
		call->introduced = 1;
		introduce(task, now);
	}
	return call;
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
	if (bpf_ringbuf_output(&ring, scratch, size, wakeup()))
		count_cause(BDT_CAUSE_RING_FULL);
}

/*
 * The two functions below are not static on purpose: the verifier looks at such a function once, and not again at every
 * place that calls it, which keeps attaching quick.
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

/*
 * Write which path a file has: its components from the last one up to the container's root, across mounts. Whoever
 * reads the trace turns them round.
 */
int __noinline emit_path(__u64 dentry_address, __u64 mnt, __u64 inode_address, __u64 time_ns, __u32 tid)
{
	struct inode *inode = (struct inode *)inode_address;
	struct dentry *dentry = (struct dentry *)dentry_address;
	struct walk walk = { .dentry = dentry_address, .mnt = mnt, .flags = BDT_TEXT_CUT };
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	if (!scratch)
		return 0;
	bpf_loop(MAX_LEVELS, step, &walk, 0);
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
	return 0;
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

static __always_inline void emit_argv(struct task_struct *task, __u64 time_ns, __u32 tid)
{
	__u32 zero = 0, flags = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	struct mm_struct *mm = task->mm;
	__u64 start, size;

	if (!scratch || !mm)
		return;
	start = mm->arg_start;
	size = mm->arg_end - start;
	if (size >= MAX_PATH) {
		size = MAX_PATH - 1;
		flags = BDT_TEXT_CUT;
		count_cause(BDT_CAUSE_STRING_CUT);
	}
	if (bpf_probe_read_user((char *)scratch + sizeof(struct bdt_argv), size & (MAX_PATH - 1), (void *)start)) {
		flags |= BDT_TEXT_UNREADABLE;
		size = 0;
		count_cause(BDT_CAUSE_READ_FAULT);
	}
	scratch->head.string.type = BDT_REC_ARGV;
	scratch->head.string.tid = tid;
	scratch->head.string.time_ns = time_ns;
	scratch->head.string.text_size = size;
	scratch->head.string.flags = flags;
	emit_text(scratch, sizeof(struct bdt_argv), size);
}

/* Take down which file a call is about, and introduce the file if it is a new one. */
static __always_inline void note_file(struct subject *subject, __u64 file_address, __u64 time_ns, __u32 tid,
				      bool always_introduce)
{
	struct file *file = (struct file *)file_address;
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct identity identity = {};
	__u16 mode = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	__u8 one = 1;

	subject->file = file_address;
	subject->inode = identity.inode = BPF_CORE_READ(inode, i_ino);
	subject->device = identity.device = BPF_CORE_READ(inode, i_sb, s_dev);
	subject->flags = BDT_CALL_HAS_FILE;
	if (mode == S_IFREG || mode == S_IFBLK) {
		subject->flags |= BDT_CALL_HAS_OFFSET;
		subject->position = BPF_CORE_READ(file, f_pos);
		if (BPF_CORE_READ(file, f_flags) & O_APPEND)
			subject->flags |= BDT_CALL_APPEND;
	}
	if (always_introduce || !bpf_map_lookup_elem(&known_files, &identity)) {
		bpf_map_update_elem(&known_files, &identity, &one, BPF_ANY);
		emit_path((__u64)BPF_CORE_READ(file, f_path.dentry), (__u64)BPF_CORE_READ(file, f_path.mnt), (__u64)inode,
			  time_ns, tid);
	}
}

/* Take down from which directory a relative path counts. */
static __always_inline void note_base(struct task_struct *task, struct subject *subject, __u64 raw, __s32 base,
				      __u64 time_ns)
{
	struct identity identity = {};
	struct fs_struct *fs = task->fs;
	struct dentry *dentry;
	struct inode *inode;
	__u8 one = 1;
	char first = '/';
	__u64 file;

	bpf_probe_read_user(&first, 1, (void *)raw);
	if (first == '/')
		return;
	if (base != AT_FDCWD) {
		file = file_of(task, base);
		if (!file)
			return;
		note_file(subject, file, time_ns, task->pid, false);
		/* An empty path means the descriptor's own file. */
		subject->flags = first ? BDT_CALL_FROM_BASE : BDT_CALL_HAS_FILE;
		return;
	}
	if (!fs)
		return;
	dentry = BPF_CORE_READ(fs, pwd.dentry);
	inode = BPF_CORE_READ(dentry, d_inode);
	subject->inode = identity.inode = BPF_CORE_READ(inode, i_ino);
	subject->device = identity.device = BPF_CORE_READ(inode, i_sb, s_dev);
	subject->flags = BDT_CALL_FROM_BASE;
	if (!bpf_map_lookup_elem(&known_files, &identity)) {
		bpf_map_update_elem(&known_files, &identity, &one, BPF_ANY);
		emit_path((__u64)dentry, (__u64)BPF_CORE_READ(fs, pwd.mnt), (__u64)inode, time_ns, task->pid);
	}
}

static __always_inline void forget(struct subject *subject)
{
	subject->file = 0;
	subject->inode = 0;
	subject->position = 0;
	subject->device = 0;
	subject->flags = 0;
}

static __always_inline bool moves(__u16 op)
{
	return op >= BDT_OP_SENDFILE && op <= BDT_OP_SPLICE;
}

static __always_inline bool takes_descriptor(__u16 op)
{
	return op >= BDT_OP_CLOSE && op <= BDT_OP_FCNTL_DUPFD && op != BDT_OP_MMAP;
}

static __always_inline bool opens(__u16 op)
{
	return op >= BDT_OP_OPEN && op <= BDT_OP_CREAT;
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
	forget(&call->from);
	fd = op == BDT_OP_MMAP ? call->argument[4] : op == BDT_OP_SENDFILE ? call->argument[1] : call->argument[0];
	if (takes_descriptor(op) || op == BDT_OP_MMAP || moves(op)) {
		file = file_of(task, fd);
		if (file)
			note_file(&call->from, file, now, task->pid, false);
	}
	if (op >= BDT_OP_STAT && shapes[op & 127].fd) {
		file = file_of(task, call->argument[(shapes[op & 127].fd - 1) & 7]);
		if (file)
			note_file(&call->from, file, now, task->pid, false);
	}
	if (moves(op)) {
		forget(&call->to);
		file = file_of(task, op == BDT_OP_SENDFILE ? call->argument[0] : call->argument[2]);
		if (file)
			note_file(&call->to, file, now, task->pid, false);
	}
	return 0;
}

static __always_inline __u64 sum_of_iovecs(struct call *call)
{
	struct {
		__u64 base;
		__u64 size;
	} iovec;
	__u64 count = call->argument[2], sum = 0;

	if (count > MAX_IOVECS)
		call->from.flags |= BDT_CALL_REQUEST_CUT;
	for (int i = 0; i < MAX_IOVECS; i++) {
		if (i >= count)
			break;
		if (bpf_probe_read_user(&iovec, sizeof(iovec), (void *)(call->argument[1] + i * sizeof(iovec))))
			break;
		sum += iovec.size;
	}
	return sum;
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

static __always_inline void emit_call(struct task_struct *task, struct call *call, struct subject *subject,
				      struct bdt_call *values)
{
	struct bdt_call *record;

	count_seen();
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count_cause(BDT_CAUSE_RING_FULL);
		return;
	}
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
	record->flags = subject->flags;
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
	if (shape->path) {
		path = call->argument[(shape->path - 1) & 7];
		emit_string(path, 1, 0, call->time_ns, task->pid);
		note_base(task, &call->from, path,
			  shape->base ? (__s32)call->argument[(shape->base - 1) & 7] : AT_FDCWD, call->time_ns);
	}
	if (shape->second)
		emit_string(call->argument[(shape->second - 1) & 7], 1, BDT_TEXT_SECOND, call->time_ns, task->pid);
	emit_call(task, call, &call->from, values);
}

SEC("raw_tp/sys_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call *call = bpf_task_storage_get(&calls, task, NULL, 0);
	struct bdt_call values = { .fd = -1, .offset = -1 };
	bool has_own_offset = false;
	struct registers registers;
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
	if (op >= BDT_OP_STAT) {
		emit_shaped(task, call, &values);
		return 0;
	}
	switch (op) {
	case BDT_OP_OPEN:
	case BDT_OP_CREAT:
		values.arg = op == BDT_OP_OPEN ? call->argument[1] : 01101;
		emit_string(call->argument[0], 1, 0, call->time_ns, task->pid);
		break;
	case BDT_OP_OPENAT:
	case BDT_OP_OPENAT2:
		if (op == BDT_OP_OPENAT)
			values.arg = call->argument[2];
		else
			bpf_probe_read_user(&values.arg, sizeof(values.arg), (void *)call->argument[2]);
		emit_string(call->argument[1], 1, 0, call->time_ns, task->pid);
		break;
	case BDT_OP_EXECVE:
	case BDT_OP_EXECVEAT:
		/* One that succeeded was told by on_exec, when the old memory was still to be read. */
		if (values.result < 0)
			emit_string(op == BDT_OP_EXECVEAT ? call->argument[1] : call->argument[0], 1, 0, call->time_ns,
				    task->pid);
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
	default:
		values.fd = call->argument[0];
		values.arg = call->argument[1];
	}
	if (opens(op)) {
		if (values.result >= 0) {
			values.fd = values.result;
			file = file_of(task, values.fd);
			if (file)
				note_file(&call->from, file, call->time_ns, task->pid, true);
		} else {
			bool at = op == BDT_OP_OPENAT || op == BDT_OP_OPENAT2;

			note_base(task, &call->from, at ? call->argument[1] : call->argument[0],
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
	emit_string((__u64)BPF_CORE_READ(binprm, filename), 0, 0, call->time_ns, task->pid);
	emit_argv(task, call->time_ns, task->pid);
	return 0;
}

static __always_inline void emit_event(struct task_struct *task, __u16 op, __s64 result, __u64 argument, __u16 flags)
{
	struct bdt_call *record;

	count_seen();
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count_cause(BDT_CAUSE_RING_FULL);
		return;
	}
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

	if (!has_begun || !is_target(task))
		return 0;
	emit_event(task, BDT_OP_FORK, BPF_CORE_READ(child, pid), BPF_CORE_READ(child, tgid), 0);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_task_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!has_begun || !is_target(task))
		return 0;
	/* One that never made a call that is traced is introduced here. */
	call_of(task, bpf_ktime_get_ns());
	emit_event(task, BDT_OP_EXIT, task->exit_code, 0, ctx->args[1] ? BDT_CALL_GROUP_DEAD : 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
