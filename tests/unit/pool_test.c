// SPDX-License-Identifier: GPL-2.0
/* Room for rings: taken, given back, and never given twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "datapath/pool.h"

#define SIZE 1000

static void what_is_given_back_waits(void **state)
{
	struct extent_pool pool;
	uint32_t start;

	(void)state;
	assert_int_equal(extent_pool_init(&pool, 10), 0);
	assert_int_equal(extent_pool_take(&pool, 10, &start), 0);
	assert_int_equal(extent_pool_take(&pool, 1, &start), -ENOSPC);
	assert_int_equal(extent_pool_put(&pool, 0, 10), 0);
	assert_int_equal(extent_pool_take(&pool, 1, &start), -ENOSPC);
	assert_int_equal(extent_pool_settle(&pool), 0);
	assert_int_equal(extent_pool_take(&pool, 10, &start), 0);
	extent_pool_free(&pool);
}

static void reserved_room_is_not_given(void **state)
{
	struct extent_pool pool;
	uint32_t start;

	(void)state;
	assert_int_equal(extent_pool_init(&pool, 10), 0);
	assert_int_equal(extent_pool_reserve(&pool, 3, 2), 0);
	assert_int_equal(extent_pool_reserve(&pool, 0, 1), 0);
	assert_int_equal(extent_pool_reserve(&pool, 9, 1), 0);
	assert_int_equal(extent_pool_reserve(&pool, 4, 2), -EEXIST);
	assert_int_equal(extent_pool_reserve(&pool, 8, 5), -EEXIST);
	assert_int_equal(extent_pool_reserve(&pool, 20, 1), -EEXIST);
	assert_int_equal(pool.used, 4);
	assert_int_equal(extent_pool_take(&pool, 4, &start), 0);
	assert_int_equal(start, 5);
	assert_int_equal(extent_pool_take(&pool, 3, &start), -ENOSPC);
	assert_int_equal(extent_pool_take(&pool, 2, &start), 0);
	assert_int_equal(start, 1);
	extent_pool_free(&pool);
}

static void doubt_makes_all_wait(void **state)
{
	struct extent_pool pool;
	uint32_t start;

	(void)state;
	assert_int_equal(extent_pool_init(&pool, 10), 0);
	assert_int_equal(extent_pool_reserve(&pool, 0, 4), 0);
	extent_pool_doubt(&pool);
	assert_int_equal(extent_pool_take(&pool, 1, &start), -ENOSPC);
	assert_int_equal(extent_pool_settle(&pool), 0);
	assert_int_equal(extent_pool_take(&pool, 6, &start), 0);
	assert_int_equal(start, 4);
	extent_pool_free(&pool);
}

/* At random, beside a plain map of who has what. */
static void nothing_is_given_twice(void **state)
{
	uint32_t start[100], length[100] = { 0 };
	uint8_t owner[SIZE] = { 0 };
	struct extent_pool pool;
	uint32_t random = 1;

	(void)state;
	assert_int_equal(extent_pool_init(&pool, SIZE), 0);
	for (int i = 0; i < 100000; i++) {
		uint32_t who, used = 0;

		random = random * 1664525 + 1013904223;
		who = (random >> 16) % 100;
		if (length[who]) {
			memset(owner + start[who], 0, length[who]);
			assert_int_equal(extent_pool_put(&pool, start[who], length[who]), 0);
			length[who] = 0;
			if (random >> 30)
				assert_int_equal(extent_pool_settle(&pool), 0);
		} else if (!extent_pool_take(&pool, 1 + (random >> 8) % 30, &start[who])) {
			length[who] = 1 + (random >> 8) % 30;
			assert_true(start[who] + length[who] <= SIZE);
			for (uint32_t j = 0; j < length[who]; j++)
				assert_int_equal(owner[start[who] + j]++, 0);
		}
		for (uint32_t j = 0; j < 100; j++)
			used += length[j];
		assert_int_equal(pool.used, used);
	}
	/* All back: one piece again. */
	for (uint32_t who = 0; who < 100; who++)
		extent_pool_put(&pool, start[who], length[who]);
	assert_int_equal(extent_pool_settle(&pool), 0);
	assert_int_equal(pool.free.n, 1);
	assert_int_equal(pool.free.extent[0].length, SIZE);
	extent_pool_free(&pool);
}

static void ids_run_out(void **state)
{
	struct id_pool pool;

	(void)state;
	assert_int_equal(id_pool_init(&pool, 2), 0);
	assert_int_equal(id_pool_take(&pool), 0);
	id_pool_put(&pool, 5);
	id_pool_put(&pool, 6);
	assert_int_equal(id_pool_take(&pool), 6);
	assert_int_equal(id_pool_take(&pool), 5);
	assert_int_equal(id_pool_take(&pool), 0);
	id_pool_free(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_given_back_waits),
		cmocka_unit_test(reserved_room_is_not_given),
		cmocka_unit_test(doubt_makes_all_wait),
		cmocka_unit_test(nothing_is_given_twice),
		cmocka_unit_test(ids_run_out),
	};

	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
