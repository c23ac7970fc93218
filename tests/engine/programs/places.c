/*
 * Paths that are not in the process's memory when a call is given them, and files with several names.
 *
 *	places cold | links
 *
 * links: /srv/one and /srv/two are one file of the image.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

static long must(long result, const char *what)
{
	if (result >= 0)
		return result;
	perror(what);
	exit(2);
}

/* A text in a page of a file that this process has not touched. */
static char *cold(const char *text)
{
	char *at;
	int fd = must(memfd_create("text", 0), "memfd_create");

	must(ftruncate(fd, PAGE), "ftruncate");
	must(pwrite(fd, text, strlen(text) + 1, 0), "pwrite");
	at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	must(at == MAP_FAILED ? -1 : 0, "mmap");
	close(fd);
	return at;
}

/* The same in a page that was touched, and is given back to the kernel. */
static char *cooled(const char *text)
{
	char *at = cold(text);

	if (strcmp(at, text))
		exit(3);
	must(madvise(at, PAGE, MADV_DONTNEED), "madvise");
	return at;
}

/* A text in memory for sure: a literal's page is another file's until something has touched it. */
static char *warm(const char *text)
{
	static char at[PAGE];

	return strcpy(at, text);
}

static void change_directories(void)
{
	must(mkdir("/tmp/one", 0700), "mkdir");
	must(mkdir("/tmp/one/two", 0700), "mkdir");
	must(mkdir("/tmp/one/two/three", 0700), "mkdir");
	must(chdir(cold("/tmp")), "chdir");
	must(chdir(cold("one")), "chdir");
	must(chdir(cooled("two")), "chdir");
	must(chdir(cooled("..")), "chdir");
	must(chdir(warm("two/three")), "chdir");
	must(chdir(cold("/tmp/one")), "chdir");
	if (open(cold("nothing"), O_RDONLY) >= 0)
		exit(4);
	must(mkdir("/tmp/one/jail", 0700), "mkdir");
	must(mkdir("/tmp/one/jail/cell", 0700), "mkdir");
	must(mkdir("/tmp/one/jail/cell/tmp", 0700), "mkdir");
	must(chroot(cold("/tmp/one/jail")), "chroot");
	must(chroot(cooled("jail/cell")), "chroot");
	must(chdir(warm("/")), "chdir");
	must(chdir(cold("/tmp")), "chdir");
	must(chdir(cooled("..")), "chdir");
	must(chdir(cooled("tmp")), "chdir");
	must(chdir(cold("/")), "chdir");
}

static void use_links(void)
{
	int one = must(open("/srv/one", O_RDONLY), "open"), two = must(open("/srv/two", O_RDONLY), "open"), written;
	char data[100] = "";

	must(pread(one, data, 11, 0), "pread");
	must(pread(two, data, 12, 0), "pread");
	/* The image's file is copied, and that one name is the copy's. */
	written = must(open("/srv/two", O_RDWR), "open");
	must(pwrite(written, "x", 1, 0), "pwrite");
	must(pread(written, data, 13, 0), "pread");
	must(pread(one, data, 14, 0), "pread");
	close(one);
	one = must(open("/srv/one", O_RDONLY), "open");
	must(pread(one, data, 15, 0), "pread");
	if (data[0] == 'x')
		exit(4);
}

int main(int count, char **argument)
{
	if (count == 2 && !strcmp(argument[1], "cold"))
		change_directories();
	else if (count == 2 && !strcmp(argument[1], "links"))
		use_links();
	else
		return 1;
	return 0;
}
