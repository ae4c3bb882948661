// SPDX-License-Identifier: GPL-2.0
/*
 * The program that lets several XDP programs share a device, as libxdp's protocol for dispatchers
 * (version 2) describes it: ten functions, called in turn, which the kernel replaces by programs.
 *
 * Since Linux 6.13, and 6.12 as Debian has it, a program that may change the packet can replace
 * only a function that may do so as well. Those of libxdp before 1.5 may not, so that its
 * dispatcher takes no load balancer there; these may. lbctl hands this one to libxdp in place of
 * libxdp's own. All that is read of it, by any libxdp, is the same: `conf`, the functions' names
 * and the version.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <xdp/prog_dispatcher.h>

static const volatile struct xdp_dispatcher_config conf = {};

/*
 * A function that nothing has replaced: RETVAL is in every program's actions to go on after. The
 * call changes nothing, and says to the verifier that the packet may be another one afterwards.
 */
#define SLOT(name)                                              \
	__attribute__((noinline)) int name(struct xdp_md *ctx)  \
	{                                                       \
		volatile int verdict = XDP_DISPATCHER_RETVAL;   \
								\
		if (!ctx)                                       \
			return XDP_ABORTED;                     \
		bpf_xdp_adjust_tail(ctx, 0);                    \
		return verdict;                                 \
	}

SLOT(prog0)
SLOT(prog1)
SLOT(prog2)
SLOT(prog3)
SLOT(prog4)
SLOT(prog5)
SLOT(prog6)
SLOT(prog7)
SLOT(prog8)
SLOT(prog9)

/* libxdp tries on this one whether the kernel can replace functions at all. */
SLOT(compat_test)

/* Goes on to the next slot, if there is one and the program in this one lets packets go on. */
#define RUN(number)                                                    \
	if (enabled <= (number))                                       \
		return XDP_PASS;                                       \
	verdict = prog##number(ctx);                                   \
	if (!((1U << verdict) & conf.chain_call_actions[(number)]))    \
		return verdict;

SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
	__u8 enabled = conf.num_progs_enabled;
	int verdict;

	RUN(0)
	RUN(1)
	RUN(2)
	RUN(3)
	RUN(4)
	RUN(5)
	RUN(6)
	RUN(7)
	RUN(8)
	RUN(9)
	/* Never reached: it keeps the function in the program. */
	if (enabled > MAX_DISPATCHER_ACTIONS)
		compat_test(ctx);
	return XDP_PASS;
}

/* What libxdp puts into compat_test. */
SEC("xdp")
int xdp_pass(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
__uint(dispatcher_version, XDP_DISPATCHER_VERSION) SEC(XDP_METADATA_SECTION);
