/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counters for those who look: from `backend_tally`, where packets are counted, to `backend_stats`.
 *
 * A dump should show the backends that there are and nothing else, which takes a hash; but looking
 * one up costs a packet as much as parsing it and finding its service do. So packets are counted in
 * an array, and a timer of the CPU copies what has changed, a millisecond later. The first packet for
 * a backend since it was copied puts the backend into a queue: the CPU writes it, the timer reads it.
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
#define MIRROR_BACKEND_NS 20000ull	/* so much more for each that was copied just now */
#define MIRROR_ROUNDS 2
#define CLOCK_MONOTONIC 1

/* Timers, and look-ups of another CPU's element (5.19). Set by lbctl. */
extern const volatile bool has_mirror; /* in xlb.bpf.c */

struct mirror_round {
	__u32 cpu;
	__u32 from;	/* place in the queue */
	__u32 again;	/* so many are copied for the second time */
};

static __always_inline void mirror_copy(struct xlb_backend_stats *stats,
					const struct xlb_backend_tally *tally)
{
	stats->to_backend = tally->to_backend;
	stats->to_client = tally->to_client;
	stats->flows = tally->flows;
}

/* One backend. `first`: packets that come from now on put it into the queue again. */
static __always_inline void mirror_one(__u32 id, __u32 cpu, bool first)
{
	struct xlb_backend_tally *tally = bpf_map_lookup_percpu_elem(&backend_tally, &id, cpu);
	struct xlb_backend_stats *stats = bpf_map_lookup_percpu_elem(&backend_stats, &id, cpu);

	if (!tally)
		return;
	if (first)
		__sync_lock_test_and_set(&tally->queued, 0);
	else if (tally->queued)
		return;
	if (stats)
		mirror_copy(stats, tally);
}

static long mirror_place(__u32 i, struct mirror_round *round)
{
	struct xlb_mirror *mirror = bpf_map_lookup_elem(&mirrors, &round->cpu);

	if (!mirror)
		return 1;
	mirror_one(mirror->queue[(round->from + i) % XLB_MIRROR_QUEUE], round->cpu,
		   i >= round->again);
	return 0;
}

static long mirror_backend(const void *map, __u32 *id, struct xlb_backend_stats *here,
			   struct mirror_round *round)
{
	(void)map, (void)here;
	mirror_one(*id, round->cpu, true);
	return 0;
}

static int mirror_round(const void *map, __u32 *cpu, struct xlb_mirror *mirror)
{
	struct mirror_round round = { .cpu = *cpu };
	__u64 copied;
	__u32 head;

	(void)map;
	/* Before the look at the queue: who changes it from now on starts the timer again. */
	__sync_lock_test_and_set(&mirror->armed, 0);
	head = *(volatile __u32 *)&mirror->head;
	round.from = mirror->tail;
	round.again = mirror->copied - mirror->tail;
	if (__sync_lock_test_and_set(&mirror->overflow, 0))
		mirror->all = MIRROR_ROUNDS;
	if (mirror->all) {
		mirror->all--;
		copied = bpf_for_each_map_elem(&backend_stats, mirror_backend, &round, 0);
	} else {
		copied = bpf_loop(head - round.from, mirror_place, &round, 0);
	}
	*(volatile __u32 *)&mirror->tail = mirror->copied;
	mirror->copied = head;
	if ((mirror->all || mirror->tail != head) && !__sync_lock_test_and_set(&mirror->armed, 1))
		bpf_timer_start(&mirror->timer, MIRROR_NS + copied * MIRROR_BACKEND_NS, 0);
	return 0;
}

/* Has this CPU's counters of a backend copied, soon. */
__weak __noinline int mirror_queue(__u32 id)
{
	__u32 cpu = bpf_get_smp_processor_id(), head;
	struct xlb_mirror *mirror;

	/* The verifier looks here also where nobody calls it. */
	if (!has_mirror)
		return 0;
	mirror = bpf_map_lookup_elem(&mirrors, &cpu);
	if (!mirror)
		return 0;
	head = mirror->head;
	if (head - *(volatile __u32 *)&mirror->tail < XLB_MIRROR_QUEUE) {
		mirror->queue[head % XLB_MIRROR_QUEUE] = id;
		publish(&mirror->head, head + 1);
	} else {
		mirror->overflow = 1;
	}
	if (__sync_lock_test_and_set(&mirror->armed, 1))
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
	} else if (!tally->queued) {
		tally->queued = 1;
		mirror_queue(id);
	}
}

#endif
