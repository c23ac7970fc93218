/* SPDX-License-Identifier: Apache-2.0 */
/* What this kernel can do: found out by trying and by its own types, never by its version, which backports belie. */
#pragma once

#include <stdbool.h>

#include "probes.h"

struct kernel {
	bool has_loop; /* bpf_loop */
	bool exit_says_last; /* sched_process_exit says whether the process is over */
	bool has_submit_req; /* which of its two names the tracepoint of io_uring submissions has */
	bool has_submit_sqe;
	bool completes_requests; /* the tracepoint of completions has the request */
	bool has_request_names; /* where requests keep their paths is known */
	bool has_mapping_tree; /* mappings are kept in a maple tree */
	bool can_cast; /* bpf_rdonly_cast */
};

/* False: ``error`` says what is missing without which nothing can be traced. */
bool look_at_kernel(struct kernel *kernel, char error[MESSAGE_BYTES]);
