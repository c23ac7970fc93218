/*
 * Runs one session in a virtual machine as DockerD runs it on a Docker host, and leaves in a directory what DockerD
 * would find in the session's volume.
 *
 *	session [OPTION VALUE]... -- PROGRAM ARGUMENT...
 *
 *	--volume DIRECTORY	where trace.bdt, tracer.json, tracer.log, stdout.log, stderr.log and ended.json go
 *	--work DIRECTORY	a disk for what the container writes: the upper layer of its root
 *	--image DIRECTORY	the lower layer
 *	--tracer PROGRAM	the tracer, whose gate lies beside it; without this the target runs untraced
 *	--wish ARGUMENT		one more argument for the tracer; may be given often
 *	--user NUMBER, --directory PATH, --path PATH	what an image may say of its commands
 *	--limit SECONDS		after which the target is killed
 *
 * The container has an overlay for its root, namespaces of its own for processes, mounts, host name and IPC, and pipes
 * for its output. ended.json says how the target and the tracer ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "served.h"

#define MAX_ARGUMENTS 256
#define MAX_PATH 1024

static struct {
	const char *volume, *work, *image, *tracer, *user, *directory, *path, *limit;
	const char *wishes[MAX_ARGUMENTS];
	int wish_count;
} options = { .directory = "/", .path = "/usr/local/bin:/usr/bin:/bin", .limit = "120" };

static void die(const char *what)
{
	fprintf(stderr, "session: %s: %s\n", what, strerror(errno));
	exit(120);
}

static int must(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

/* The path of something in a directory; good until eight more of them were made. */
static const char *in(const char *directory, const char *name)
{
	static char paths[8][MAX_PATH];
	static int next;
	char *path = paths[next++ % 8];

	if (snprintf(path, MAX_PATH, "%s/%s", directory, name) >= MAX_PATH)
		die(name);
	return path;
}

static const char *directory_of(const char *program)
{
	static char directory[MAX_PATH];

	snprintf(directory, sizeof(directory), "%s", program);
	*strrchr(directory, '/') = 0;
	return directory;
}

static void copy_program(const char *from, const char *to)
{
	static char bytes[1 << 16];
	int source = must(open(from, O_RDONLY | O_CLOEXEC), from);
	int target = must(open(to, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0755), to);
	ssize_t got;

	while ((got = read(source, bytes, sizeof(bytes))) > 0)
		must(write(target, bytes, got), to);
	close(source);
	close(target);
}

static void make_devices(void)
{
	static const struct {
		const char *name;
		unsigned int major, minor;
	} devices[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 }, { "dev/random", 1, 8 }, { "dev/urandom", 1, 9 },
	};

	must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"), "/dev");
	for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++)
		must(mknod(devices[i].name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)), devices[i].name);
	must(symlink("/proc/self/fd", "dev/fd"), "/dev/fd");
	must(mkdir("dev/shm", 01777), "/dev/shm");
	must(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777"), "/dev/shm");
}

/* Make what a container runtime makes, as far as a target or a tracer can see it, and leave the machine for it. */
static void enter_container(void)
{
	static const char *const places[] = { "proc", "sys", "dev", "etc", ".bedrock" };
	char layers[3 * MAX_PATH + 64];

	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
	snprintf(layers, sizeof(layers), "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", options.image, options.work,
		 options.work);
	must(mount("overlay", in(options.work, "root"), "overlay", 0, layers), "overlay");
	must(chdir(in(options.work, "root")), "the container's root");
	umask(0);
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		if (mkdir(places[i], 0755) && errno != EEXIST)
			die(places[i]);
	must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "/proc");
	must(mount("sysfs", "sys", "sysfs", MS_RDONLY, NULL), "/sys");
	make_devices();
	umask(022);
	close(must(open("etc/hostname", O_CREAT | O_WRONLY | O_CLOEXEC, 0644), "/etc/hostname"));
	must(mount(in(options.volume, "hostname"), "etc/hostname", NULL, MS_BIND, NULL), "/etc/hostname");
	if (options.tracer)
		must(mount(in(options.volume, ".gate"), ".bedrock", NULL, MS_BIND, NULL), "/.bedrock");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "the machine's root");
}

