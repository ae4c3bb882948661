// SPDX-License-Identifier: GPL-2.0
/*
 * Our XDP program on a device: looking, putting it there, taking it away.
 *
 * Through libxdp's dispatcher where the kernel allows that, so that other programs can stay; else
 * PIN_DIR/xdp itself, alone. Never in place of a program that is not ours.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <xdp/libxdp.h>

#include "datapath/internal.h"

#define JUMBO_MTU 2048	/* longer packets may take more than one page */
#define DISPATCHER_NAME "xdp_dispatcher"

static void multiprog_close(struct xdp_multiprog **multiprog)
{
	if (!libxdp_get_error(*multiprog))
		xdp_multiprog__close(*multiprog);
}

static void object_close(struct bpf_object **object)
{
	bpf_object__close(*object);
}

static void program_close(struct xdp_program **program)
{
	if (!libxdp_get_error(*program))
		xdp_program__close(*program);
}

static uint32_t flags_of(bool native)
{
	return native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
}

static enum xdp_attach_mode libxdp_mode(bool native)
{
	return native ? XDP_MODE_NATIVE : XDP_MODE_SKB;
}

/* ---- looking ---- */

/* A program among a dispatcher's; NULL: it is not there. It belongs to multiprog. */
static struct xdp_program *multiprog_find(struct xdp_multiprog *multiprog, uint32_t id)
{
	struct xdp_program *program = NULL;

	while ((program = xdp_multiprog__next_prog(program, multiprog)))
		if (xdp_program__id(program) == id)
			return program;
	return NULL;
}

/*
 * What is not ours may be a dispatcher that ours is in. Who has no CAP_SYS_ADMIN is not told the
 * name of what is attached, but the pins of a dispatcher are under its id. What has none is ours, or
 * somebody else's: that cannot be told then.
 */
static int dispatcher_look(struct datapath *dp, uint32_t ifindex, struct xdp_state *state)
{
	bool named = !strcmp(state->name, DISPATCHER_NAME);
	struct chain_member chain[CHAIN_MAX];
	uint32_t ours;

	if (!named && state->described)
		return 0;
	if (!named && (!dispatcher_readable() ||
		       !dispatcher_chain(dp, ifindex, state->program_id, chain)))
		return -EACCES;
	ours = dispatcher_member(dp, ifindex, state->program_id);
	state->owner = ours ? XDP_OURS : XDP_DISPATCHER;
	state->dispatcher = ours;
	state->program_id = ours ? ours : state->program_id;
	return 0;
}

int xdp_look(struct datapath *dp, uint32_t ifindex, struct xdp_state *ret_state)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	struct xdp_state state = {};
	int r, ours;

	log_begin();
	r = bpf_xdp_query(ifindex, 0, &query);
	if (r)
		return r;
	state.native = query.drv_prog_id;
	state.program_id = query.drv_prog_id ? query.drv_prog_id :
			   query.skb_prog_id ? query.skb_prog_id :
					       query.prog_id;
	state.attached_id = state.program_id;
	ours = state.program_id ? program_ours(dp, state.program_id) : 0;
	if (!state.program_id) {
		state.owner = XDP_NOBODY;
	} else if (ours > 0) {
		state.owner = XDP_OURS;
	} else {
		struct chain_member program = {};

		state.described = program_describe(dp, state.program_id, &program);
		memcpy(state.name, program.name, sizeof(state.name));
		state.owner = XDP_FOREIGN;
	}
	if (state.owner == XDP_FOREIGN) {
		r = dispatcher_look(dp, ifindex, &state);
		if (r)
			return r;
	}
	*ret_state = state;
	return 0;
}

/* libxdp pins programs by device, and with ours the maps, also when the device is no more. */
void xdp_forget(uint32_t ifindex)
{
	log_begin();
	libxdp_clean_references(ifindex);
}

/* ---- attaching ---- */

/*
 * Whether frames of the device may take more than one page, which drivers then give to programs
 * that know of it only. To others they would not hand larger packets that the kernel put together
 * (GSO), which XDP cannot forward.
 */
static bool device_is_jumbo(struct datapath *dp, uint32_t ifindex)
{
	return netlink_link(dp, ifindex).mtu > JUMBO_MTU;
}

/*
 * Through libxdp. Where the kernel refuses its dispatcher, libxdp attaches the program alone, and
 * says nothing of it.
 */
static int attach_dispatcher(struct datapath *dp, uint32_t ifindex, bool native,
			     unsigned int priority, struct error *err)
{
	_cleanup_(object_close) struct bpf_object *object = NULL;
	_cleanup_(program_close) struct xdp_program *program = NULL;
	_cleanup_(dispatcher_withdraw) struct dispatcher_folder folder = {};
	DECLARE_LIBXDP_OPTS(xdp_program_opts, options, .prog_name = "xlb");
	int r = load_for_dispatcher(dp, device_is_jumbo(dp, ifindex), &object, err);

	if (r)
		return r;
	options.obj = object;
	program = xdp_program__create(&options);
	r = libxdp_get_error(program);
	if (r)
		return error_set(err, -r, "libxdp: %s", strerror(-r));
	if (priority)
		xdp_program__set_run_prio(program, priority);
	dispatcher_offer(&folder);
	return xdp_program__attach(program, ifindex, libxdp_mode(native), 0);
}

