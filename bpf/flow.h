/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Flows: which backend a client's packets go to, and which client a backend's packets go to.
 *
 * `flows` is an array of cache lines of four flows. A flow stands in it twice, in the same form:
 *  - in the first half, in one of two lines that the client's tuple hashes to (the first, if that had
 *    room when it began, else the emptier one);
 *  - in the second half, where a reply finds it. nat: line and way follow from the endpoint and
 *    the port that it answers to, so that taking a slot is taking a port, and a port towards one
 *    endpoint is never given twice, whatever services it is behind. dnat: one of two lines, by a
 *    hash of client and endpoint. Either copy holds all that matters: an established flow costs one
 *    line each way. The one that a packet finds is written once a tick, both when the state changes,
 *    and as often as XLB_FLOW_LAG says; the other copy is called the twin.
 *
 * The table is a cache under attack: a new flow takes a free or timed out slot, else a closed
 * flow's, else that of a flow that nobody has answered, and so on (RANKS). Flows of which both sides
 * are known to be there are never evicted before their time.
 *
 * A slot changes hands by compare-and-swap of its value, to CLAIMED first; key and final value
 * follow. Ways are picked by arithmetic instead of branches: the verifier then sees one path, and
 * the CPU mispredicts none.
 */
#ifndef XLB_FLOW_H
#define XLB_FLOW_H

#include <xlb/hash.h>

#include "atomic.h"
#include "config.h"
#include "maps.h"
#include "packet.h"
#include "service.h"

/* The client's side of a flow, as it is looked up. */
struct flow_tuple {
	struct xlb_address client;	/* IPv6 only */
	union xlb_flow_key key;
	/* stands for the client's address and port: see flow_tuple_make */
	__u64 word;
};

/* A flow slot of either family: three or four words, the last two are key and value. */
#define FLOW_WORDS(ipv6) ((ipv6) ? 4 : 2)

static __always_inline __u64 *flow_key(__u64 *slot, bool ipv6)
{
	return slot + (ipv6 ? 2 : 0);
}

static __always_inline __u64 *flow_value(__u64 *slot, bool ipv6)
{
	return slot + (ipv6 ? 3 : 1);
}

static __always_inline union xlb_flow_value flow_read(__u64 *slot, bool ipv6)
{
	return (union xlb_flow_value){ .word = *(volatile __u64 *)flow_value(slot, ipv6) };
}

static __always_inline bool flow_swap(__u64 *slot, bool ipv6, __u64 before, __u64 after)
{
	return atomic_swap(flow_value(slot, ipv6), before, after);
}

static __always_inline __u32 flow_lines(bool ipv6)
{
	return ipv6 ? cfg.flow6_lines : cfg.flow_lines;
}

static __always_inline __u64 *flow_line(__u32 index, bool ipv6)
{
	if (ipv6)
		return bpf_map_lookup_elem(&flows6, &index);
	return bpf_map_lookup_elem(&flows, &index);
}

static __always_inline __u64 *flow_way(__u64 *line, __u64 way, bool ipv6)
{
	return line + (way & (XLB_FLOW_WAYS - 1)) * FLOW_WORDS(ipv6);
}

static __always_inline void flow_tuple_make(struct flow_tuple *tuple,
					    const struct xlb_address *client, __be16 port,
					    __u32 service, bool ipv6, const __u64 *secret)
{
	tuple->key.word = (ipv6 ? 0 : client->word[0]) | (__u64)port << 32 | (__u64)service << 48;
	if (ipv6)
		address_copy(&tuple->client, client);
	tuple->word = xlb_address_word(client, ipv6 ? XLB_IPV6 : XLB_IPV4, secret) +
		      ((__u64)port << 32);
}

/*
 * Two different lines of one half, in one page of 4 KB: finding out where a page is costs more than fetching a line of it (most
 * of all in a virtual machine).
 */
struct flow_lines {
	__u32 first, second;
};

