/* What `dd if=/dev/zero of=/dev/null bs=1k count=N` does, with the seconds that it took: bench_calls N */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000;
	int in = open("/dev/zero", O_RDONLY), out = open("/dev/null", O_WRONLY);
	struct timespec begun, ended;
	static char block[1024];

	clock_gettime(CLOCK_MONOTONIC, &begun);
	for (long i = 0; i < count; i++)
		if (read(in, block, sizeof(block)) != sizeof(block) || write(out, block, sizeof(block)) != sizeof(block))
			return 1;
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("%.6f\n", ended.tv_sec - begun.tv_sec + (ended.tv_nsec - begun.tv_nsec) / 1e9);
	return 0;
}
