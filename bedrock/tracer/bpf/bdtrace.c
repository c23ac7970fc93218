// SPDX-License-Identifier: Apache-2.0
/*
 * bdtrace: loads the probes, opens targets' gates, and writes what the probes record to files.
 *
 *	bdtrace --container NAME -o DIRECTORY [--mode events|summary] [--path PREFIX]... [--ops N,N,...]
 *		[--max-bytes N] [--ring-bytes N]
 *	bdtrace --serve SOCKET [--ring-bytes N]
 *	bdtrace --check
 *	bdtrace --print FILE
 *
 * The first form traces one session. It attaches, waits for the gate's connection on DIRECTORY/.gate/sock, learns from
 * the kernel which process that is and in which PID namespace it lives, arms the probes for that namespace, and lets it
 * go. It ends on SIGTERM, after having drained everything that was recorded. At each stage DIRECTORY/tracer.json says
 * where it is. The second form does the same for any number of sessions at a time, with one set of probes: see serve.c.
 * The third says what this kernel lets the probes see, and why not. The last is what the self-test of `bedrock doctor`
 * runs as a target: there may be no other program that any image can hold.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "serve.h"
#include "trace.h"

static int print_file(const char *path)
{
	char bytes[4096];
	ssize_t got = -1;
	int fd = open(path, O_RDONLY);

	while (fd >= 0 && (got = read(fd, bytes, sizeof(bytes))) > 0)
		if (write(STDOUT_FILENO, bytes, got) != got)
			return 1;
	close(fd);
	return got != 0;
}

/* Load the probes and say what came of it, as JSON. */
static int check(void)
{
	char error[MESSAGE_BYTES] = "", features[512];
	struct probes probes;
	bool is_open = open_probes(&probes, error);

	list_features(probes.unsupported, features, sizeof(features));
	printf("{\"loads\":%s,\"attach_ms\":%.3f,\"preemptible\":%s,\"events\":%s,\"unsupported\":[%s],\"error\":",
	       is_open ? "true" : "false", probes.attach_ms, probes.is_preemptible ? "true" : "false",
	       probes.uses_events ? "true" : "false", features);
	print_json_string(stdout, error);
	printf("}\n");
	return !is_open;
}

/* As PID 1 of a container we get no signal that we don't ask for. */
static int ending_signals(void)
{
	sigset_t ending;

	sigemptyset(&ending);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGINT);
	sigprocmask(SIG_BLOCK, &ending, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &ending, SFD_CLOEXEC);
}

static int trace_one(struct options *options, int signals)
{
	struct trace trace = { .options = *options, .stop = signals, .status = { .log = stderr } };
	char error[MESSAGE_BYTES];
	struct probes probes;

	trace.probes = &probes;
	if (open_probes(&probes, error))
		return !run_trace(&trace);
	trace.status.directory = options->directory;
	trace.status.mode = options->mode;
	set_error(&trace.status, "%s", error);
	write_status(&trace.status, FAILED);
	return 1;
}

int main(int argc, char **argv)
{
	struct options options;

	if (argc == 3 && !strcmp(argv[1], "--print"))
		return print_file(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "--check"))
		return check();
	if (argc >= 3 && !strcmp(argv[1], "--serve") && parse_options(&options, argc - 3, argv + 3))
		return serve(argv[2], options.ring_bytes, ending_signals());
	if (!parse_options(&options, argc - 1, argv + 1)) {
		fprintf(stderr, "usage: bdtrace --container NAME -o DIRECTORY [--mode events|summary] [--path PREFIX]...\n"
				"               [--ops N,N,...] [--max-bytes N] [--ring-bytes N]\n"
				"       bdtrace --serve SOCKET [--ring-bytes N]\n"
				"       bdtrace --check\n");
		return 2;
	}
	return trace_one(&options, ending_signals());
}
