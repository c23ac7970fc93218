/*
 * What `dd if=/dev/zero of=/dev/null bs=1k count=N` does, with the seconds that it took: bench_calls N [RATE]
 * With RATE, no more than so many calls (two for each block) are made a second.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define BURST 100

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000, rate = argc > 2 ? atol(argv[2]) : 0;
	int in = open("/dev/zero", O_RDONLY), out = open("/dev/null", O_WRONLY);
	static char block[1024];
	double begun = now();

	for (long i = 0; i < count; i++) {
		if (read(in, block, sizeof(block)) != sizeof(block) || write(out, block, sizeof(block)) != sizeof(block))
			return 1;
		while (rate && i % BURST == 0 && now() - begun < 2.0 * i / rate)
			;
	}
	printf("%.6f\n", now() - begun);
	return 0;
}
