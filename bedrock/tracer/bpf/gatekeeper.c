// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tracer.h"

bool listen_for_gate(struct tracer *t)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s/.gate/sock", t->wishes.directory) >=
	    sizeof(address.sun_path)) {
		set_error(t, "the path %s is too long for a socket", t->wishes.directory);
		return false;
	}
	unlink(address.sun_path);
	t->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* The target may run as any user. */
	umask(0);
	if (t->listener < 0 || bind(t->listener, (struct sockaddr *)&address, sizeof(address)) || listen(t->listener, 1)) {
		set_error(t, "%s can't be listened on: %s", address.sun_path, strerror(errno));
		return false;
	}
	umask(022);
	return true;
}

/* Wait until a descriptor is readable. False: a signal to end came first. */
static bool wait_for(struct tracer *t, int fd)
{
	struct pollfd fds[] = { { .fd = t->signals, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return !(fds[0].revents & POLLIN);
}

/* Read up to the end of the line, or of the conversation. */
static bool read_line(struct tracer *t, int fd, char *line, size_t room)
{
	size_t n = 0;

	for (;;) {
		ssize_t got;

		if (!wait_for(t, fd))
			return false;
		got = read(fd, line + n, room - 1 - n);
		if (got <= 0)
			break;
		n += got;
		if (line[n - 1] == '\n' || n == room - 1)
			break;
	}
	line[n] = 0;
	if (n && line[n - 1] == '\n')
		line[n - 1] = 0;
	return true;
}

static int exec_failed(struct tracer *t, const char *line)
{
	char *sentence;

	t->exit_code = (int)strtol(line + 1, &sentence, 10);
	set_error(t, "%s", *sentence == ' ' ? sentence + 1 : sentence);
	write_status(t, EXEC_FAILED);
	return 0;
}

bool open_gate(struct tracer *t)
{
	char line[MESSAGE_BYTES];
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int gate;

	if (!wait_for(t, t->listener))
		return false;
	gate = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
	/* One target, and what runs in it later has no business here. */
	close(t->listener);
	if (gate < 0 || getsockopt(gate, SOL_SOCKET, SO_PEERCRED, &peer, &size)) {
		set_error(t, "the gate can't be talked to: %s", strerror(errno));
		write_status(t, FAILED);
		return false;
	}
	if (!read_line(t, gate, line, sizeof(line)))
		return false;
	if (line[0] != 'R') {
		exec_failed(t, line[0] == 'E' ? line : "E125 the gate closed before it was opened");
		return false;
	}
	if (!arm(t, peer.pid)) {
		write_status(t, FAILED);
		return false;
	}
	t->t0_ns = clock_ns(CLOCK_MONOTONIC);
	if (write(gate, "g", 1) != 1 || !read_line(t, gate, line, sizeof(line)))
		return false;
	close(gate);
	if (line[0] == 'X') {
		exec_failed(t, line);
		return false;
	}
	write_status(t, RUNNING);
	return true;
}
