/*
 * Calls through the 32-bit interface, without a library: compiled with -m32 it is a program of 32 bits, otherwise one of
 * 64 bits that calls through the other interface. Reads /srv/big.bin and writes /tmp/abi32 in ways of which the test
 * knows the trace. Exit code: the number of the first step that failed.
 */
#define O_RDWR 2
#define O_CREAT 0100
#define O_LARGEFILE 0100000
#define AT_FDCWD -100
#define PAGE 4096

/* From the kernel's arch/x86/entry/syscalls/syscall_32.tbl. */
enum {
	EXIT = 1,
	READ = 3,
	OPEN = 5,
	CLOSE = 6,
	LSEEK = 19,
	MMAP = 90,
	MUNMAP = 91,
	LLSEEK = 140,
	READV = 145,
	PREAD64 = 180,
	PWRITE64 = 181,
	SENDFILE = 187,
	MMAP2 = 192,
	FTRUNCATE64 = 194,
	STAT64 = 195,
	GETDENTS64 = 220,
	SENDFILE64 = 239,
	FADVISE64_64 = 272,
	OPENAT = 295,
	FSTATAT64 = 300,
	SYNC_FILE_RANGE = 314,
	FALLOCATE = 324,
	PREADV = 333,
	RENAMEAT2 = 353,
};

struct vector {
	unsigned base, size;
};

/* All memory that calls are told of is here, where 32 bits are enough to point at it. */
int numbers[7]; /* seen by the assembler */
static char data[65536];
static char big[] = "/srv/big.bin", made[] = "/tmp/abi32", directory[] = "/srv", name[] = "abi32", other[] = "abi32-2",
	    tmp[] = "/tmp";
static struct vector vectors[2];
static long long place;
static int short_place;
static unsigned block[6];
static int step;

static unsigned at(const void *address)
{
	return (unsigned)(unsigned long)address;
}

static int call(int number, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f)
{
	int result;

	numbers[0] = number;
	numbers[1] = a;
	numbers[2] = b;
	numbers[3] = c;
	numbers[4] = d;
	numbers[5] = e;
	numbers[6] = f;
#ifdef __i386__
	asm volatile("push %%ebp; push %%ebx; movl numbers, %%eax; movl numbers+4, %%ebx; movl numbers+8, %%ecx;"
		     "movl numbers+12, %%edx; movl numbers+16, %%esi; movl numbers+20, %%edi; movl numbers+24, %%ebp;"
		     "int $0x80; pop %%ebx; pop %%ebp"
		     : "=a"(result)
		     :
		     : "ecx", "edx", "esi", "edi", "memory");
#else
	asm volatile("push %%rbp; push %%rbx; movl numbers, %%eax; movl numbers+4, %%ebx; movl numbers+8, %%ecx;"
		     "movl numbers+12, %%edx; movl numbers+16, %%esi; movl numbers+20, %%edi; movl numbers+24, %%ebp;"
		     "int $0x80; pop %%rbx; pop %%rbp"
		     : "=a"(result)
		     :
		     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
#endif
	step++;
	if (result < 0 && result > -4096)
		for (;;)
			call(EXIT, step, 0, 0, 0, 0, 0);
	return result;
}

void _start(void)
{
	int in = call(OPEN, at(big), 0, 0, 0, 0, 0), out, listed, place_of_tmp;
	unsigned mapped;

	call(READ, in, at(data), 100, 0, 0, 0);
	call(PREAD64, in, at(data), 200, 300, 0, 0);
	call(PREAD64, in, at(data), 200, 7, 5, 0); /* far behind the end */
	call(LSEEK, in, -10, 1, 0, 0, 0);
	vectors[0] = (struct vector){ at(data), 30 };
	vectors[1] = (struct vector){ at(data + 1000), 12 };
	call(READV, in, at(vectors), 2, 0, 0, 0);
	call(PREADV, in, at(vectors), 2, 1000, 0, 0);
	out = call(OPENAT, AT_FDCWD, at(made), O_RDWR | O_CREAT | O_LARGEFILE, 0600, 0, 0);
	call(FTRUNCATE64, out, 0, 1, 0, 0, 0); /* 4 GiB */
	call(LLSEEK, out, 1, 50, at(&place), 0, 0);
	call(PWRITE64, out, at(data), 25, 9, 1, 0);
	call(FALLOCATE, out, 1, 4 * PAGE, 0, PAGE, 0);
	call(SYNC_FILE_RANGE, out, 12, 1, 34, 0, 2);
	call(FADVISE64_64, in, 56, 0, 78, 0, 3);
	short_place = 500;
	call(SENDFILE, out, in, at(&short_place), 40, 0, 0);
	place = 600;
	call(SENDFILE64, out, in, at(&place), 41, 0, 0);
	mapped = call(MMAP2, 0, PAGE, 1, 2, in, 3);
	data[0] += *(volatile char *)(unsigned long)mapped;
	call(MUNMAP, mapped, PAGE, 0, 0, 0, 0);
	block[1] = PAGE;
	block[2] = 1;
	block[3] = 2;
	block[4] = in;
	block[5] = 7 * PAGE;
	mapped = call(MMAP, at(block), 0, 0, 0, 0, 0);
	call(MUNMAP, mapped, PAGE, 0, 0, 0, 0);
	call(STAT64, at(big), at(data), 0, 0, 0, 0);
	place_of_tmp = call(OPEN, at(tmp), 0, 0, 0, 0, 0);
	call(FSTATAT64, place_of_tmp, at(name), at(data), 0, 0, 0);
	call(RENAMEAT2, place_of_tmp, at(name), place_of_tmp, at(other), 0, 0);
	listed = call(OPEN, at(directory), 0, 0, 0, 0, 0);
	call(GETDENTS64, listed, at(data), sizeof(data), 0, 0, 0);
	call(CLOSE, listed, 0, 0, 0, 0, 0);
	for (;;)
		call(EXIT, 0, 0, 0, 0, 0, 0);
}
