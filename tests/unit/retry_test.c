// SPDX-License-Identifier: GPL-2.0
/* When to ask again: the steps of the back-off, their jitter, and what a server says about time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kubernetes/api.h"
#include "kubernetes/retry.h"

static const uint64_t second_ns = 1000000000;

static unsigned int fail_at(struct retry *retry, const struct api_result *result, uint64_t now_ns)
{
	unsigned int delay_ms = 0;

	assert_true(retry_after_failure(retry, result, true, now_ns, &delay_ms));
	return delay_ms;
}

/* Each step is 0.8 s, 1.6 s, ..., 15 s, and as much again by chance at most. */
static void test_steps(void **state)
{
	static const unsigned int steps_ms[] = { 800, 1600, 3200, 6400, 12800, 15000, 15000 };
	const struct api_result away = { .code = -1 };
	struct retry retry = {};
	uint64_t now_ns = second_ns;

	(void)state;
	for (size_t i = 0; i < sizeof(steps_ms) / sizeof(*steps_ms); i++) {
		unsigned int delay_ms = fail_at(&retry, &away, now_ns);

		assert_in_range(delay_ms, steps_ms[i], 2 * steps_ms[i] - 1);
		now_ns += delay_ms * (second_ns / 1000);
	}
}

static void test_jitter(void **state)
{
	const struct api_result away = { .code = -1 };
	unsigned int first = 0, others = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct retry retry = {};
		unsigned int delay_ms = fail_at(&retry, &away, second_ns);

		first = first ?: delay_ms;
		others += delay_ms != first;
	}
	assert_int_not_equal(others, 0);
}

/* A success alone does not take a step back: a server that fails every other time is not hammered. */
static void test_quiet(void **state)
{
	const struct api_result away = { .code = -1 };
	struct retry retry = {};

	(void)state;
	fail_at(&retry, &away, second_ns);
	fail_at(&retry, &away, 2 * second_ns);
	retry_success(&retry);
	assert_in_range(fail_at(&retry, &away, 122 * second_ns), 3200, 6399);
	retry_success(&retry);
	assert_in_range(fail_at(&retry, &away, (122 + 121) * second_ns), 800, 1599);
}

/* Retry-After is the least; a 401 is answered at once, one time until something worked. */
static void test_said(void **state)
{
	const struct api_result busy = { .status = 429, .retry_after_s = 7 };
	const struct api_result refused = { .status = 401, .refused = true };
	struct retry retry = {};

	(void)state;
	assert_int_equal(fail_at(&retry, &busy, second_ns), 7000);
	assert_int_equal(fail_at(&retry, &refused, second_ns), 0);
	assert_in_range(fail_at(&retry, &refused, second_ns), 1600, 3199);
	retry_success(&retry);
	assert_int_equal(fail_at(&retry, &refused, second_ns), 0);
}

/* Who does not stay: only what a server asks for, five times, and not for long. */
static void test_impatient(void **state)
{
	const struct api_result away = { .code = -1 }, plain = { .status = 503 };
	const struct api_result busy = { .status = 503, .retry_after_s = 1 };
	const struct api_result long_busy = { .status = 429, .retry_after_s = 31 };
	struct retry retry = {};
	unsigned int delay_ms = 0;

	(void)state;
	assert_false(retry_after_failure(&retry, &away, false, second_ns, &delay_ms));
	assert_false(retry_after_failure(&retry, &plain, false, second_ns, &delay_ms));
	assert_false(retry_after_failure(&retry, &long_busy, false, second_ns, &delay_ms));
	retry_success(&retry);
	for (int i = 0; i < 5; i++)
		assert_true(retry_after_failure(&retry, &busy, false, second_ns, &delay_ms));
	assert_false(retry_after_failure(&retry, &busy, false, second_ns, &delay_ms));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps), cmocka_unit_test(test_jitter), cmocka_unit_test(test_quiet),
		cmocka_unit_test(test_said),  cmocka_unit_test(test_impatient),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