static void run_target(char **command, int out, int err)
{
	static char path[MAX_PATH] = "PATH=";
	char *environment[] = { path, "HOME=/root", NULL };
	sigset_t none;

	enter_container();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Standard input is the container's own device. */
	must(dup2(must(open("/dev/null", O_RDONLY | O_CLOEXEC), "/dev/null"), 0), "standard input");
	must(dup2(out, 1), "standard output");
	must(dup2(err, 2), "standard error");
	must(chdir(options.directory), options.directory);
	if (options.user && (setgroups(0, NULL) || setgid(atoi(options.user)) || setuid(atoi(options.user))))
		die("user");
	strncat(path, options.path, sizeof(path) - sizeof("PATH="));
	environ = environment;
	execvp(command[0], command);
	die(command[0]);
}

struct child {
	pid_t pid;
	int code; /* with which it ended, or -1 */
};

enum { TARGET, TRACER, STDOUT, STDERR, CHILDREN };
static struct child children[CHILDREN] = { { .code = -1 }, { .code = -1 }, { .code = -1 }, { .code = -1 } };

/* Have the tracer of the machine trace this session. Where there is none, and can't be, one of its own says why. */
static bool is_served;

static void start_tracer(void)
{
	const char *request[MAX_ARGUMENTS + 8] = { "trace", options.volume, "-o", options.volume };
	const char *arguments[MAX_ARGUMENTS + 8] = { options.tracer, "--container", "target", "-o", options.volume };
	sigset_t none;
	int log;

	memcpy(request + 4, options.wishes, sizeof(*request) * options.wish_count);
	if (start_server(options.tracer) && !ask(request)) {
		is_served = true;
		return;
	}
	memcpy(arguments + 5, options.wishes, sizeof(*arguments) * options.wish_count);
	children[TRACER].pid = must(fork(), "fork");
	if (children[TRACER].pid)
		return;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	log = must(open(in(options.volume, "tracer.log"), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644), "tracer.log");
	dup2(log, 1);
	dup2(log, 2);
	execv(options.tracer, (char **)arguments);
	die(options.tracer);
}

/* Copy what comes out of a pipe to a file until nobody can write to the pipe any more. */
static void keep_output(struct child *child, int from, const char *name)
{
	static char bytes[1 << 16];
	ssize_t got;
	int to;

	child->pid = must(fork(), "fork");
	if (child->pid) {
		close(from);
		return;
	}
	to = must(open(in(options.volume, name), O_CREAT | O_WRONLY | O_TRUNC, 0644), name);
	while ((got = read(from, bytes, sizeof(bytes))) > 0)
		must(write(to, bytes, got), name);
	exit(0);
}

static void start_target(char **command)
{
	int out[2], err[2];

	must(pipe2(out, O_CLOEXEC), "pipe");
	must(pipe2(err, O_CLOEXEC), "pipe");
	children[TARGET].pid = must(
		syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0), "clone");
	if (!children[TARGET].pid)
		run_target(command, out[1], err[1]);
	close(out[1]);
	close(err[1]);
	keep_output(&children[STDOUT], out[0], "stdout.log");
	keep_output(&children[STDERR], err[0], "stderr.log");
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < CHILDREN; i++)
			if (children[i].pid == pid)
				children[i].code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	/* As DockerD does: a target whose tracer is gone is ended. */
	if (children[TRACER].code >= 0 && children[TARGET].code < 0)
		kill(children[TARGET].pid, SIGKILL);
}

/* Wait until a child has ended; false: it has not within so many seconds. */
static bool wait_for(const struct child *child, int limit_s)
{
	struct timespec now, left = {};
	sigset_t ending;
	time_t end;

	sigemptyset(&ending);
	sigaddset(&ending, SIGCHLD);
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (end = now.tv_sec + limit_s; reap(), child->code < 0; clock_gettime(CLOCK_MONOTONIC, &now)) {
		left.tv_sec = end - now.tv_sec;
		if (left.tv_sec <= 0)
			return false;
		sigtimedwait(&ending, NULL, &left);
	}
	return true;
}

