/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "kernel.h"

/*
 * Whether a task can lose the processor within a probe: make a call, in which a probe waits, on a processor that another
 * thread wants too. Where that can't be found out it is taken to be so.
 */
bool find_preemptible(const struct kernel *kernel);
