/* SPDX-License-Identifier: Apache-2.0 */
/* Tracing any number of sessions at a time with one set of probes, on request. */
#pragma once

/* Serve on a unix socket until ``signals`` is readable and every trace is written. Returns an exit code. */
int serve(const char *path, int signals);
