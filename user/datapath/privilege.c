// SPDX-License-Identifier: GPL-2.0
/*
 * Which right is missing, in one line: before anything is tried, from the capabilities of this
 * process; and after the kernel said no although all are there, from what else may forbid it.
 * Documentation/rights.md has the same for every verb, and why.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <linux/capability.h>

#include "datapath/internal.h"

struct need {
	int capability;
	const char *name;
	bool of_admin;	/* CAP_SYS_ADMIN includes it */
	bool attaching;	/* for attach and detach only */
};

static const struct need needs[] = {
	{ CAP_BPF, "CAP_BPF", true, false },
	{ CAP_PERFMON, "CAP_PERFMON", true, false },
	{ CAP_NET_ADMIN, "CAP_NET_ADMIN", false, false },
	{ CAP_SYS_ADMIN, "CAP_SYS_ADMIN", true, true },
};

static int capabilities_read(unsigned long long *ret_effective)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[256];
	int r = -EIO;

	if (!status)
		return -errno;
	while (r && fgets(line, sizeof(line), status))
		if (sscanf(line, "CapEff: %llx", ret_effective) == 1)
			r = 0;
	fclose(status);
	return r;
}

int privilege_check(bool attaching, struct error *err)
{
	unsigned long long effective;
	char missing[128] = "";

	/* Without /proc the kernel will say no itself. */
	if (capabilities_read(&effective))
		return 0;
	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		size_t length = strlen(missing);

		if ((needs[i].attaching && !attaching) || effective >> needs[i].capability & 1 ||
		    (needs[i].of_admin && effective >> CAP_SYS_ADMIN & 1))
			continue;
		snprintf(missing + length, sizeof(missing) - length, "%s%s", length ? ", " : "",
			 needs[i].name);
	}
	if (!*missing)
		return 0;
	return error_set(err, EPERM, "not permitted: needs %s (run it as root)", missing);
}

/* The first line of a file; "" if there is none. */
static void line_read(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");

	if (!file || !fgets(line, size, file))
		*line = '\0';
	if (file)
		fclose(file);
}

/* The first user namespace maps all users to themselves. */
static bool in_user_namespace(void)
{
	unsigned long inside, outside, count;
	char line[128];

	line_read("/proc/self/uid_map", line, sizeof(line));
	return sscanf(line, "%lu %lu %lu", &inside, &outside, &count) == 3 &&
	       (inside || outside || count != UINT32_MAX);
}

/* Before 5.11 maps and programs count as locked memory; libbpf has raised the limit if it may. */
static bool memory_limited(void)
{
	struct rlimit limit;

	return kernel_before(5, 11) && !getrlimit(RLIMIT_MEMLOCK, &limit) &&
	       limit.rlim_cur != RLIM_INFINITY;
}

const char *privilege_denial(bool loading)
{
	char line[128];

	if (in_user_namespace())
		return "in a user namespace, whose capabilities do not count for BPF and devices outside of it";
	if (loading && memory_limited())
		return "before Linux 5.11 they and their maps count as locked memory: add CAP_SYS_RESOURCE, or `ulimit -l unlimited`";
	line_read("/proc/sys/kernel/unprivileged_bpf_disabled", line, sizeof(line));
	if (*line > '0' && privilege_check(false, NULL))
		return "kernel.unprivileged_bpf_disabled is set, and CAP_BPF is missing";
	line_read("/sys/kernel/security/lockdown", line, sizeof(line));
	if (strstr(line, "[confidentiality]"))
		return "the kernel is locked down (confidentiality), which forbids BPF to read its memory";
	return NULL;
}

int error_denied(struct error *err, int code, const char *what)
{
	const char *reason = code == EPERM ? privilege_denial(false) : NULL;

	return error_set(err, code, "%s: %s%s%s%s", what, strerror(code), reason ? " (" : "",
			 reason ? reason : "", reason ? ")" : "");
}
