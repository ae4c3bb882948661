// SPDX-License-Identifier: GPL-2.0
/*
 * Random configurations, random packets: the program and the model must agree on verdict, bytes and
 * counters. `make fuzz-packet N=... SEED=...`.
 *
 * A round is a configuration and some thousands of packets, all of which follow from the round's
 * seed. When program and model differ, the round is run again and again with fewer packets, until
 * none can be left out; what is left is printed with the configuration. Time stands still (a tick
 * never ends), and answers are not rationed, so that a round can be repeated.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <xlb/hash.h>

#include "xlb.skel.h"

#include "generate.h"
#include "model.h"
#include "stand.h"
#include "sums.h"

#define ROUND_PACKETS 4000
#define PROGRESS 10000000	/* packets, until a line says so */

/* The packets of a round, kept for shrinking. */
static struct { unsigned int length; uint8_t data[FRAME_MAX]; } packets[ROUND_PACKETS];
static bool left_out[ROUND_PACKETS];
static struct model model;

static void print_hex(const char *what, const uint8_t *data, unsigned int n)
{
	printf("%s (%u bytes) ", what, n);
	for (unsigned int i = 0; i < n; i++)
		printf("%02x", data[i]);
	putchar('\n');
}

/* The counters that differ; NULL: none. */
static const char *counters_differ(struct stand *stand)
{
	static char line[128];

	for (unsigned int i = 0; i < model.n_services; i++) {
		struct model_counts have = {};

		stand_service_counts(stand, &model.services[i], &have);
		if (memcmp(&have, &model.service_counts[i], sizeof(have))) {
			snprintf(line, sizeof(line), "counters of service %u", i);
			return line;
		}
	}
	for (unsigned int i = 0; i < model.n_backends; i++) {
		struct model_counts have = {};

		stand_backend_counts(stand, i, &have);
		if (memcmp(&have, &model.backend_counts[i], sizeof(have))) {
			snprintf(line, sizeof(line), "counters of backend %u", i);
			return line;
		}
	}
	for (unsigned int reason = 1; reason < XLB_DROP_REASONS; reason++) {
		if (stand_drops(stand, reason) != model.drops[reason]) {
			snprintf(line, sizeof(line), "drops for reason %u", reason);
			return line;
		}
	}
	return NULL;
}

/* Runs one packet through both; NULL, or in what they differ. */
static const char *packet_differs(struct stand *stand, unsigned int i, struct frame_out *actual,
				  struct frame_out *wanted)
{
	const char *wrong = NULL;

	stand_run(stand, packets[i].data, packets[i].length, actual);
	if (actual->verdict == XDP_TX || (actual->verdict == BY_KERNEL && !actual->kept))
		wrong = sums_wrong(packets[i].data, packets[i].length, actual->data,
				   actual->length);
	if (wrong)
		return wrong;
	wrong = model_run(&model, packets[i].data, packets[i].length, actual, wanted);
	if (wrong)
		return wrong;
	if (actual->verdict != wanted->verdict)
		return "the verdict";
	if (actual->verdict == XDP_DROP)
		return NULL;
	if (actual->mtu != wanted->mtu)
		return "the MTU that tc is told";
	if (actual->held != wanted->held || actual->kept != wanted->kept ||
	    actual->datagram != wanted->datagram || actual->tunnel != wanted->tunnel)
		return "what tc is told of kept fragments";
	if (actual->check != wanted->check || actual->address_sum != wanted->address_sum)
		return "what tc is told of a checksum";
	if (actual->has_next_hop != wanted->has_next_hop ||
	    (actual->has_next_hop && !ip_equal(&actual->next_hop, &wanted->next_hop)))
		return "the next hop that tc is told";
	if (actual->length != wanted->length)
		return "the length";
	return memcmp(actual->data, wanted->data, wanted->length) ? "the bytes" : NULL;
}

/* Most rounds leave it to the program which walk a packet takes; some want the long one. */
static void round_begin(struct stand *stand, uint64_t seed)
{
	generate_model(&model, seed);
	stand_configure(stand, &model);
	stand_walk_at_length(stand, seed % 4 == 3);
}

