/* SPDX-License-Identifier: Apache-2.0 */
/* Tracing any number of sessions at a time with one set of probes, on request. */
#pragma once

#include <stdint.h>

/*
 * Serve on a unix socket until ``signals`` is readable and every trace is written; a ring of ``ring_bytes`` is kept ready
 * for the next session. Returns an exit code.
 */
int serve(const char *path, uint32_t ring_bytes, int signals);