static void make_directories(void)
{
	FILE *hostname;

	mkdir(options.volume, 0755);
	mkdir(in(options.volume, ".gate"), 0755);
	must(mkdir(options.work, 0755), options.work);
	must(mkdir(in(options.work, "upper"), 0755), options.work);
	must(mkdir(in(options.work, "work"), 0755), options.work);
	must(mkdir(in(options.work, "root"), 0755), options.work);
	hostname = fopen(in(options.volume, "hostname"), "w");
	if (!hostname || fputs("target\n", hostname) < 0 || fclose(hostname))
		die("hostname");
}

static void write_report(bool in_time, struct timespec ended)
{
	FILE *report = fopen(in(options.volume, "ended.json"), "w");

	if (!report)
		die("ended.json");
	fprintf(report, "{\"exit_code\":%d,\"tracer_exit_code\":%d,\"in_time\":%s,\"ended_at\":%lld.%09ld}\n",
		children[TARGET].code, children[TRACER].code, in_time ? "true" : "false", (long long)ended.tv_sec,
		ended.tv_nsec);
	fclose(report);
}

static char **parse_options(int argc, char **argv)
{
	static const struct {
		const char *name;
		const char **value;
	} known[] = {
		{ "--volume", &options.volume }, { "--work", &options.work }, { "--image", &options.image },
		{ "--tracer", &options.tracer }, { "--user", &options.user }, { "--directory", &options.directory },
		{ "--path", &options.path }, { "--limit", &options.limit },
	};
	int i;

	for (i = 1; i + 1 < argc && strcmp(argv[i], "--"); i += 2) {
		bool is_known = !strcmp(argv[i], "--wish") && options.wish_count < MAX_ARGUMENTS;

		if (is_known)
			options.wishes[options.wish_count++] = argv[i + 1];
		for (size_t k = 0; k < sizeof(known) / sizeof(*known); k++)
			if (!strcmp(argv[i], known[k].name)) {
				*known[k].value = argv[i + 1];
				is_known = true;
			}
		if (!is_known)
			return NULL;
	}
	return i + 1 < argc && options.volume && options.work && options.image ? argv + i + 1 : NULL;
}

int main(int argc, char **argv)
{
	char **command = parse_options(argc, argv), **held;
	struct timespec ended;
	sigset_t ending;
	bool in_time;

	if (!command) {
		fprintf(stderr, "usage: session --volume DIRECTORY --work DIRECTORY --image DIRECTORY [OPTION VALUE]... -- "
				"PROGRAM [ARGUMENT]...\n");
		return 2;
	}
	sigemptyset(&ending);
	sigaddset(&ending, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ending, NULL);
	make_directories();
	if (options.tracer) {
		copy_program(in(directory_of(options.tracer), "gate"), in(options.volume, ".gate/gate"));
		start_tracer();
		/* There is room for the gate: the option before the command was "--". */
		held = command - 1;
		held[0] = "/.bedrock/gate";
		command = held;
	}
	start_target(command);
	in_time = wait_for(&children[TARGET], atoi(options.limit));
	if (!in_time) {
		kill(children[TARGET].pid, SIGKILL);
		wait_for(&children[TARGET], 10);
	}
	clock_gettime(CLOCK_REALTIME, &ended);
	if (is_served) {
		const char *request[] = { "end", options.volume, NULL };

		children[TRACER].code = ask(request);
	} else if (options.tracer && children[TRACER].code < 0) {
		kill(children[TRACER].pid, SIGTERM);
		in_time &= wait_for(&children[TRACER], 60);
	}
	wait_for(&children[STDOUT], 10);
	wait_for(&children[STDERR], 10);
	write_report(in_time, ended);
	return 0;
}
