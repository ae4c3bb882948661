/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Atomic steps that give a result back. Linux before 5.12 has no instruction for them, and refuses
 * programs in which one stands, also where it is never reached: there has_atomics is false, lbctl
 * takes the instructions out, and one lock for all CPUs takes their place. Delete this file with
 * Linux 5.10.
 */
#ifndef XLB_BPF_ATOMIC_H
#define XLB_BPF_ATOMIC_H

#include "config.h"
#include "maps.h"

extern const volatile bool has_atomics; /* in xlb.bpf.c */

/* Stores `after` where `before` is; whether it was. */
static __always_inline bool atomic_swap(__u64 *word, __u64 before, __u64 after)
{
	struct xlb_lock *lock;
	__u32 key = 0;
	bool equal;

	if (has_atomics)
		return __sync_val_compare_and_swap(word, before, after) == before;
	lock = bpf_map_lookup_elem(&locks, &key);
	if (!lock)
		return false;
	bpf_spin_lock(&lock->lock);
	equal = *(volatile __u64 *)word == before;
	if (equal)
		*(volatile __u64 *)word = after;
	bpf_spin_unlock(&lock->lock);
	return equal;
}

/* Counts one up; what it was before. */
static __always_inline __u64 atomic_take(__u64 *counter)
{
	struct xlb_lock *lock;
	__u32 key = 0;
	__u64 before;

	if (has_atomics)
		return __sync_fetch_and_add(counter, 1);
	lock = bpf_map_lookup_elem(&locks, &key);
	if (!lock)
		return 0;
	bpf_spin_lock(&lock->lock);
	before = *(volatile __u64 *)counter;
	*(volatile __u64 *)counter = before + 1;
	bpf_spin_unlock(&lock->lock);
	return before;
}

#endif
