// SPDX-License-Identifier: GPL-2.0
/* Sizes, times, ports and secrets: what is fixed when the maps are made. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "datapath/internal.h"

#define SERVICES_DEFAULT 4096
#define SERVICES_MAX 32768
#define SERVICES_SLOTS_MAX 65536 /* ids are 16 bits */
/*
 * Slots of the table for each service. A service may stand XLB_SERVICE_PROBES slots behind its home
 * at most: a table of twice the size turns services away from seven eighths on, this one does not
 * before there are more than were asked for.
 */
#define SERVICES_SLOTS_EACH 4
#define BACKENDS_DEFAULT 16384
#define BACKENDS_MAX (1u << 22)
_Static_assert(BACKENDS_MAX < 1u << 23, "the highest bit of ids is free: flow_match()");
/* A ring has 100 to 142 slots for each backend; the rest is for those from before a change. */
#define RING_SLOTS_EACH 150
#define RING_SLOTS_LEAST 65536 /* a service's old and new ring are both there while it changes */
#define FLOWS_DEFAULT 1048576
#define FLOWS_MIN 1024
#define FLOWS_MAX (1u << 26)
#define FLOWS6_PART 16
#define NEIGHBOURS 4096
#define PORTS_MIN 1024		/* fewer are hardly worth it */
#define SEED_DEFAULT 0x786c6231 /* "xlb1" */

/* RFC 5382 REQ-5 and RFC 7857 2.2 for TCP, RFC 4787 REQ-5 for UDP. */
static const uint32_t timeout_seconds[XLB_FLOW_STATES] = {
	[XLB_FLOW_CLAIMED] = 2,	     [XLB_FLOW_SYN] = 60,	   [XLB_FLOW_ESTABLISHED] = 7440,
	[XLB_FLOW_FIN_CLIENT] = 240, [XLB_FLOW_FIN_BACKEND] = 240, [XLB_FLOW_CLOSED] = 60,
	[XLB_FLOW_ONEWAY] = 30,	     [XLB_FLOW_STREAM] = 300,	   [XLB_FLOW_ANSWERED] = 60,
	[XLB_FLOW_ONESIDED] = 7440,  [XLB_FLOW_CLOSING] = 240,
};

static uint32_t power_of_two(uint64_t least)
{
	uint32_t power = 1;

	while (power < least)
		power *= 2;
	return power;
}

static int size_choose(const char *what, uint32_t wanted, uint32_t otherwise, uint32_t least,
		       uint32_t most, uint32_t *ret_size, struct error *err)
{
	if (!wanted)
		wanted = otherwise;
	if (wanted < least || wanted > most)
		return error_set(err, ERANGE, "%s: %u is out of range (%u..%u)", what, wanted,
				 least, most);
	*ret_size = wanted;
	return 0;
}

static void clock_choose(struct xlb_config *config)
{
	struct timespec tick = {};
	uint32_t shift = 0;

	/* The coarse clock moves with jiffies. */
	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	config->hz = tick.tv_nsec ? 1000000000 / tick.tv_nsec : 1;
	/* The power of two nearest to hz, so that a tick is nearest to a second. */
	while (3ull << shift < 2ull * config->hz)
		shift++;
	config->tick_shift = shift;
	for (int state = 0; state < XLB_FLOW_STATES; state++) {
		config->timeouts[state] =
			((uint64_t)timeout_seconds[state] * config->hz + (1 << shift) - 1) >> shift;
		if (XLB_FLOW_LAGGING >> state & 1)
			config->timeouts[state] += XLB_FLOW_LAG;
	}
}

static int local_ports_read(uint32_t *ret_low, uint32_t *ret_high)
{
	FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	int n;

	if (!file)
		return -errno;
	n = fscanf(file, "%u %u", ret_low, ret_high);
	fclose(file);
	return n == 2 ? 0 : -EIO;
}

/*
 * The ports that the node's own connections do not use: below their range or above, whichever is
 * more.
 */
static int ports_choose(const struct datapath_sizes *sizes, struct xlb_config *config,
			struct error *err)
{
	uint32_t low = 32768, high = 60999, least = sizes->port_min, most = sizes->port_max;

	if (!least && !most) {
		local_ports_read(&low, &high);
		if (low > NAT_PORT_LEAST && low - NAT_PORT_LEAST >= UINT16_MAX - high) {
			least = NAT_PORT_LEAST;
			most = low - 1;
		} else {
			least = high + 1;
			most = UINT16_MAX;
		}
		if (least > most || most - least + 1 < PORTS_MIN)
			return error_set(
				err, ERANGE,
				"net.ipv4.ip_local_port_range (%u to %u) leaves no %u ports for nat; narrow it, or say which ports to use",
				low, high, PORTS_MIN);
	}
	if (least < NAT_PORT_LEAST || least > most || most - least + 1 < XLB_FLOW_WAYS)
		return error_set(err, ERANGE, "nat ports %u-%u: not a range within %u-65535", least,
				 most, NAT_PORT_LEAST);
	config->port_min = least;
	config->port_max = most;
	return 0;
}

