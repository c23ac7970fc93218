/*
 * The gate: holds a container at its first instruction until the tracer is ready.
 *
 * It is the target's entrypoint, and its arguments are the image's own entrypoint and command. It finds the program as
 * the runtime would have found it, waits for one byte from the tracer, and becomes that program by execve: same process,
 * environment, arguments, directory, descriptors. It runs in any image, as any user, so it needs no libc.
 *
 * Conversation on the socket (see bdtrace.c): we send "R\n" when ready, or "E<exit code> <sentence>\n" when there is
 * nothing to run; the tracer sends one byte; the socket closes by itself at a successful execve, and carries
 * "X<exit code> <sentence>\n" after a failed one.
 */
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <linux/time_types.h>
#include <linux/un.h>

#define SOCKET_PATH "/.bedrock/sock"
#define AF_UNIX 1
#define SOCK_STREAM 1
#define SOCK_CLOEXEC 02000000
#define X_OK 1
#define PATH_SIZE 4096
#define EXIT_REFUSED 125
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127

typedef unsigned long size_type;

#if defined(__x86_64__)
static long call6(long nr, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall gate_main\n");
#elif defined(__aarch64__)
static long call6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x0,sp\n\tbl gate_main\n");
#else
#error "the gate knows x86-64 and arm64"
#endif

#define call1(nr, a) call6(nr, (long)(a), 0, 0, 0, 0, 0)
#define call2(nr, a, b) call6(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define call3(nr, a, b, c) call6(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define call4(nr, a, b, c, d) call6(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define call5(nr, a, b, c, d, e) call6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

/* The compiler may turn a loop into a call of these, which no libc provides here. */
void *memset(void *to, int value, size_type size)
{
	char *bytes = to;

	while (size--)
		*bytes++ = (char)value;
	return to;
}

void *memcpy(void *to, const void *from, size_type size)
{
	char *target = to;
	const char *source = from;

	while (size--)
		*target++ = *source++;
	return to;
}

static size_type length(const char *text)
{
	size_type n = 0;

	while (text[n])
		n++;
	return n;
}

static size_type append(char *to, size_type at, size_type room, const char *text)
{
	while (*text && at + 1 < room)
		to[at++] = *text++;
	to[at] = 0;
	return at;
}

static void leave(int code)
{
	for (;;)
		call1(__NR_exit_group, code);
}

static int connect_tracer(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct __kernel_timespec pause = { .tv_sec = 0, .tv_nsec = 2000000 };

	memcpy(address.sun_path, SOCKET_PATH, sizeof(SOCKET_PATH));
	for (;;) {
		long fd = call3(__NR_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd >= 0) {
			if (call3(__NR_connect, fd, &address, sizeof(address)) == 0)
				return (int)fd;
			call1(__NR_close, fd);
		}
		/* The tracer may still be starting; how long that may take is DockerD's to judge. */
		call2(__NR_nanosleep, &pause, 0);
	}
}

/* Is this a program that this user may run? 0, or an errno. */
static int check(const char *path)
{
	struct statx info;
	long error = call5(__NR_statx, AT_FDCWD, path, 0, STATX_TYPE, &info);

	if (error)
		return (int)-error;
	if (S_ISDIR(info.stx_mode))
		return EISDIR;
	return (int)-call3(__NR_faccessat, AT_FDCWD, path, X_OK);
}

/* Find the program as the runtime does: a name without a slash is looked for along PATH. */
static int resolve(const char *name, char **environment, char *found)
{
	const char *path = 0;
	int error = ENOENT;
	const char *at;

	for (at = name; *at; at++)
		if (*at == '/') {
			append(found, 0, PATH_SIZE, name);
			return check(name);
		}
	for (; *environment; environment++)
		if (!__builtin_memcmp(*environment, "PATH=", 5)) {
			path = *environment + 5;
			break;
		}
	while (path && *name) {
		size_type n = 0;
		int result;

		while (*path && *path != ':' && n + 1 < PATH_SIZE)
			found[n++] = *path++;
		if (n == 0)
			found[n++] = '.';
		found[n++] = '/';
		append(found, n, PATH_SIZE, name);
		result = check(found);
		if (result == 0)
			return 0;
		if (result == EACCES)
			error = EACCES;
		if (!*path)
			break;
		path++;
	}
	return error;
}

int memcmp(const void *a, const void *b, size_type size)
{
	const unsigned char *x = a, *y = b;

	for (; size--; x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

static const char *explain(int error)
{
	switch (error) {
	case ENOENT:
		return "no such file or directory";
	case EACCES:
		return "permission denied";
	case EISDIR:
		return "is a directory";
	case ENOEXEC:
		return "exec format error";
	case E2BIG:
		return "argument list too long";
	case ENOMEM:
		return "cannot allocate memory";
	default:
		return "it cannot be executed";
	}
}

static void complain(int fd, char kind, const char *name, int error, int along_path)
{
	char text[PATH_SIZE];
	int code = error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
	size_type n;

	text[0] = kind;
	n = append(text, 1, sizeof(text), code == EXIT_NOT_FOUND ? "127 exec: \"" : "126 exec: \"");
	n = append(text, n, sizeof(text), name);
	n = append(text, n, sizeof(text), "\": ");
	n = append(text, n, sizeof(text),
		   along_path && error == ENOENT ? "executable file not found in $PATH" : explain(error));
	n = append(text, n, sizeof(text), "\n");
	call3(__NR_write, fd, text, n);
	leave(code);
}

void gate_main(long *stack)
{
	static char found[PATH_SIZE + 256];
	static const char refused[] = "bedrock: the tracer did not open the gate\n";
	long count = stack[0];
	char **arguments = (char **)(stack + 1);
	char **environment = arguments + count + 1;
	int fd, error, along_path = 1;
	const char *at;
	char go;

	fd = connect_tracer();
	if (count < 2)
		complain(fd, 'E', "", ENOENT, 0);
	for (at = arguments[1]; *at; at++)
		if (*at == '/')
			along_path = 0;
	error = resolve(arguments[1], environment, found);
	if (error)
		complain(fd, 'E', arguments[1], error, along_path);
	call3(__NR_write, fd, "R\n", 2);
	if (call3(__NR_read, fd, &go, 1) != 1) {
		call3(__NR_write, 2, refused, length(refused));
		leave(EXIT_REFUSED);
	}
	error = (int)-call3(__NR_execve, found, arguments + 1, environment);
	complain(fd, 'X', arguments[1], error, 0);
}
