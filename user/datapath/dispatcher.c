// SPDX-License-Identifier: GPL-2.0
/*
 * Our dispatcher (bpf/libxdp) in place of libxdp's own.
 *
 * libxdp reads its dispatcher from a file, in a folder that LIBXDP_OBJECT_PATH can name: so it is
 * written to one, for as long as libxdp may look for it. Who has set that variable has decided
 * otherwise. Where no file can be written, libxdp takes its own.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datapath/internal.h"

#include "xdp-dispatcher.skel.h"

#define VARIABLE "LIBXDP_OBJECT_PATH"
#define FILE_NAME "xdp-dispatcher.o"

static void file_name(const struct dispatcher_folder *folder, char path[64])
{
	snprintf(path, 64, "%s/%s", folder->path, FILE_NAME);
}

static bool folder_make(struct dispatcher_folder *folder)
{
	static const char *const places[] = { "/run", "/tmp" };

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(folder->path, sizeof(folder->path), "%s/lbctl.XXXXXX", places[i]);
		if (mkdtemp(folder->path))
			return true;
	}
	folder->path[0] = '\0';
	return false;
}

static bool file_write(const struct dispatcher_folder *folder)
{
	_cleanup_(close_fd) int fd = -1;
	const void *object;
	char path[64];
	size_t size;

	file_name(folder, path);
	object = xdp_dispatcher__elf_bytes(&size);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd >= 0 && write(fd, object, size) == (ssize_t)size;
}

void dispatcher_offer(struct dispatcher_folder *ret_folder)
{
	struct dispatcher_folder folder = {};

	if (getenv(VARIABLE) || !folder_make(&folder))
		return;
	if (!file_write(&folder) || setenv(VARIABLE, folder.path, 0))
		dispatcher_withdraw(&folder);
	*ret_folder = folder;
}

void dispatcher_withdraw(struct dispatcher_folder *folder)
{
	char path[64];

	if (!*folder->path)
		return;
	unsetenv(VARIABLE);
	file_name(folder, path);
	unlink(path);
	rmdir(folder->path);
	folder->path[0] = '\0';
}
