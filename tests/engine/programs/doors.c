/*
 * Calls that change or watch files by other doors than open and write.
 *
 *	doors
 *
 * A child ends with a core dump.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static long must(long result, const char *what)
{
	if (result >= 0)
		return result;
	perror(what);
	exit(2);
}

static void bind_to(const char *path, size_t path_size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");

	memcpy(address.sun_path, path, path_size);
	if (bind(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + path_size))
		perror("bind");
	close(fd);
}

/* Send descriptors to ourselves. */
static void send_descriptors(const int *descriptors, size_t count)
{
	char byte = 1, control[CMSG_SPACE(16 * sizeof(int))] = "", data[10];
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control };
	struct cmsghdr *head;
	int pair[2], received[16];

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	message.msg_controllen = CMSG_SPACE(count * sizeof(int));
	head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(head), descriptors, count * sizeof(int));
	must(sendmsg(pair[0], &message, 0), "sendmsg");
	message.msg_controllen = sizeof(control);
	must(recvmsg(pair[1], &message, 0), "recvmsg");
	head = CMSG_FIRSTHDR(&message);
	memcpy(received, CMSG_DATA(head), count * sizeof(int));
	for (size_t i = 0; i < count; i++)
		must(pread(received[i], data, 3 + i, 1), "pread");
}

int main(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	int fd, flags = FS_NODUMP_FL, watch, descriptors[2], status;

	must(mkdir("/tmp/run", 0700), "mkdir");
	must(chdir("/tmp/run"), "chdir");
	bind_to("/tmp/run/absolute", sizeof("/tmp/run/absolute"));
	bind_to("relative", sizeof("relative"));
	/* Without a NUL at its end; over the first one, which fails; in no directory; with no path at all. */
	bind_to("unended-and-more", 7);
	bind_to("relative", sizeof("relative"));
	bind_to("/nowhere/socket", sizeof("/nowhere/socket"));
	bind_to("\0abstract", 9);

	watch = must(inotify_init1(0), "inotify_init1");
	must(inotify_add_watch(watch, "/srv", IN_MODIFY), "inotify_add_watch");
	if (inotify_add_watch(watch, "nothing", IN_CREATE) >= 0)
		return 4;
	fd = must(open("/dev/shm/flags", O_CREAT | O_RDWR, 0600), "open");
	/* Not all file systems can. */
	(void)!ioctl(fd, FS_IOC_SETFLAGS, &flags);
	must(flock(fd, LOCK_EX), "flock");
	must(flock(fd, LOCK_UN), "flock");
	sync();
	descriptors[0] = must(open("/srv/verse.txt", O_RDONLY), "open");
	descriptors[1] = must(open("/srv/big.bin", O_RDONLY), "open");
	send_descriptors(descriptors, 2);
	must(setrlimit(RLIMIT_CORE, &all), "setrlimit");
	if (!must(fork(), "fork"))
		abort();
	wait(&status);
	return WCOREDUMP(status) ? 0 : 3;
}
