/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of the architecture that this is compiled for. */
#pragma once

#include <stdint.h>

#include "bdt_format.h"

/* Which Op a system call is, by its number; the rest is left as it is. */
void fill_operations(uint8_t *op_of);

/* Of the Ops from BDT_OP_STAT on: which argument is what, counted from 1 (path, second path, directory of a relative
 * path, descriptor, size, another). */
void fill_shapes(uint8_t *op_of, struct bdt_shape *shapes);
