// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "look.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "look.skel.h"

static void *want_processor(void *is_over)
{
	while (!__atomic_load_n((bool *)is_over, __ATOMIC_RELAXED))
		;
	return NULL;
}

bool find_preemptible(const struct kernel *kernel)
{
	struct look_bpf *skeleton = look_bpf__open();
	bool is_over = false, is_so = true;
	cpu_set_t before, one;
	pthread_t rival;

	if (!skeleton)
		return is_so;
	*(bool *)&skeleton->rodata->has_loop = kernel->has_loop;
	if (look_bpf__load(skeleton) || look_bpf__attach(skeleton)) {
		look_bpf__destroy(skeleton);
		return is_so;
	}
	sched_getaffinity(0, sizeof(before), &before);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	/* It inherits the processor. */
	if (!pthread_create(&rival, NULL, want_processor, &is_over)) {
		skeleton->bss->looking_tid = syscall(SYS_gettid);
		syscall(SYS_getppid);
		__atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
		pthread_join(rival, NULL);
	}
	sched_setaffinity(0, sizeof(before), &before);
	is_so = skeleton->bss->lost_processor;
	look_bpf__destroy(skeleton);
	return is_so;
}
