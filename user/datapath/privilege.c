// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/capability.h>

#include "datapath/internal.h"

struct need {
	int capability;
	const char *name;
	bool of_admin; /* CAP_SYS_ADMIN includes it */
};

static const struct need needs[] = {
	{ CAP_BPF, "CAP_BPF", true },
	{ CAP_PERFMON, "CAP_PERFMON", true },
	{ CAP_NET_ADMIN, "CAP_NET_ADMIN", false },
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

int privilege_check(struct error *err)
{
	unsigned long long effective;
	char missing[128] = "";

	/* Without /proc the kernel will say no itself. */
	if (capabilities_read(&effective))
		return 0;
	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		size_t length = strlen(missing);

		if (effective >> needs[i].capability & 1 ||
		    (needs[i].of_admin && effective >> CAP_SYS_ADMIN & 1))
			continue;
		snprintf(missing + length, sizeof(missing) - length, "%s%s", length ? ", " : "",
			 needs[i].name);
	}
	if (!*missing)
		return 0;
	return error_set(err, EPERM, "not permitted: needs %s (run it as root)", missing);
}
