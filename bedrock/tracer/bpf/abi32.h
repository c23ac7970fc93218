/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* How calls through the 32-bit interface of x86 (`int $0x80`, i386 programs) pass what 64-bit calls pass otherwise. */
#pragma once

enum abi32_form {
	ABI32_ALIKE,
	ABI32_OFFSET, /* fd, buffer, size, offset in two halves */
	ABI32_LENGTH, /* file, length in two halves */
	ABI32_START, /* fd, offset in two halves, size, another */
	ABI32_RANGE, /* fd, offset and size in two halves each, another */
	ABI32_MODE_RANGE, /* fd, mode, offset and size in two halves each */
	ABI32_SEEK, /* fd, offset with a sign, whence */
	ABI32_LONG_SEEK, /* fd, offset in two halves, where to write the position, whence */
	ABI32_PAGES, /* the sixth argument is an offset in pages of 4 KiB, whatever the kernel's are */
	ABI32_BLOCK, /* all six arguments in memory */
	ABI32_SHORT_OFFSET, /* the offset that an argument points to has 32 bits */
};
