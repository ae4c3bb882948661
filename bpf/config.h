/* SPDX-License-Identifier: GPL-2.0 */
/* What is fixed when the programs are loaded, and the clock. */
#ifndef XLB_BPF_CONFIG_H
#define XLB_BPF_CONFIG_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <xlb/abi.h>

/*
 * lbctl copies `config` here before loading; defined in xlb.bpf.c. What changes later is read from
 * the map.
 */
extern const volatile struct xlb_config cfg;
/* xlb_ring_keys() of the seed. Set by lbctl, too. */
extern const volatile __u64 ring_keys[2];

#ifndef barrier
#define barrier() asm volatile("" : : : "memory")
#endif

/* Keeps the compiler from turning arithmetic on `var` back into branches. */
#ifndef barrier_var
#define barrier_var(var) asm volatile("" : "+r"(var))
#endif

/*
 * Stores a value that readers take as leave to read what was stored before. Where the machine keeps
 * the order of stores, only the compiler must be told; elsewhere it takes an exchange, for want of
 * a store with release that Debian 12's clang knows.
 */
#ifdef XLB_ORDERED_STORES
#define publish(at, value) \
	do { \
		barrier(); \
		*(volatile typeof(*(at)) *)(at) = (value); \
	} while (0)
#else
#define publish(at, value) __sync_lock_test_and_set(at, value)
#endif

/* About a second each; never 0, which means "never" in struct xlb_next_hop. */
static __always_inline __u32 tick_now(void)
{
	return (bpf_jiffies64() >> cfg.tick_shift) | 1u << 31;
}

/* The secret, on the stack where the shared hashes want it. */
static __always_inline void secret_get(__u64 secret[2])
{
	secret[0] = cfg.secret[0];
	secret[1] = cfg.secret[1];
}

#endif