/* As one number, for functions that take no pointers; and back. */
static __always_inline __u64 flow_lines_pack(struct flow_lines lines)
{
	return lines.first | (__u64)lines.second << 32;
}

static __always_inline struct flow_lines flow_lines_unpack(__u64 two_lines)
{
	return (struct flow_lines){ .first = two_lines, .second = two_lines >> 32 };
}

static __always_inline struct flow_lines flow_lines_of(__u64 hash, __u32 half, bool ipv6)
{
	__u32 mask = flow_lines(ipv6) - 1;
	__u32 page = ipv6 ? 4096 / sizeof(struct xlb_flow6_line) - 1 :
			    4096 / sizeof(struct xlb_flow_line) - 1;
	struct flow_lines lines = { .first = hash >> 32 & mask };

	lines.second = ((lines.first & ~page) | (hash >> 58 & page)) & mask;
	lines.second ^= lines.first == lines.second;
	lines.first += half;
	lines.second += half;
	return lines;
}

/*
 * What stands for the service in the key of a reply's copy: the endpoint, which is all that a reply
 * shows, and whether it is nat. So flows of one client's port that share a line are told apart.
 */
static __always_inline __u16 flow_reply_tag(__u64 endpoint_hash, bool nat)
{
	return (endpoint_hash >> 48 & 0xfffe) | nat;
}

static __always_inline __u64 flow_client_hash(const struct flow_tuple *tuple, const __u64 *secret)
{
	__u64 word = tuple->word + ((__u64)tuple->key.service << 48);

	return xlb_mix(word, secret[0], secret[1]);
}

static __always_inline struct flow_lines flow_client_lines(const struct flow_tuple *tuple,
							   bool ipv6, const __u64 *secret)
{
	return flow_lines_of(flow_client_hash(tuple, secret), 0, ipv6);
}

/* dnat: where the reply copy is, from what the reply shows of the client and the endpoint. */
static __always_inline struct flow_lines flow_reply_lines(__u64 client_word, __u64 endpoint_hash,
							  bool ipv6, const __u64 *secret)
{
	return flow_lines_of(xlb_mix(client_word + endpoint_hash, secret[1], secret[0]),
			     flow_lines(ipv6), ipv6);
}

/*
 * nat: the line of the one slot that a port towards an endpoint has. Four
 * ports share a line, and an endpoint's lines are strewn over the half, so that endpoints fill it
 * evenly however many there are. Two multiplications: after one alone, the lines of two endpoints
 * would be either apart or nearly all the same.
 */
static __always_inline __u32 flow_port_line(__u64 endpoint_hash, __u32 port, bool ipv6)
{
	__u64 word = endpoint_hash + (__u64)(port - cfg.port_min) / XLB_FLOW_WAYS;

	word *= 0x9e3779b97f4a7c15ull;
	word ^= word >> 32;
	word *= 0xbf58476d1ce4e5b9ull;
	return (word >> 32 & (flow_lines(ipv6) - 1)) + flow_lines(ipv6);
}

static __always_inline __u32 flow_port_slot(__u64 endpoint_hash, __u32 port, bool ipv6)
{
	return flow_port_line(endpoint_hash, port, ipv6) * XLB_FLOW_WAYS +
	       ((port - cfg.port_min) & (XLB_FLOW_WAYS - 1));
}

/*
 * All bits set if the word is 0, else none; the barriers keep clang from seeing a comparison in it,
 * and branching.
 */
static __always_inline __u64 mask_if_zero(__u64 word)
{
	word |= -word;
	barrier_var(word);
	word = (word >> 63) - 1;
	barrier_var(word);
	return word;
}

/* All bits set if a < b (as signed numbers), else none. */
static __always_inline __u64 mask_if_less(__u64 a, __u64 b)
{
	__s64 difference = a - b;

	barrier_var(difference);
	difference >>= 63;
	barrier_var(difference);
	return difference;
}

/*
 * A slot that was found: where it is, and its number (line * ways + way), by which functions of
 * their own are told of it.
 */
struct flow_ref {
	__u64 *slot;
	__u32 number;
};

