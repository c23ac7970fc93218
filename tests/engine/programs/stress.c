/*
 * Threads that share one processor, so that each is interrupted in the middle of its calls by the others: half of them
 * open files, the others make, rename and remove directories. Every path names the thread that uses it, so a trace in
 * which a call has another thread's path is wrong.
 *
 *	stress ROUNDS
 *
 * Thread NN opens /tmp/own/NN/NN-MMMM (MMMM counts from 0000 to 0049 over and over), or makes NN/rM below /tmp/own,
 * renames it to NN/sM and removes it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 12

static int rounds, own;

static void *open_files(void *number)
{
	int me = (int)(long)number;
	char path[64];

	for (int round = 0; round < rounds; round++) {
		snprintf(path, sizeof(path), "/tmp/own/%02d/%02d-%04d", me, me, round % 50);
		close(open(path, O_CREAT | O_RDWR, 0600));
	}
	return NULL;
}

static void *rename_directories(void *number)
{
	int me = (int)(long)number;
	char before[64], after[64];

	for (int round = 0; round < rounds; round++) {
		snprintf(before, sizeof(before), "%02d/r%d", me, round);
		snprintf(after, sizeof(after), "%02d/s%d", me, round);
		if (mkdirat(own, before, 0700) || renameat(own, before, own, after) || unlinkat(own, after, AT_REMOVEDIR))
			_exit(2);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	cpu_set_t first;

	if (argc != 2)
		return 1;
	rounds = atoi(argv[1]);
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first) || mkdir("/tmp/own", 0700))
		return 3;
	own = open("/tmp/own", O_RDONLY | O_DIRECTORY);
	for (int number = 0; number < THREADS; number++) {
		char name[8];

		snprintf(name, sizeof(name), "%02d", number);
		if (mkdirat(own, name, 0700))
			return 4;
	}
	for (long number = 0; number < THREADS; number++)
		if (pthread_create(&threads[number], NULL, number % 2 ? open_files : rename_directories, (void *)number))
			return 5;
	for (int number = 0; number < THREADS; number++)
		pthread_join(threads[number], NULL);
	return 0;
}
