/* SPDX-License-Identifier: Apache-2.0 */
/* What libbpf says while it loads: the verifier's own words are the only explanation of a refusal. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* From now on keep what libbpf says, beside printing it. False: there is no memory. */
bool open_load_log(void);

/* Forget what was said, as before another try. */
void clear_load_log(void);

/* Keep nothing any more. */
void close_load_log(void);

/* The name of the program that libbpf has last complained of; empty where there is none. */
void refused_program(char *name, size_t room);

/* The last lines of the verifier's log that say something, in the order in which it said them. */
void last_words(char *text, size_t room);
