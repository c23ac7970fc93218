/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What struct bdt_shape says of a call beside which argument is what. */
#pragma once

/* As .second_base: the second path counts from the working directory. 0: what is second is no path. */
#define WORKING_DIRECTORY 255
