// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* What is read of the kernel: only the fields that are needed are declared; CO-RE finds them in the kernel that is there. */
#pragma once

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
	unsigned long s_magic;
} CORE;
struct inode {
	unsigned short i_mode;
	long long i_size;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;
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
struct address_space {
	struct inode *host;
} CORE;
struct folio {
	struct address_space *mapping;
} CORE;
struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_pgoff;
	unsigned long vm_flags;
	struct file *vm_file;
} CORE;
struct kiocb {
	long long ki_pos;
} CORE;
struct io_cqe {
	__u64 user_data;
	int res;
	int fd;
} CORE;
struct io_kiocb {
	struct file *file;
	unsigned char opcode;
	__u64 flags;
	struct io_cqe cqe;
} CORE;
struct io_rw {
	struct kiocb kiocb;
	unsigned int len;
	int flags;
} CORE;
struct filename {
	const char *name;
} CORE;
/* From 7.0 on the requests have their names in one of these each. */
struct delayed_filename {
	struct filename *__incomplete_filename;
} CORE;
struct io_open___delayed {
	struct delayed_filename filename;
} CORE;
struct io_statx___delayed {
	struct delayed_filename filename;
} CORE;
struct io_unlink___delayed {
	struct delayed_filename filename;
} CORE;
struct io_mkdir___delayed {
	struct delayed_filename filename;
} CORE;
struct io_rename___delayed {
	struct delayed_filename oldpath;
	struct delayed_filename newpath;
} CORE;
struct io_link___delayed {
	struct delayed_filename oldpath;
	struct delayed_filename newpath;
} CORE;
struct io_open {
	int dfd;
	__u32 file_slot;
	struct filename *filename;
} CORE;
struct io_close {
	int fd;
	__u32 file_slot;
} CORE;
struct io_statx {
	struct filename *filename;
	int dfd;
} CORE;
struct io_rename {
	int old_dfd;
	int new_dfd;
	struct filename *oldpath;
	struct filename *newpath;
} CORE;
struct io_unlink {
	int dfd;
	struct filename *filename;
} CORE;
struct io_mkdir {
	int dfd;
	struct filename *filename;
} CORE;
struct io_link {
	int old_dfd;
	int new_dfd;
	struct filename *oldpath;
	struct filename *newpath;
} CORE;
struct io_sync {
	long long len;
	long long off;
} CORE;
struct io_ftrunc {
	long long len;
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
/* The tree in which the kernel (from 6.1 on) keeps the mappings of a process. */
enum maple_type { maple_leaf_64 = 1, maple_range_64 = 2, maple_arange_64 = 3 };
struct maple_metadata {
	unsigned char end;
} CORE;
struct maple_range_64 {
	void *parent;
	unsigned long pivot[15];
	union {
		void *slot[16];
		struct {
			void *pad[15];
			struct maple_metadata meta;
		};
	};
} CORE;
struct maple_arange_64 {
	void *parent;
	unsigned long pivot[9];
	void *slot[10];
	unsigned long gap[10];
	struct maple_metadata meta;
} CORE;
struct maple_tree {
	void *ma_root;
} CORE;
struct seqcount {
	unsigned int sequence;
} CORE;
struct mm_struct {
	struct maple_tree mm_mt;
	struct seqcount mm_lock_seq;
	unsigned long arg_start;
	unsigned long arg_end;
} CORE;
struct linux_binprm {
	struct file *file;
	const char *filename;
	const char *fdpath;
} CORE;
struct thread_info {
	unsigned long flags;
	unsigned int status;
} CORE;
typedef struct {
	int counter;
} atomic_t;
struct signal_struct {
	atomic_t live;
} CORE;
struct task_struct {
	struct thread_info thread_info;
	unsigned long nvcsw;
	unsigned long nivcsw;
	__u64 start_time;
	struct signal_struct *signal;
	unsigned int flags;
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
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};
struct pt_regs {
	unsigned long orig_ax;
} CORE;
#define TS_COMPAT 2
#define X32_CALL 0x40000000
#elif defined(__TARGET_ARCH_arm64)
struct registers {
	__u64 x[6];
};
struct pt_regs {
	__u64 orig_x0; /* x[0] becomes the result */
	int syscallno;
} CORE;
#define TIF_32BIT (1 << 22)
#else
#error "the probes know x86-64 and arm64"
#endif

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define OVERLAYFS_MAGIC 0x794c7630
#define ANON_INODE_MAGIC 0x09041934
#define PIDFS_MAGIC 0x50494446
#define REQ_F_FIXED_FILE 1 /* as IOSQE_FIXED_FILE, which is an interface to user space */
#define READ_MULTISHOT 49
#define FICLONE 0x40049409
#define FICLONERANGE 0x4020940d
#define FIDEDUPERANGE 0xc0189436
#define FS_IOC_SETFLAGS 0x40086602
#define FS_IOC32_SETFLAGS 0x40046602
#define FS_IOC_FSSETXATTR 0x401c5820
#define MAX_CALLS 1024 /* numbers from there on are none of any interface */
#define MAX_IOCBS (1 << 20) /* more than the kernel takes at once */
#define O_APPEND 02000
#define O_DIRECT 040000
/* FMODE_BACKING was bit 25 when it was new (6.5) and is bit 24 since 6.10; where it is the one, the other is rare. */
#define MAY_BE_BACKING (1u << 24 | 1u << 25)
#define MAP_ANONYMOUS 0x20
#define VM_SHARED 8
#define RWF_APPEND 0x10
#define RESOLVE_IN_ROOT 0x10
#define AF_UNIX 1
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define SIGBUS 7
#define SIGSEGV 11
#define CORE_DUMPED 0x80 /* of a status as in wait(2) */
#define AT_FDCWD -100
#define EFAULT 14
#define ENOSYS 38
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030

#define MAX_PATH 4096
#define MAX_NAME 256
#define MAX_LEVELS 2048 /* components of one letter that MAX_PATH has room for */
#define MAX_TURNS MAX_LEVELS /* of any loop, on kernels without bpf_loop */
#define MAX_NAMESPACES 32 /* the kernel's own limit, MAX_PID_NS_LEVEL */
#define MAX_IOVECS 1024 /* the kernel's own limit, UIO_MAXIOV */
#define MAX_ARGV_PARTS 64
#define FAULT_WRITE 2 /* x86's error code: the access was a write */
#define SYSCALLS 512

/* Set by the loader: whether this kernel has bpf_rdonly_cast (from 6.2 on). */
const volatile bool can_cast;
extern void *bpf_rdonly_cast(const void *object, __u32 type) __weak __ksym;

/*
 * A field of what lies at an address in the kernel, 0 where nothing does. With a cast it is a load, else a call of the
 * helper that copies memory, which takes ten times as long. To the verifier a pointer that was loaded is one of its type,
 * no number: it is not let into functions that take an address as such.
 */
#define FIELD(type, address, field)                                                                            \
	(can_cast ? ((struct type *)bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(struct type)))  \
			    ->field :                                                                          \
		    BPF_CORE_READ((struct type *)(address), field))
