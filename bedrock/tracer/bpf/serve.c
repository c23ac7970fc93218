// SPDX-License-Identifier: Apache-2.0
/*
 * The server: one set of probes for the host, a thread for each session.
 *
 * A request is a connection on which words come, each with a NUL behind, and an empty word at the end:
 *
 *	trace ID OPTION...	the options of the command line. The answer comes when the session's gate is listened
 *				for; from then on DIRECTORY/tracer.json says how far it has come.
 *	end ID			The answer comes when the session's trace is written.
 *	look			which sessions are traced, and what the probes can see.
 *
 * The answer is one line: "ok", with JSON behind it for ``look``, or "error" and a sentence. Closing the connection
 * changes nothing, so whoever asks may die and ask again.
 *
 * On SIGTERM no further session is taken, and the server goes when the last one has ended. On a second one, or SIGINT, it
 * ends all traces and goes.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "trace.h"

#define MAX_REQUEST 65536
#define MAX_WORDS 64
#define REQUEST_TIMEOUT_S 5

/* A session's trace, and the thread that makes it. */
struct job {
	struct job *next;
	char *words; /* the request, which the options point into */
	char *id;
	struct trace trace;
	bool has_started; /* it is listened for the gate, or it has failed */
	bool has_ended; /* everything is written */
	int users; /* threads that look at this job */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct probes probes;
	struct job *jobs;
	bool is_leaving;
	int wake; /* readable when a job has ended */
	uint32_t ring_bytes;
	bool wants_ring;
} server = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* The trace of a session that has not ended; NULL for none. */
static struct job *find(const char *id)
{
	struct job *job = server.jobs;

	while (job && (job->has_ended || strcmp(job->id, id)))
		job = job->next;
	return job;
}

/* Give a job up; whoever is the last one frees it. To be called with the lock. */
static void let_loose(struct job *job)
{
	if (--job->users)
		return;
	close(job->trace.stop);
	if (job->trace.status.log)
		fclose(job->trace.status.log);
	free(job->words);
	free(job);
}

/* Called by the trace as it enters a state. */
static void on_state(struct trace *trace)
{
	struct job *job = (struct job *)((char *)trace - offsetof(struct job, trace));

	pthread_mutex_lock(&server.lock);
	job->has_started = true;
	job->has_ended = trace->status.state >= ENDED;
	pthread_cond_broadcast(&server.changed);
	pthread_mutex_unlock(&server.lock);
}

static void *run_job(void *context)
{
	struct job *job = context, **at;

	run_trace(&job->trace);
	pthread_mutex_lock(&server.lock);
	job->has_started = job->has_ended = true;
	for (at = &server.jobs; *at && *at != job; at = &(*at)->next)
		;
	if (*at)
		*at = job->next;
	pthread_cond_broadcast(&server.changed);
	let_loose(job);
	pthread_mutex_unlock(&server.lock);
	eventfd_write(server.wake, 1);
	return NULL;
}

/* Keep a ring ready: making it known to the probes takes the kernel longer than all else that begins a session. */
static void *keep_ring(void *context)
{
	(void)context;
	for (;;) {
		pthread_mutex_lock(&server.lock);
		while (!server.wants_ring)
			pthread_cond_wait(&server.changed, &server.lock);
		server.wants_ring = false;
		pthread_mutex_unlock(&server.lock);
		keep_ring_ready(&server.probes, server.ring_bytes);
	}
	return NULL;
}

static bool start_thread(void *(*run)(void *), void *context)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, run, context);
	pthread_attr_destroy(&attributes);
	return !error;
}

/* Begin a trace. NULL: ``answer`` says why not. To be called with the lock; takes ``words`` over. */
static struct job *begin(char *words, int count, char **word, char *answer, size_t room)
{
	struct job *job = calloc(1, sizeof(*job));
	char path[PATH_MAX];

	if (!job || !parse_options(&job->trace.options, count - 2, word + 2)) {
		snprintf(answer, room, "error the options make no sense\n");
		free(job);
		return NULL;
	}
	job->words = words;
	job->id = word[1];
	job->trace.probes = &server.probes;
	job->trace.on_state = on_state;
	job->trace.stop = eventfd(0, EFD_CLOEXEC);
	snprintf(path, sizeof(path), "%s/tracer.log", job->trace.options.directory);
	job->trace.status.log = fopen(path, "we");
	job->users = 2;
	if (job->trace.stop < 0 || !job->trace.status.log || !start_thread(run_job, job)) {
		snprintf(answer, room, "error %s can't be written: %s\n", path, strerror(errno));
		job->users = 1;
		job->words = NULL;
		let_loose(job);
		return NULL;
	}
	job->next = server.jobs;
	server.jobs = job;
	server.wants_ring = true;
	return job;
}

static bool answer_trace(char *words, int count, char **word, char *answer, size_t room)
{
	struct job *job = NULL;

	pthread_mutex_lock(&server.lock);
	if (server.is_leaving)
		snprintf(answer, room, "error this tracer is about to leave\n");
	else if (count < 2)
		snprintf(answer, room, "error a session needs a name\n");
	else if (find(word[1]))
		snprintf(answer, room, "error the session %s is traced already\n", word[1]);
	else
		job = begin(words, count, word, answer, room);
	while (job && !job->has_started)
		pthread_cond_wait(&server.changed, &server.lock);
	if (job && job->trace.status.state == FAILED)
		snprintf(answer, room, "error %s\n", job->trace.status.error);
	else if (job)
		snprintf(answer, room, "ok\n");
	if (job)
		let_loose(job);
	pthread_mutex_unlock(&server.lock);
	return job;
}

