/* A file with two names, one that gets its final name by a rename, and one below a directory that is renamed. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

int main(void)
{
	int a, b, config, deep;

	a = must(open("/tmp/a", O_CREAT | O_WRONLY, 0600), "open");
	must(link("/tmp/a", "/tmp/b"), "link");
	b = must(open("/tmp/b", O_WRONLY), "open");
	must(write(a, "1", 1), "write");
	must(write(b, "22", 2), "write");
	must(write(a, "333", 3), "write");
	must(rename("/tmp/a", "/tmp/c"), "rename");
	must(write(a, "4444", 4), "write");
	must(write(b, "55555", 5), "write");

	config = must(open("/tmp/config.tmp", O_CREAT | O_WRONLY, 0600), "open");
	must(write(config, "666666", 6), "write");
	must(rename("/tmp/config.tmp", "/tmp/config"), "rename");

	must(mkdir("/tmp/build", 0700), "mkdir");
	deep = must(open("/tmp/build/out", O_CREAT | O_WRONLY, 0600), "open");
	must(write(deep, "7777777", 7), "write");
	must(rename("/tmp/build", "/tmp/release"), "rename");
	must(write(deep, "88888888", 8), "write");
	return 0;
}
