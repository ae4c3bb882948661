/* SPDX-License-Identifier: GPL-2.0 */
#ifndef XLB_FUZZ_SUMS_H
#define XLB_FUZZ_SUMS_H

#include <stdint.h>

/* NULL, or which checksum of a frame that left is not what it has to be after the one that came in. */
const char *sums_wrong(const uint8_t *in_frame, unsigned int in_length, const uint8_t *frame,
		       unsigned int length);

#endif
