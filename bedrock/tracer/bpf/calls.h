/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the probes and the loader both know of calls, beside bdt_format.h. */
#pragma once

/* .second_base of a struct bdt_shape: the second path counts from the working directory. 0: what is second is no path. */
#define WORKING_DIRECTORY 255

/* Whether a call may give a directory another path, or the number of one that is gone to a new one. */
static inline int changes_tree(int op)
{
	return (op >= BDT_OP_RENAME && op <= BDT_OP_RENAMEAT2) || op == BDT_OP_MKDIR || op == BDT_OP_MKDIRAT ||
	       op == BDT_OP_URING_RENAME || op == BDT_OP_URING_MKDIR;
}
