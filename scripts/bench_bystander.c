/* A process outside every session: makes cheap calls, and prints the nanoseconds that each took: bench_bystander N */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000000;
	int fd = open("/dev/zero", O_RDONLY);
	struct timespec begun, ended;
	char byte;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begun);
	for (long i = 0; i < count; i++)
		if (pread(fd, &byte, 1, 0) != 1)
			return 1;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
	printf("%.2f\n", ((ended.tv_sec - begun.tv_sec) * 1e9 + (ended.tv_nsec - begun.tv_nsec)) / count);
	return 0;
}
