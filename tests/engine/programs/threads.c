/*
 * Eight threads that open, read, write and close files of their own and one that they share, a hundred times each.
 * What they do depends on nothing but their number.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS 100

static int shared;

static void check(long result, long wanted)
{
	if (result != wanted)
		_exit(2);
}

static void *work(void *number)
{
	char name[32], data[512];
	long me = (long)number;

	snprintf(name, sizeof(name), "/tmp/own%ld", me);
	for (int round = 0; round < ROUNDS; round++) {
		int fd = open(name, O_CREAT | O_RDWR, 0600);

		check(pwrite(fd, data, 100 + me, round * 200), 100 + me);
		check(pread(fd, data, 50 + me, round * 200), 50 + me);
		check(pread(shared, data, 512, (round * THREADS + me) * 512), 512);
		check(close(fd), 0);
		check(access("/nowhere", F_OK), -1);
	}
	return NULL;
}

int main(int count, char **argument)
{
	pthread_t threads[THREADS];

	(void)count;
	shared = open(argument[1], O_RDONLY);
	for (long i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i))
			return 2;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
