// SPDX-License-Identifier: GPL-2.0
/*
 * Who besides root may look: a group, in the modes of what is pinned and nowhere else. Whether a pin
 * may be opened for reading, or for writing too, is all that the kernel asks of them.
 *
 * Pins that come later get the same by datapath_share_keep(), which attach calls when it has made or
 * replaced some.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datapath/internal.h"

enum { OPEN_DIR = 0750, OPEN_PIN = 0640, CLOSED_DIR = 0700, CLOSED_PIN = 0600 };

static int pin_share(const struct datapath *dp, int dir, const char *name, gid_t gid, mode_t mode,
		     struct error *err)
{
	if (!fchownat(dir, name, -1, gid, 0) && !fchmodat(dir, name, mode, 0))
		return 0;
	return error_set(err, errno, "%s/%s: giving it to group %u: %s", dp->pin_dir, name, gid,
			 strerror(errno));
}

int datapath_share(struct datapath *dp, gid_t gid, struct error *err)
{
	DIR *dir = opendir(dp->pin_dir);
	const struct dirent *entry;
	int r = 0;

	if (!dir)
		return error_set(err, errno, "%s: %s", dp->pin_dir, strerror(errno));
	while (!r && (entry = readdir(dir)))
		if (*entry->d_name != '.')
			r = pin_share(dp, dirfd(dir), entry->d_name, gid,
				      gid ? OPEN_PIN : CLOSED_PIN, err);
	/* The directory last: whoever may enter finds all of it as it is to be. */
	if (!r)
		r = pin_share(dp, dirfd(dir), ".", gid, gid ? OPEN_DIR : CLOSED_DIR, err);
	closedir(dir);
	return r;
}

bool datapath_shared(const struct datapath *dp, gid_t *ret_gid)
{
	struct stat dir;

	if (fstat(dp->dir_fd, &dir) || !(dir.st_mode & 0070))
		return false;
	*ret_gid = dir.st_gid;
	return true;
}

int datapath_share_keep(struct datapath *dp, struct error *err)
{
	gid_t gid;

	return datapath_shared(dp, &gid) && gid ? datapath_share(dp, gid, err) : 0;
}

/* Whether those who may look can get there: bpffs itself is root's alone on many systems. */
bool datapath_share_hidden(const struct datapath *dp, gid_t gid, char ret_where[PATH_MAX])
{
	char path[PATH_MAX];
	struct stat dir;

	snprintf(path, sizeof(path), "%s", dp->pin_dir);
	for (char *up = dirname(path); up[1]; up = dirname(up)) {
		if (stat(up, &dir) || dir.st_mode & 0001 ||
		    (dir.st_gid == gid && dir.st_mode & 0010))
			continue;
		memmove(ret_where, up, strlen(up) + 1);
		return true;
	}
	return false;
}

bool pins_readable_only(const char *pin_dir)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/config", pin_dir);
	return !faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) &&
	       faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) && errno == EACCES;
}
