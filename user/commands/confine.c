// SPDX-License-Identifier: GPL-2.0
/*
 * A watch runs for months with an open connection, and parses what comes over it. So when all is
 * read that needs more, it keeps three capabilities: CAP_BPF (maps, and a program that tells the
 * tick), CAP_NET_ADMIN (tc on devices of backends), CAP_PERFMON (on kernels that ask for it where
 * values come from pointers). The bounding set is emptied, so that an exec plugin of root has none.
 *
 * CAP_SYS_ADMIN goes as well, and with it looking up programs by id: tc.c and attach.c know what is
 * ours by what is pinned.
 */
#include "commands/confine.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cap-ng.h>

static const unsigned int kept[] = { CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON };

static int drop_capabilities(struct error *err)
{
	capng_select_t sets = CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT;
	bool keep[sizeof(kept) / sizeof(*kept)];

	if (capng_get_caps_process())
		return error_set(err, EIO, "the capabilities of this process cannot be read");
	/* Who started without CAP_SETPCAP was given a bounding set already, or is not root. */
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP))
		sets |= CAPNG_SELECT_BOUNDS;
	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
		keep[i] = capng_have_capability(CAPNG_PERMITTED, kept[i]);
	capng_clear(CAPNG_SELECT_ALL);
	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
		if (keep[i])
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, kept[i]);
	if (capng_apply(sets))
		return error_set(err, EPERM, "capabilities cannot be dropped: %s", strerror(errno));
	return 0;
}

int confine(bool plugins, struct error *err)
{
	/* Before Linux 5.11 what BPF needs counts as locked, and a limit is raised by root only. */
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	int r;

	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	r = drop_capabilities(err);
	if (r)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_set(err, errno, "no_new_privs: %s", strerror(errno));
	return syscall_filter_load(plugins, err);
}