static void answer_end(int count, char **word, char *answer, size_t room)
{
	struct job *job = NULL;

	pthread_mutex_lock(&server.lock);
	if (count == 2)
		job = find(word[1]);
	if (job) {
		job->users++;
		eventfd_write(job->trace.stop, 1);
		while (!job->has_ended)
			pthread_cond_wait(&server.changed, &server.lock);
		let_loose(job);
	}
	pthread_mutex_unlock(&server.lock);
	/* One that is not known has ended: asking twice must do no harm. */
	snprintf(answer, room, "ok\n");
}

static void answer_look(char *answer, size_t room)
{
	char features[512];
	size_t n;

	list_features(server.probes.unsupported, features, sizeof(features));
	pthread_mutex_lock(&server.lock);
	n = snprintf(answer, room, "ok {\"attach_ms\":%.3f,\"preemptible\":%s,\"events\":%s,\"unsupported\":[%s],\"sessions\":[",
		     server.probes.attach_ms, server.probes.is_preemptible ? "true" : "false",
		     server.probes.uses_events ? "true" : "false", features);
	for (struct job *job = server.jobs; job && n + strlen(job->id) + 8 < room; job = job->next)
		n += snprintf(answer + n, room - n, "%s\"%s\"", job == server.jobs ? "" : ",", job->id);
	snprintf(answer + n, room - n, "]}\n");
	pthread_mutex_unlock(&server.lock);
}

/* Read a request into ``words``; returns how many words it has, 0 for none that makes sense. */
static int read_request(int fd, char *words, char **word)
{
	size_t n = 0;
	int count = 0;

	for (;;) {
		ssize_t got = read(fd, words + n, MAX_REQUEST - n);

		if (got <= 0)
			return 0;
		n += got;
		if (n >= 2 && !words[n - 1] && !words[n - 2])
			break;
		if (n == MAX_REQUEST)
			return 0;
	}
	for (char *at = words; *at && count < MAX_WORDS; at += strlen(at) + 1)
		word[count++] = at;
	return count;
}

static void *answer_request(void *context)
{
	struct timeval limit = { .tv_sec = REQUEST_TIMEOUT_S };
	int fd = (int)(intptr_t)context, count;
	char *words = malloc(MAX_REQUEST), *word[MAX_WORDS], answer[MAX_REQUEST];
	bool is_taken = false;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	count = words ? read_request(fd, words, word) : 0;
	if (count && !strcmp(word[0], "trace"))
		is_taken = answer_trace(words, count, word, answer, sizeof(answer));
	else if (count && !strcmp(word[0], "end"))
		answer_end(count, word, answer, sizeof(answer));
	else if (count && !strcmp(word[0], "look"))
		answer_look(answer, sizeof(answer));
	else
		snprintf(answer, sizeof(answer), "error that is not a request\n");
	send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	close(fd);
	if (!is_taken)
		free(words);
	return NULL;
}

/* Take no more sessions, and end those that run when ``is_urgent``. */
static void leave(bool is_urgent)
{
	pthread_mutex_lock(&server.lock);
	server.is_leaving = true;
	for (struct job *job = server.jobs; is_urgent && job; job = job->next)
		eventfd_write(job->trace.stop, 1);
	pthread_mutex_unlock(&server.lock);
}

static bool is_idle(void)
{
	bool answer;

	pthread_mutex_lock(&server.lock);
	answer = server.is_leaving && !server.jobs;
	pthread_mutex_unlock(&server.lock);
	return answer;
}

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 128))
		return -1;
	return fd;
}

int serve(const char *path, uint32_t ring_bytes, int signals)
{
	char error[MESSAGE_BYTES];
	int listener;

	if (!open_probes(&server.probes, error)) {
		fprintf(stderr, "bdtrace: %s\n", error);
		return 1;
	}
	server.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	server.ring_bytes = ring_bytes;
	keep_ring_ready(&server.probes, ring_bytes);
	start_thread(keep_ring, NULL);
	/* Only when the probes are there: who can connect can have sessions traced. */
	listener = listen_on(path);
	if (listener < 0) {
		fprintf(stderr, "bdtrace: %s can't be listened on: %s\n", path, strerror(errno));
		return 1;
	}
	while (!is_idle()) {
		struct pollfd fds[] = {
			{ .fd = signals, .events = POLLIN },
			{ .fd = listener, .events = POLLIN },
			{ .fd = server.wake, .events = POLLIN },
		};
		struct signalfd_siginfo info;
		eventfd_t ignored;

		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[0].revents & POLLIN && read(signals, &info, sizeof(info)) == sizeof(info))
			leave(server.is_leaving || info.ssi_signo == SIGINT);
		if (fds[2].revents & POLLIN)
			eventfd_read(server.wake, &ignored);
		if (fds[1].revents & POLLIN) {
			int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

			if (fd >= 0 && !start_thread(answer_request, (void *)(intptr_t)fd))
				close(fd);
		}
	}
	unlink(path);
	return 0;
}
