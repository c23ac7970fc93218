/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of the architecture that this is compiled for. */
#pragma once

#include <stdint.h>

#include "bdt_format.h"

/* Which Op a system call is, by its number; the rest is left as it is. */
void fill_operations(uint8_t *op_of);

/* Those that are newer than the headers of some systems; their numbers are the same everywhere. */
void fill_new_operations(uint8_t *op_of);

/* The same for the interface of 32-bit programs, and how each call passes its arguments (enum abi32_form). */
void fill_operations32(uint8_t *op_of, uint8_t *form_of);

/* Of the Ops whose arguments a table can describe: which argument is what, counted from 1 (path, second path or name, directories from
 * which these count, descriptor, offset, size, another). */
void fill_shapes(struct bdt_shape *shapes);
