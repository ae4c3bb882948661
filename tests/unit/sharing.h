/* SPDX-License-Identifier: GPL-2.0 */
/* One test in so many, for the virtual machines, where each is slow: XLB_SHARE=K/RUNS, the K-th (from 0) of so many runs. */
#ifndef XLB_SHARING_H
#define XLB_SHARING_H

#include <stdio.h>
#include <stdlib.h>

/* Moves those of this run to the front; how many they are. */
static inline size_t share_of(struct CMUnitTest *tests, size_t n)
{
	const char *share = getenv("XLB_SHARE");
	unsigned int number, runs;
	size_t kept = 0;

	if (!share || sscanf(share, "%u/%u", &number, &runs) != 2 || number >= runs)
		return n;
	for (size_t i = number; i < n; i += runs)
		tests[kept++] = tests[i];
	return kept;
}

#endif