#define FLOW_NOWHERE (~0u)

static __always_inline bool flow_at(__u32 number, bool ipv6, struct flow_ref *ret_ref)
{
	__u64 *line = flow_line(number / XLB_FLOW_WAYS, ipv6);

	if (!line)
		return false;
	ret_ref->slot = flow_way(line, number, ipv6);
	ret_ref->number = number;
	return true;
}

#define FLOW_ABOVE_BACKEND 40 /* bits of a value */

/*
 * The first way of a line that holds this client; XLB_FLOW_WAYS: none does. `leave_out`, which is a constant: not
 * that way.
 */
static __always_inline __u64 flow_match(__u64 *line, const struct flow_tuple *tuple, bool leave_out,
					__u64 left_out, bool ipv6)
{
	const __u64 *client = (const __u64 *)&tuple->client;
	__u64 way = 0, missed = 1;	/* by all ways so far */

#pragma unroll
	for (__u64 i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 *slot = line + i * FLOW_WORDS(ipv6);
		__u64 differs = *flow_key(slot, ipv6) ^ tuple->key.word;

		if (ipv6)
			differs |= (slot[0] ^ client[0]) | (slot[1] ^ client[1]);
		if (leave_out)
			differs |= mask_if_zero(left_out ^ i);
		differs |= -differs;
		/*
		 * A slot that is free or being taken keeps its last key, and names no backend: one less
		 * than that, in the uppermost bits, is less than nothing, and ids have no use for the last bit.
		 */
		differs |= (flow_read(slot, ipv6).word << FLOW_ABOVE_BACKEND) - 1;
		barrier_var(differs);
		missed &= differs >> 63;
		way += missed;
	}
	return way;
}

/* Tuples to look for, because the search takes no pointers; per CPU. */
enum flow_wanted {
	FLOW_OF_PACKET,
	FLOW_OF_TWIN,
	FLOW_WANTED,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FLOW_WANTED);
	__type(key, __u32);
	__type(value, struct flow_tuple);
} tuples SEC(".maps") __weak;

static __always_inline struct flow_tuple *flow_tuple_get(enum flow_wanted wanted)
{
	__u32 index = wanted;

	return bpf_map_lookup_elem(&tuples, &index);
}

/* The number of the slot in a line; `leave_out`, which is a constant: not of that number. */
static __always_inline __u32 flow_find_here(__u32 index, const struct flow_tuple *tuple, bool leave_out,
					    __u32 left_out, bool ipv6)
{
	__u64 *line = flow_line(index, ipv6), way;

	if (!line)
		return FLOW_NOWHERE;
	way = flow_match(line, tuple, leave_out, left_out ^ index * XLB_FLOW_WAYS, ipv6);
	return way < XLB_FLOW_WAYS ? index * XLB_FLOW_WAYS + way : FLOW_NOWHERE;
}

/* The same in two lines, but for the slot of the number `left_out`. */
static __always_inline __u32 flow_search(const struct flow_tuple *tuple, struct flow_lines lines,
					 __u32 left_out, bool ipv6)
{
	__u32 number = flow_find_here(lines.first, tuple, true, left_out, ipv6);

	return number != FLOW_NOWHERE ?
		       number : flow_find_here(lines.second, tuple, true, left_out, ipv6);
}

/*
 * The number of the slot in two lines, but for that one, that has a tuple of `tuples`; FLOW_NOWHERE: none.
 */
__weak __noinline __u32 flow_find(__u32 wanted, __u64 two_lines, __u32 left_out, bool ipv6)
{
	struct flow_lines lines = flow_lines_unpack(two_lines);
	struct flow_tuple *tuple = bpf_map_lookup_elem(&tuples, &wanted);

	if (!tuple)
		return FLOW_NOWHERE;
	return ipv6 ? flow_search(tuple, lines, left_out, true) :
		      flow_search(tuple, lines, left_out, false);
}

