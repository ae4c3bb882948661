// SPDX-License-Identifier: GPL-2.0
/*
 * What the running kernel lacks, and what that costs: found out by trying, as load.c does when it
 * chooses another way. Documentation/kernels.md has the same as a table.
 */
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include "datapath/internal.h"

static bool has_helper(enum bpf_func_id helper)
{
	return libbpf_probe_bpf_helper(BPF_PROG_TYPE_XDP, helper, NULL) == 1;
}

bool kernel_has_fib_mtu(void)
{
	return has_helper(BPF_FUNC_check_mtu);
}

bool kernel_has_buff_len(void)
{
	return has_helper(BPF_FUNC_xdp_get_buff_len);
}

bool kernel_has_mirror(void)
{
	return has_helper(BPF_FUNC_map_lookup_percpu_elem);
}

bool kernel_has_tracing(void)
{
	return libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_TRACING, NULL) == 1;
}

static bool knows_type(const char *name, uint32_t kind)
{
	struct btf *types = btf__load_vmlinux_btf();
	bool knows = types && btf__find_by_name_kind(types, name, kind) > 0;

	btf__free(types);
	return knows;
}

/*
 * Frames in several buffers came with 5.18, but XDP_REDIRECT dropped them until drivers could say
 * whether they take them, by the type that is looked for here.
 */
bool kernel_redirects_frags(void)
{
	return knows_type("netdev_xdp_act", BTF_KIND_ENUM);
}

/* A bond hands the verdict of its program to the port that the packet came by, with this function. */
static bool has_bond_native(void)
{
	return knows_type("xdp_master_redirect", BTF_KIND_FUNC);
}

bool kernel_takes_frags(void)
{
	return kernel_has_buff_len() && kernel_redirects_frags();
}

static int trial_load(void)
{
	const struct bpf_insn program[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_EXIT },
	};

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "xlb_probe", "GPL", program,
			     sizeof(program) / sizeof(*program), NULL);
}

/* Whether programs may be tried at all: if not, everything would seem to be missing. */
static bool may_try(void)
{
	_cleanup_(close_fd) int fd = trial_load();

	return fd >= 0;
}

/* As trace.c runs the packet. */
static bool has_test_device(void)
{
	_cleanup_(close_fd) int fd = trial_load();
	char frame[64] = {};
	struct xdp_md context = { .data_end = sizeof(frame), .ingress_ifindex = XLB_LOOPBACK_IFINDEX };
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = sizeof(frame),
		    .ctx_in = &context, .ctx_size_in = sizeof(context));

	return fd >= 0 && !bpf_prog_test_run_opts(fd, &run);
}

static const struct {
	bool (*has)(void);
	struct kernel_lack lack;
} features[] = {
	{ kernel_has_atomics,
	  { "atomic exchange", "5.12",
	    "where flows begin and change, CPUs take turns at one lock" } },
	{ kernel_has_fib_mtu,
	  { "bpf_check_mtu", "5.12",
	    "device MTU is used; a smaller one of a route is learned from ICMP only" } },
	{ has_test_device, { "test runs with a device", "5.15", "lbctl trace does not work" } },
	{ has_bond_native,
	  { "native XDP on bonds", "5.15", "--mode auto takes generic mode there, which is slower" } },
	{ kernel_has_mirror,
	  { "bpf_map_lookup_percpu_elem", "5.19",
	    "the counters for bpftool cost every packet to a backend a look-up" } },
	{ kernel_redirects_frags,
	  { "XDP_REDIRECT of frames in several buffers", "6.3",
	    "devices with an MTU above a page take generic mode" } },
};

/* Attached natively or not: libxdp would have made us one of a dispatcher's programs if it could. */
static bool attached_alone(struct datapath *dp)
{
	for (size_t i = 0; i < dp->n_devices; i++) {
		struct xdp_state xdp;

		if (dp->devices[i].entry.flags & XLB_DEVICE_XDP &&
		    !xdp_look(dp, dp->devices[i].ifindex, &xdp) && xdp.owner == XDP_OURS &&
		    !xdp.dispatcher)
			return true;
	}
	return false;
}

size_t datapath_kernel_lacks(struct datapath *dp, struct kernel_lack ret_lacks[KERNEL_LACKS_MAX])
{
	size_t n = 0;

	_Static_assert(sizeof(features) / sizeof(*features) < KERNEL_LACKS_MAX, "room for all");
	if (!may_try())
		return 0;
	for (size_t i = 0; i < sizeof(features) / sizeof(*features); i++)
		if (!features[i].has())
			ret_lacks[n++] = features[i].lack;
	if (attached_alone(dp))
		ret_lacks[n++] = (struct kernel_lack){
			"libxdp dispatcher", NULL,
			"attached alone; other XDP programs cannot share the device"
		};
	return n;
}
