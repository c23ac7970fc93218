// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "gatekeeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

bool listen_for_gate(struct gate *gate, const char *directory)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char path[GATE_LINE / 2];

	gate->listener = gate->socket = -1;
	snprintf(path, sizeof(path), "%s/.gate/sock", directory);
	if (strlen(path) >= sizeof(address.sun_path)) {
		snprintf(gate->line, sizeof(gate->line), "the path %s is too long for a socket", path);
		return false;
	}
	strcpy(address.sun_path, path);
	unlink(path);
	gate->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* The target may run as any user. The mask is the whole process's, so the mode is set afterwards. */
	if (gate->listener < 0 || bind(gate->listener, (struct sockaddr *)&address, sizeof(address)) ||
	    chmod(path, 0777) || listen(gate->listener, 1)) {
		snprintf(gate->line, sizeof(gate->line), "%s can't be listened on: %s", path, strerror(errno));
		return false;
	}
	return true;
}

/* Wait until a descriptor is readable. False: there is nothing to wait for any more. */
static bool wait_for(struct gate *gate, int fd)
{
	struct pollfd fds[] = { { .fd = gate->stop, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return !(fds[0].revents & POLLIN);
}

/* Read up to the end of the line, or of the conversation. */
static bool read_line(struct gate *gate)
{
	size_t n = 0, room = sizeof(gate->line);

	for (;;) {
		ssize_t got;

		if (!wait_for(gate, gate->socket))
			return false;
		got = read(gate->socket, gate->line + n, room - 1 - n);
		if (got <= 0)
			break;
		n += got;
		if (gate->line[n - 1] == '\n' || n == room - 1)
			break;
	}
	gate->line[n] = 0;
	if (n && gate->line[n - 1] == '\n')
		gate->line[n - 1] = 0;
	return true;
}

/* The gate has said why there is nothing to run: a letter, an exit code, and a sentence. */
static enum gate_state refuse(struct gate *gate, const char *line)
{
	char sentence[GATE_LINE], *rest;

	snprintf(sentence, sizeof(sentence), "%s", line + 1);
	gate->exit_code = (int)strtol(sentence, &rest, 10);
	snprintf(gate->line, sizeof(gate->line), "%s", *rest == ' ' ? rest + 1 : rest);
	return GATE_REFUSED;
}

enum gate_state wait_for_target(struct gate *gate)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (!wait_for(gate, gate->listener))
		return GATE_STOPPED;
	gate->socket = accept4(gate->listener, NULL, NULL, SOCK_CLOEXEC);
	/* One target, and what runs in it later has no business here. */
	close(gate->listener);
	gate->listener = -1;
	if (gate->socket < 0 || getsockopt(gate->socket, SOL_SOCKET, SO_PEERCRED, &peer, &size)) {
		snprintf(gate->line, sizeof(gate->line), "the gate can't be talked to: %s", strerror(errno));
		return GATE_BROKEN;
	}
	gate->pid = peer.pid;
	if (!read_line(gate))
		return GATE_STOPPED;
	if (gate->line[0] == 'R')
		return GATE_READY;
	return refuse(gate, gate->line[0] == 'E' ? gate->line : "E125 the gate closed before it was opened");
}

enum gate_state let_go(struct gate *gate)
{
	if (send(gate->socket, "g", 1, MSG_NOSIGNAL) != 1 || !read_line(gate))
		return GATE_STOPPED;
	return gate->line[0] == 'X' ? refuse(gate, gate->line) : GATE_READY;
}

void close_gate(struct gate *gate)
{
	if (gate->listener >= 0)
		close(gate->listener);
	if (gate->socket >= 0)
		close(gate->socket);
	gate->listener = gate->socket = -1;
}