static uint32_t ring_slots_default(uint32_t backends)
{
	uint32_t slots = backends * RING_SLOTS_EACH;

	return slots > RING_SLOTS_LEAST ? slots : RING_SLOTS_LEAST;
}

static int sizes_choose(const struct datapath_sizes *sizes, struct xlb_config *config,
			struct error *err)
{
	uint32_t services = 0, backends = 0, slots = 0, flows = 0, flows6 = 0;
	int r = size_choose("services", sizes->services, SERVICES_DEFAULT, 1, SERVICES_MAX,
			    &services, err);

	if (!r)
		r = size_choose("backends", sizes->backends, BACKENDS_DEFAULT, 2, BACKENDS_MAX,
				&backends, err);
	if (!r)
		r = size_choose("flows", sizes->flows, FLOWS_DEFAULT, FLOWS_MIN, FLOWS_MAX, &flows,
				err);
	if (!r)
		r = size_choose("flows6", sizes->flows6,
				flows / FLOWS6_PART > FLOWS_MIN ? flows / FLOWS6_PART : FLOWS_MIN,
				FLOWS_MIN, FLOWS_MAX, &flows6, err);
	if (r)
		return r;
	config->services = power_of_two((uint64_t)SERVICES_SLOTS_EACH * services);
	if (config->services > SERVICES_SLOTS_MAX)
		config->services = SERVICES_SLOTS_MAX;
	/* One more, because id 0 is never used. */
	config->backends = power_of_two(backends);
	r = size_choose("ring slots", sizes->ring_slots, ring_slots_default(config->backends),
			XLB_RING_LINE, 1u << 30, &slots, err);
	if (r)
		return r;
	config->ring_slots = (slots + XLB_RING_LINE - 1) / XLB_RING_LINE * XLB_RING_LINE;
	config->flow_lines = power_of_two((2ull * flows + XLB_FLOW_WAYS - 1) / XLB_FLOW_WAYS);
	config->flow6_lines = power_of_two((2ull * flows6 + XLB_FLOW_WAYS - 1) / XLB_FLOW_WAYS);
	config->neighbours = NEIGHBOURS;
	return 0;
}

uint32_t services_asked_for(const struct xlb_config *config)
{
	if (config->services == SERVICES_SLOTS_MAX)
		return SERVICES_MAX;
	return config->services / SERVICES_SLOTS_EACH;
}

int config_make(const struct datapath_sizes *sizes, struct xlb_config *ret_config,
		struct error *err)
{
	struct xlb_config config = {
		.abi_version = XLB_ABI_VERSION,
		.seed = sizes->seed_set ? sizes->seed : SEED_DEFAULT,
	};
	int r = sizes_choose(sizes, &config, err);

	if (!r)
		r = ports_choose(sizes, &config, err);
	if (r)
		return r;
	clock_choose(&config);
	if (getrandom(config.secret, sizeof(config.secret), 0) != sizeof(config.secret))
		return error_set(err, errno, "getrandom: %s", strerror(errno));
	/* As xlb_mix() wants it. */
	config.secret[0] |= 1;
	config.secret[1] |= 1;
	*ret_config = config;
	return 0;
}

/* Whether maps that are there are what these sizes ask for; what is not asked for fits always. */
int config_agrees(const struct xlb_config *config, const struct datapath_sizes *sizes,
		  struct error *err)
{
	struct xlb_config wanted;
	const char *what = NULL;
	int r = config_make(sizes, &wanted, err);

	if (r)
		return r;
	if (sizes->services && wanted.services != config->services)
		what = "services";
	else if (sizes->backends && wanted.backends != config->backends)
		what = "backends";
	else if (sizes->ring_slots && wanted.ring_slots != config->ring_slots)
		what = "ring slots";
	else if (sizes->flows && wanted.flow_lines != config->flow_lines)
		what = "flows";
	else if (sizes->flows6 && wanted.flow6_lines != config->flow6_lines)
		what = "flows6";
	else if ((sizes->port_min || sizes->port_max) &&
		 (wanted.port_min != config->port_min || wanted.port_max != config->port_max))
		what = "nat ports";
	else if (sizes->seed_set && sizes->seed != config->seed)
		what = "seed";
	if (!what)
		return 0;
	return error_set(
		err, EEXIST,
		"%s: the maps were made with others, and sizes are fixed when maps are made; `lbctl detach --all` first",
		what);
}