/* The same in one line, of a tuple in numbers: its key and, of IPv6, the client's address. */
__weak __noinline __u32 flow_find_in(__u32 index, __u64 key, __u64 first, __u64 second, bool ipv6)
{
	struct flow_tuple tuple = { .key.word = key };
	__u64 words[2] = { first, second };

	address_copy(&tuple.client, words);
	return ipv6 ? flow_find_here(index, &tuple, false, 0, true) :
		      flow_find_here(index, &tuple, false, 0, false);
}

static __always_inline bool flow_find_either(enum flow_wanted wanted, struct flow_lines lines,
					     bool ipv6, struct flow_ref *ret_ref)
{
	__u32 number = flow_find(wanted, flow_lines_pack(lines), FLOW_NOWHERE, ipv6);

	return number != FLOW_NOWHERE &&
	       flow_at(number, ipv6, ret_ref);
}

/*
 * How willingly a slot is given away: a rank for each state, 4 bits each. 0: never. Of equal ranks the one
 * that was silent for longest goes first.
 */
#define RANK_FREE 7
#define RANK_EXPIRED 6
#define RANK_CLOSED 5
#define RANK_UNANSWERED 4
#define RANK_DOUBTFUL 3		/* nothing has shown that the client is there, or still there */
#define RANK_UNPROVED 2		/* used as if it were, but two forged packets can make as much */
#define RANK_LEAST RANK_UNPROVED
#define RANKS ((__u64)RANK_FREE << XLB_FLOW_FREE * 4 | \
	       (__u64)RANK_CLOSED << XLB_FLOW_CLOSED * 4 | \
	       (__u64)RANK_UNANSWERED << XLB_FLOW_SYN * 4 | \
	       (__u64)RANK_UNANSWERED << XLB_FLOW_ONEWAY * 4 | \
	       (__u64)RANK_DOUBTFUL << XLB_FLOW_ANSWERED * 4 | \
	       (__u64)RANK_DOUBTFUL << XLB_FLOW_CLOSING * 4 | \
	       (__u64)RANK_UNPROVED << XLB_FLOW_ONESIDED * 4 | \
	       (__u64)RANK_UNPROVED << XLB_FLOW_STREAM * 4)
#define RANK_SHIFT 16		/* in a score, above the age */
#define FLOW_AHEAD 16		/* ticks by which other CPUs may have heard of a flow since */

static __always_inline __u64 flow_score(union xlb_flow_value value, __u32 now)
{
	__u64 state = value.word >> 24 & 15;
	__u64 age = (__u16)(now - (value.word >> 48));
	__u64 rank = RANKS >> state * 4 & 15;
	__u64 expired;

	age &= mask_if_less(age, 65536 - FLOW_AHEAD);
	expired = mask_if_less(cfg.timeouts[state], age) & ~mask_if_zero(state);
	rank ^= (rank ^ RANK_EXPIRED) & expired;
	return rank << RANK_SHIFT | age;
}

/* The way of a line that is given away most willingly. */
struct flow_victim {
	__u64 way;
	__u64 score;
	__u64 word;	/* its value */
	__u64 free;	/* how many ways are free */
};

static __always_inline __u64 flow_victim_rank(struct flow_victim victim)
{
	return victim.score >> RANK_SHIFT;
}

static __always_inline struct flow_victim flow_victim_of(__u64 *line, __u32 now, bool ipv6)
{
	__u64 best = 0, free = 0, word = 0;

#pragma unroll
	for (__u64 i = 0; i < XLB_FLOW_WAYS; i++) {
		union xlb_flow_value value = flow_read(line + i * FLOW_WORDS(ipv6), ipv6);
		__u64 score = flow_score(value, now) << 8 | i;
		__u64 better = mask_if_less(best, score);

		free -= mask_if_zero(value.word);
		best ^= (best ^ score) & better;
		word ^= (word ^ value.word) & better;
	}
	barrier_var(best);
	barrier_var(free);
	barrier_var(word);
	return (struct flow_victim){
		.way = best & 3, .score = best >> 8, .word = word, .free = free,
	};
}

#endif
