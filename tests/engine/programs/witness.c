/*
 * Runs a command and then writes to its own output every file that the command has left in a directory, since nothing
 * else of a session's container outlives it:
 *
 *	witness DIRECTORY COMMAND [ARGUMENT...]
 *
 * Each file follows a line "== NAME"; the file "output", with what the command itself has printed, is the last one.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static long must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(120);
	}
	return result;
}

static void show(int directory, const char *name)
{
	int file = must(openat(directory, name, O_RDONLY), name);
	static char block[1 << 20];
	ssize_t size;

	dprintf(1, "\n== %s\n", name);
	while ((size = must(read(file, block, sizeof(block)), name)) > 0)
		for (ssize_t done = 0; done < size;)
			done += must(write(1, block + done, size - done), "write");
	close(file);
}

int main(int count, char **argument)
{
	struct dirent *entry;
	int directory, status;
	DIR *listing;
	pid_t child;

	if (count < 3)
		return 121;
	must(mkdir(argument[1], 0700), argument[1]);
	must(chmod(argument[1], 0777), argument[1]); /* whoever the command runs as */
	directory = must(open(argument[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC), argument[1]);
	child = must(fork(), "fork");
	if (!child) {
		int output = must(openat(directory, "output", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), "output");

		must(dup2(output, 1), "dup2");
		must(dup2(output, 2), "dup2");
		execvp(argument[2], argument + 2);
		must(-1, argument[2]);
	}
	/* Whoever is left over by the command becomes a child of ours. */
	while (wait(&status) != child)
		;
	listing = fdopendir(directory);
	while (listing && (entry = readdir(listing)))
		if (entry->d_name[0] != '.' && strcmp(entry->d_name, "output"))
			show(directory, entry->d_name);
	show(directory, "output");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 122;
}
