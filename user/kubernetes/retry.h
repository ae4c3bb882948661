/* SPDX-License-Identifier: GPL-2.0 */
/*
 * When to ask again after a failure: 0.8 s, doubling to 30 s, with jitter, from the start again
 * after two minutes without one; at once, one time, after a 401, since credentials are read anew
 * then; not before what Retry-After says.
 */
#ifndef XLB_KUBERNETES_RETRY_H
#define XLB_KUBERNETES_RETRY_H

#include <stdbool.h>
#include <stdint.h>

struct api_result;

struct retry {
	unsigned int base_ms;
	uint64_t last_ns;	/* of the last failure; 0: none */
	bool reread;		/* a 401 has been answered by reading the credentials again */
	unsigned int tries;	/* since the last success */
};

/*
 * A failure: how long to wait. patient: go on for ever. Else only what a server asks for is retried
 * (429, and 5xx with Retry-After), five times, and never for longer than 30 s. false: do not.
 */
bool retry_after_failure(struct retry *retry, const struct api_result *result, bool patient,
			 uint64_t now_ns, unsigned int *ret_delay_ms);
void retry_success(struct retry *retry);
/* 0..n-1, from the kernel: nodes that failed together must not come back together. */
unsigned int retry_random(unsigned int n);

#endif
