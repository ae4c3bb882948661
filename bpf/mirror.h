/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counters for those who look: from `backend_tally`, where packets are counted, to `backend_stats`.
 *
 * A dump should show the backends that there are and nothing else, which takes a hash; but looking
 * one up costs a packet as much as parsing it and finding its service do. So packets are counted in
 * an array, and a timer of the CPU copies what has changed, a millisecond later. It runs for as
 * long as packets come, and then once more.
 *
 * The timer of a CPU may fire on another one (Linux before 6.7 has no way to pin it), while the first
 * counts. What it copies then may be a packet behind, with nothing left to say so: therefore every
 * change is copied in two rounds.
 */
#ifndef XLB_MIRROR_H
#define XLB_MIRROR_H

#include <stdbool.h>

#include "config.h"
#include "maps.h"

#define MIRROR_NS (1000ull * 1000)	/* from a change to its copy, and */
#define MIRROR_BACKEND_NS 2000ull	/* so much more for each backend that there is */
#define MIRROR_ROUNDS 2
#define CLOCK_MONOTONIC 1

/* Timers, and look-ups of another CPU's element (5.19). Set by lbctl. */
extern const volatile bool has_mirror; /* in xlb.bpf.c */

struct mirror_round {
	__u32 cpu;
	bool again;
};

static __always_inline void mirror_copy(struct xlb_backend_stats *stats,
					const struct xlb_backend_tally *tally)
{
	stats->to_backend = tally->to_backend;
	stats->to_client = tally->to_client;
	stats->flows = tally->flows;
}

static long mirror_backend(const void *map, __u32 *id, struct xlb_backend_stats *here,
			   struct mirror_round *round)
{
	struct xlb_backend_tally *tally =
		bpf_map_lookup_percpu_elem(&backend_tally, id, round->cpu);
	struct xlb_backend_stats *stats;

	(void)map, (void)here;
	if (!tally || !tally->fresh)
		return 0;
	stats = bpf_map_lookup_percpu_elem(&backend_stats, id, round->cpu);
	if (!stats)
		return 0;
	tally->fresh--;
	mirror_copy(stats, tally);
	round->again = true;
	return 0;
}

static int mirror_round(const void *map, __u32 *cpu, struct xlb_mirror *mirror)
{
	struct mirror_round round = { .cpu = *cpu };
	__u64 there;

	(void)map;
	/* Before the look at the counters: who changes one from now on starts the timer again. */
	__sync_lock_test_and_set(&mirror->armed, 0);
	there = bpf_for_each_map_elem(&backend_stats, mirror_backend, &round, 0);
	if (round.again && !__sync_lock_test_and_set(&mirror->armed, 1))
		bpf_timer_start(&mirror->timer, MIRROR_NS + there * MIRROR_BACKEND_NS, 0);
	return 0;
}

/* Has this CPU's counters copied, soon. */
__weak __noinline int mirror_arm(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct xlb_mirror *mirror = bpf_map_lookup_elem(&mirrors, &cpu);

	if (!mirror || __sync_lock_test_and_set(&mirror->armed, 1))
		return 0;
	/* Fails where it has been done before, which is as good. */
	bpf_timer_init(&mirror->timer, &mirrors, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&mirror->timer, mirror_round) ||
	    bpf_timer_start(&mirror->timer, MIRROR_NS, 0))
		mirror->armed = 0;
	return 0;
}

/* What was counted for a backend is to be seen. */
static __always_inline void mirror_show(__u32 id, struct xlb_backend_tally *tally)
{
	struct xlb_backend_stats *stats;

	if (!has_mirror) {
		stats = bpf_map_lookup_elem(&backend_stats, &id);
		if (stats)
			mirror_copy(stats, tally);
	} else if (tally->fresh != MIRROR_ROUNDS) {
		tally->fresh = MIRROR_ROUNDS;
		mirror_arm();
	}
}

#endif
