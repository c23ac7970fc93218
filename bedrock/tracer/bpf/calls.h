/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the probes and the loader both know of calls, beside bdt_format.h, which is to be included before. */
#pragma once

/* .second_base of a struct bdt_shape: the second path counts from the working directory. 0: what is second is no path. */
#define WORKING_DIRECTORY 255

#define OPS 256 /* places in a table of operations: a power of two, for the verifier's sake */

/* A file that a call is about, as it was when the call began. */
struct subject {
	uint64_t file;
	uint64_t inode;
	int64_t position;
	uint32_t device;
	uint32_t link;
	uint32_t generation;
	uint32_t flags; /* BDT_CALL_..., and those below */
};

/* Flags of a subject that are never written. */
#define UNWANTED (1u << 31) /* the session did not ask for this file */
#define INTERNAL_FLAGS UNWANTED

/*
 * Flags of a CALL in the ring that the loader takes out before it writes the record. SWITCHED: the thread was switched
 * out between the call's two probes. ENTRYLESS: the call returned without having been seen to begin. What such a record
 * says holds only if the kernel left out no probe in that time, which the loader can tell: see proof.c.
 */
#define SWITCHED (1u << 30)
#define ENTRYLESS (1u << 29)

/* A request to an io_uring, from its submission on. */
struct request {
	uint64_t time_ns;
	int64_t offset;
	uint64_t requested;
	uint64_t user_data; /* by which the target tells its requests apart */
	struct subject subject;
	uint64_t started_ns; /* when its process began */
	uint64_t size_before; /* of a file that is appended to */
	uint32_t session;
	uint32_t slot;
	uint32_t tid;
	uint32_t tgid;
	int32_t fd;
	uint16_t op;
	uint8_t opcode;
	uint8_t has_path;
	uint8_t has_slot; /* what it opens or closes is a place in the ring's own table, not a descriptor */
	uint8_t appends; /* to the end of the file, whatever offset it names */
	uint8_t reserved[6];
};

/* Whether a call may give a directory another path, or the number of one that is gone to a new one. */
static inline int changes_tree(int op)
{
	return (op >= BDT_OP_RENAME && op <= BDT_OP_RENAMEAT2) || op == BDT_OP_MKDIR || op == BDT_OP_MKDIRAT ||
	       op == BDT_OP_URING_RENAME || op == BDT_OP_URING_MKDIR;
}
