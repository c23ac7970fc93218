/* SPDX-License-Identifier: Apache-2.0 */
/* The conversation with the gate, which holds the target until it is let go; gate.c describes it. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define GATE_LINE 4096

struct gate {
	int stop; /* readable when there is nothing to wait for any more */
	int listener;
	int socket;
	pid_t pid; /* of the process that waits at the gate, in our PID namespace */
	int exit_code; /* of a target that can't run */
	char line[GATE_LINE]; /* why it can't */
};

enum gate_state { GATE_READY, GATE_REFUSED, GATE_BROKEN, GATE_STOPPED };

/* Listen on DIRECTORY/.gate/sock. False: ``line`` says why that is not possible. */
bool listen_for_gate(struct gate *gate, const char *directory);

/* Wait for the target. REFUSED: it can't run; BROKEN: the gate can't be talked to; ``line`` says why. */
enum gate_state wait_for_target(struct gate *gate);

/* Let the target go, and wait for its program to begin. */
enum gate_state let_go(struct gate *gate);

void close_gate(struct gate *gate);