/* Runs the packets that are not left out; the number of the one that differs, n: the counters, -1: none. */
static int round_run(struct stand *stand, uint64_t seed, int n, const char **ret_what)
{
	static struct frame_out actual, wanted;

	round_begin(stand, seed);
	for (int i = 0; i < n; i++) {
		if (left_out[i])
			continue;
		*ret_what = packet_differs(stand, i, &actual, &wanted);
		if (*ret_what && !strcmp(*ret_what, MODEL_LOST))
			return -1;
		if (*ret_what)
			return i;
	}
	*ret_what = counters_differ(stand);
	return *ret_what ? n : -1;
}

/* Leaves out all that the difference does not need. */
static void shrink(struct stand *stand, uint64_t seed, int n, bool counters)
{
	const char *what;

	for (int chunk = n / 2; chunk; chunk /= 2) {
		for (int from = 0; from < n; from += chunk) {
			bool before[ROUND_PACKETS];
			int last = from + chunk < n ? from + chunk : n, r;

			memcpy(before, left_out, sizeof(before));
			for (int i = from; i < last; i++)
				left_out[i] = counters || i != n - 1;
			r = round_run(stand, seed, n, &what);
			if (r != (counters ? n : n - 1))
				memcpy(left_out, before, sizeof(before));
		}
	}
}

static void report(struct stand *stand, uint64_t seed, int n, bool counters)
{
	static struct frame_out actual, wanted;
	const char *what = NULL;

	shrink(stand, seed, n, counters);
	printf("model and program differ; seed %llu; what is left of the round:\n",
	       (unsigned long long)seed);
	round_begin(stand, seed);
	generate_print(&model);
	for (int i = 0; i < n; i++) {
		if (left_out[i])
			continue;
		print_hex("in     ", packets[i].data, packets[i].length);
		what = packet_differs(stand, i, &actual, &wanted);
		printf("program: verdict %d, model: verdict %d\n", actual.verdict, wanted.verdict);
		print_hex("program", actual.data, actual.length);
		print_hex("model  ", wanted.data, wanted.length);
	}
	what = what ? what : counters_differ(stand);
	printf("differs: %s\n", what ? what : "nothing any more (it depends on chance)");
}

/* *ret_done: packets that were compared. */
static bool round_agrees(struct stand *stand, uint64_t seed, unsigned int n,
			 unsigned int *ret_done)
{
	static struct frame_out actual, wanted;
	const char *what = NULL;
	unsigned int i;

	memset(left_out, 0, sizeof(left_out));
	round_begin(stand, seed);
	for (i = 0; i < n && !what; i++) {
		/* Half of them on the flow of an earlier one. */
		if (i % 2)
			packets[i].length = generate_next(packets[i / 2].data, packets[i / 2].length,
							  packets[i].data);
		else
			packets[i].length = generate_packet(&model, packets[i].data);
		what = packet_differs(stand, i, &actual, &wanted);
	}
	*ret_done = i;
	if (what && (!strcmp(what, MODEL_LOST) || stand_learned_paths(stand)))
		return true;
	if (what) {
		report(stand, seed, i, false);
		return false;
	}
	if (counters_differ(stand) && !stand_learned_paths(stand)) {
		report(stand, seed, n, true);
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	unsigned long long total = 1000000, seed = time(NULL), done = 0;
	struct stand *stand;
	int option;

	while ((option = getopt(argc, argv, "n:s:h")) != -1) {
		switch (option) {
		case 'n': total = strtoull(optarg, NULL, 0); break;
		case 's': seed = strtoull(optarg, NULL, 0); break;
		default:
			fputs("usage: fuzz [-n PACKETS] [-s SEED]\n", option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : 2;
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	stand = stand_make();
	printf("fuzz: %llu packets, seed %llu\n", total, seed);
	for (uint64_t round = seed; done < total; round++) {
		unsigned int n = total - done < ROUND_PACKETS ? total - done : ROUND_PACKETS;

		if (!round_agrees(stand, round, n, &n))
			return 1;
		if ((done + n) / PROGRESS > done / PROGRESS)
			printf("fuzz: %llu packets so far\n", done + n);
		done += n;
	}
	printf("fuzz: %llu packets, no difference\n", done);
	return 0;
}