/*
 * Whether alone on a device it is not PIN_DIR/xdp, but the same program with another flag: pinned is
 * what devices with frames of one page take, and they take no other on old kernels.
 */
static bool wants_frags(struct datapath *dp, uint32_t ifindex, bool native)
{
	return native && device_is_jumbo(dp, ifindex) && kernel_takes_frags();
}

static int frags_load(struct datapath *dp, struct bpf_object **ret_object, struct error *err)
{
	_cleanup_(object_close) struct bpf_object *object = NULL;
	int r = load_for_dispatcher(dp, true, &object, err);

	if (!r)
		r = bpf_object__load(object);
	if (!r)
		*ret_object = steal_pointer(&object);
	return r;
}

/* PIN_DIR/xdp, or the same for large frames, alone: where nobody is, or in place of an old one. */
static int attach_alone(struct datapath *dp, uint32_t ifindex, bool native, uint32_t copy,
			struct error *err)
{
	_cleanup_(object_close) struct bpf_object *object = NULL;
	_cleanup_(close_fd) int pinned = program_open(dp, "xdp", NULL);
	_cleanup_(close_fd) int old = copy ? bpf_prog_get_fd_by_id(copy) : -1;
	LIBBPF_OPTS(bpf_xdp_attach_opts, options, .old_prog_fd = old);
	bool frags = wants_frags(dp, ifindex, native);
	int r = frags ? frags_load(dp, &object, err) : 0, fd = pinned;

	if (r)
		return r;
	if (frags)
		fd = bpf_program__fd(bpf_object__find_program_by_name(object, "xlb"));
	if (fd < 0)
		return fd;
	if (!copy)
		return bpf_xdp_attach(ifindex, fd, flags_of(native) | XDP_FLAGS_UPDATE_IF_NOEXIST,
				      NULL);
	return bpf_xdp_attach(ifindex, fd, flags_of(native) | XDP_FLAGS_REPLACE, &options);
}

int xdp_put(struct datapath *dp, uint32_t ifindex, bool native, unsigned int priority, bool alone,
	    struct error *err)
{
	struct xdp_state state = {};
	int r;

	log_begin();
	r = attach_dispatcher(dp, ifindex, native, priority, err);
	if (r && alone && r != -EBUSY && r != -EEXIST)
		r = attach_alone(dp, ifindex, native, 0, err);
	if (r)
		return r;
	r = xdp_look(dp, ifindex, &state);
	/* libxdp's copy does the same work; but that the pinned one runs, everybody can tell. */
	if (!r && state.owner == XDP_OURS && !state.dispatcher && !wants_frags(dp, ifindex, native))
		attach_alone(dp, ifindex, native, state.program_id, err);
	return r;
}

/* ---- taking away, and replacing ---- */

/* Takes a program out of a dispatcher; the others stay. */
static int detach_member(uint32_t ifindex, uint32_t id)
{
	_cleanup_(multiprog_close) struct xdp_multiprog *multiprog = NULL;
	_cleanup_(dispatcher_withdraw) struct dispatcher_folder folder = {};
	struct xdp_program *program;

	multiprog = xdp_multiprog__get_from_ifindex(ifindex);
	if (libxdp_get_error(multiprog))
		return libxdp_get_error(multiprog);
	program = multiprog_find(multiprog, id);
	if (!program)
		return -ENOENT;
	dispatcher_offer(&folder);
	return xdp_program__detach(program, ifindex, xdp_multiprog__attach_mode(multiprog), 0);
}

int xdp_take(uint32_t ifindex, const struct xdp_state *state)
{
	_cleanup_(close_fd) int old = -1;
	LIBBPF_OPTS(bpf_xdp_attach_opts, options);

	if (state->dispatcher)
		return detach_member(ifindex, state->program_id);
	old = bpf_prog_get_fd_by_id(state->program_id);
	options.old_prog_fd = old;
	return bpf_xdp_detach(ifindex, flags_of(state->native) | XDP_FLAGS_REPLACE, &options);
}

const char *xdp_last_words(void)
{
	const char *tail = log_tail(200), *line = strrchr(tail, '\n');

	return line ? line + 1 : tail;
}

int xdp_replace(struct datapath *dp, uint32_t ifindex, const struct xdp_state *state,
		const struct chain_member *old, bool fresh, struct error *err)
{
	int r = 0;

	log_begin();
	if (!state->dispatcher) {
		r = attach_alone(dp, ifindex, state->native, old->id, err);
	} else {
		if (fresh)
			r = attach_dispatcher(dp, ifindex, state->native, old->priority, err);
		if (!r)
			r = detach_member(ifindex, old->id);
	}
	return r ? error_set(err, -r, "device %u: cannot replace program %u: %s (%s)", ifindex,
			     old->id, strerror(-r), xdp_last_words()) :
		   0;
}
