// SPDX-License-Identifier: Apache-2.0
#include "kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

/* The prototype of a tracepoint; NULL where the kernel has none of the name. The first parameter is not an argument. */
static const struct btf_type *tracepoint(const struct btf *types, const char *name)
{
	char full[128];
	int id;

	snprintf(full, sizeof(full), "btf_trace_%s", name);
	id = btf__find_by_name_kind(types, full, BTF_KIND_TYPEDEF);
	if (id < 0)
		return NULL;
	/* A typedef of a pointer to a function. */
	return btf__type_by_id(types, btf__type_by_id(types, btf__type_by_id(types, id)->type)->type);
}

static const struct btf_type *argument(const struct btf *types, const struct btf_type *prototype, int number)
{
	if (!prototype || btf_vlen(prototype) <= number + 1)
		return NULL;
	return btf__type_by_id(types, btf__resolve_type(types, btf_params(prototype)[number + 1].type));
}

/* Whether an argument is a pointer to a struct of this name. */
static bool points_to(const struct btf *types, const struct btf_type *type, const char *name)
{
	const struct btf_type *target;

	if (!type || !btf_is_ptr(type))
		return false;
	target = btf__type_by_id(types, btf__resolve_type(types, type->type));
	return target && btf_is_struct(target) && !strcmp(btf__name_by_offset(types, target->name_off), name);
}

static bool has_member(const struct btf *types, const char *name, const char *member)
{
	int id = btf__find_by_name_kind(types, name, BTF_KIND_STRUCT);
	const struct btf_type *type;

	if (id < 0)
		return false;
	type = btf__type_by_id(types, id);
	for (int i = 0; i < btf_vlen(type); i++)
		if (!strcmp(btf__name_by_offset(types, btf_members(type)[i].name_off), member))
			return true;
	return false;
}

/* Whether a helper may be called by the probes. */
static bool has_helper(enum bpf_func_id helper)
{
	return libbpf_probe_bpf_helper(BPF_PROG_TYPE_RAW_TRACEPOINT, helper, NULL) == 1;
}

bool look_at_kernel(struct kernel *kernel, char error[MESSAGE_BYTES])
{
	struct btf *types = btf__load_vmlinux_btf();
	int code = errno;

	*kernel = (struct kernel){};
	if (!types) {
		snprintf(error, MESSAGE_BYTES,
			 "the kernel's types (BTF) can't be read: %s; it must be built with CONFIG_DEBUG_INFO_BTF",
			 strerror(code));
		return false;
	}
	kernel->exit_says_last = argument(types, tracepoint(types, "sched_process_exit"), 1);
	kernel->has_submit_req = points_to(types, argument(types, tracepoint(types, "io_uring_submit_req"), 0), "io_kiocb");
	kernel->has_submit_sqe = points_to(types, argument(types, tracepoint(types, "io_uring_submit_sqe"), 0), "io_kiocb");
	kernel->completes_requests = argument(types, tracepoint(types, "io_uring_complete"), 1) &&
				     btf_is_ptr(argument(types, tracepoint(types, "io_uring_complete"), 1));
	kernel->has_request_names = has_member(types, "io_open", "filename");
	kernel->has_mapping_tree = has_member(types, "mm_struct", "mm_mt") || has_member(types, "maple_tree", "ma_root");
	kernel->can_cast = btf__find_by_name_kind(types, "bpf_rdonly_cast", BTF_KIND_FUNC) > 0;
	btf__free(types);
	kernel->has_loop = has_helper(BPF_FUNC_loop);
	if (has_helper(BPF_FUNC_ringbuf_output) && has_helper(BPF_FUNC_get_current_task_btf) &&
	    has_helper(BPF_FUNC_task_storage_get) && (kernel->has_loop || has_helper(BPF_FUNC_for_each_map_elem)))
		return true;
	if (!has_helper(BPF_FUNC_ktime_get_ns))
		snprintf(error, MESSAGE_BYTES,
			 "probes can't be loaded here: the container needs CAP_SYS_ADMIN (or CAP_BPF and CAP_PERFMON), and the "
			 "kernel must not be in lockdown=confidentiality");
	else
		snprintf(error, MESSAGE_BYTES,
			 "this kernel's probes can't do what tracing needs: %s%s%s%smissing",
			 has_helper(BPF_FUNC_ringbuf_output) ? "" : "a ring buffer (5.8), ",
			 has_helper(BPF_FUNC_get_current_task_btf) ? "" : "bpf_get_current_task_btf (5.11), ",
			 has_helper(BPF_FUNC_task_storage_get) ? "" : "storage of tasks for tracing (5.12), ",
			 kernel->has_loop || has_helper(BPF_FUNC_for_each_map_elem) ? "" : "loops (5.13), ");
	return false;
}
