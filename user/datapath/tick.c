// SPDX-License-Identifier: GPL-2.0
/*
 * The packet path's time. Ticks come from jiffies, which user space has no view of: a program of
 * three instructions is run and returns them as the packet path would.
 *
 * A clock would do on most days. But jiffies and CLOCK_MONOTONIC part in periodic-tick kernels and
 * in time namespaces, and a wrong tick here would be read as a flow's age.
 */
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "datapath/internal.h"

#define FRAME_BYTES 64 /* nobody looks at it; the kernel wants an Ethernet header at least */

static int program_load(uint32_t shift)
{
	const struct bpf_insn program[] = {
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_jiffies64 },
		{ .code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = BPF_REG_0, .imm = shift },
		{ .code = BPF_JMP | BPF_EXIT },
	};

	return bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "xlb_tick", "GPL", program,
			     sizeof(program) / sizeof(program[0]), NULL);
}

int tick_get(struct datapath *dp, uint32_t *ret_tick, struct error *err)
{
	char frame[FRAME_BYTES] = {};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = sizeof(frame));

	if (dp->tick_fd < 0)
		dp->tick_fd = program_load(config_of(dp)->tick_shift);
	if (dp->tick_fd < 0 || bpf_prog_test_run_opts(dp->tick_fd, &run))
		return error_set(err, errno, "asking the kernel for its time: %s", strerror(errno));
	*ret_tick = run.retval | 1u << 31;
	return 0;
}
