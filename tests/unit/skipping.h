/* SPDX-License-Identifier: GPL-2.0 */
/* Skipping a test with its reason, which scripts/run-tests reads: cmocka has no place for one. */
#ifndef XLB_SKIPPING_H
#define XLB_SKIPPING_H

#include <stdio.h>

#define SKIP_BECAUSE(reason) do { \
	fprintf(stderr, "skipped: %s: %s\n", __func__, reason); \
	skip(); \
} while (0)

#endif
