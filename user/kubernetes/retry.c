// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/retry.h"

#include <sys/random.h>

#include "kubernetes/api.h"

enum {
	FIRST_MS = 800,
	LAST_MS = 15000,	/* with the jitter on top: 30 s */
	PATIENCE = 5,
	WAIT_MAX_S = 30,
};

static const uint64_t quiet_ns = 120ull * 1000000000;

unsigned int retry_random(unsigned int n)
{
	uint32_t word = 0;

	/* Without entropy yet (EINTR, early boot) there is no jitter this once. */
	(void)!getrandom(&word, sizeof(word), GRND_NONBLOCK);
	return word % n;
}

static unsigned int next_delay_ms(struct retry *retry, uint64_t now_ns)
{
	if (!retry->base_ms || (retry->last_ns && now_ns - retry->last_ns > quiet_ns))
		retry->base_ms = FIRST_MS;
	else if (retry->base_ms < LAST_MS)
		retry->base_ms = retry->base_ms * 2 < LAST_MS ? retry->base_ms * 2 : LAST_MS;
	retry->last_ns = now_ns;
	return retry->base_ms + retry_random(retry->base_ms);
}

bool retry_after_failure(struct retry *retry, const struct api_result *result, bool patient,
			 uint64_t now_ns, unsigned int *ret_delay_ms)
{
	unsigned int delay_ms;
	bool asked = result->status == 429 || (result->status >= 500 && result->retry_after_s);

	if (result->refused && !retry->reread) {
		retry->reread = true;
		*ret_delay_ms = 0;
		return true;
	}
	if (!patient && (!asked || ++retry->tries > PATIENCE || result->retry_after_s > WAIT_MAX_S))
		return false;
	delay_ms = next_delay_ms(retry, now_ns);
	if (delay_ms < result->retry_after_s * 1000)
		delay_ms = result->retry_after_s * 1000;
	*ret_delay_ms = delay_ms;
	return true;
}

/*
 * The step of the back-off stays until two quiet minutes have passed: a server that fails every
 * other time is not hammered.
 */
void retry_success(struct retry *retry)
{
	retry->reread = false;
	retry->tries = 0;
}
