/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A session, as the probes and the loader both see it. bdt_format.h and calls.h are to be included before. */
#pragma once

#define MAX_SESSIONS 128 /* traced at a time by one set of probes; a power of two, for the verifier's sake */
#define SLOT(number) ((number) & (MAX_SESSIONS - 1))
#define NAMESPACE_BITS 4096
#define NAMESPACE_BIT(inum) ((inum) & (NAMESPACE_BITS - 1))

/* The loader fills an entry before it makes the session's namespace known, and clears ``number`` when the session ends. */
struct session {
	uint32_t number; /* never given twice; 0: nobody's entry */
	uint32_t level; /* of the session's PID namespace */
	uint32_t mode; /* BDT_MODE_... */
	uint32_t wakeup_bytes;
	uint32_t opens_are_untold; /* that a number was given to another file has to be seen elsewhere than at opens */
	uint32_t prefix_count; /* of which files events are wanted; 0 means all */
	uint32_t is_full; /* the trace has its upper size: records are only counted from now on */
	/* The probes write these. */
	uint32_t has_begun; /* the target's own program has begun */
	uint32_t tree_changes; /* how often a directory was renamed or made: paths that were known may no longer hold */
	uint32_t introductions; /* how often a file was introduced */
	uint64_t root_dentry;
	uint64_t root_mnt;
	uint8_t wants[OPS]; /* which events are wanted */
	struct bdt_prefix prefixes[BDT_MAX_PREFIXES]; /* as paths stand in a FILE record */
};

/* Where the counts of a session on a processor are. */
#define COUNTS_AT(processor, slot) ((processor) * MAX_SESSIONS + SLOT(slot))

/* Of one session, on one processor. */
struct counts {
	uint64_t seen;
	uint64_t filtered;
	uint64_t by_cause[BDT_CAUSES];
};

/* Keys of what mode SUMMARY counts. */
struct file_key {
	uint64_t inode;
	uint64_t started_ns; /* of the process */
	uint32_t device;
	uint32_t link;
	uint32_t generation;
	uint32_t tgid;
	uint32_t session;
	uint32_t reserved;
};

struct op_key {
	uint64_t started_ns;
	uint32_t tgid;
	uint32_t op;
	uint32_t session;
	uint32_t reserved;
};
