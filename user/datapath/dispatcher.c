// SPDX-License-Identifier: GPL-2.0
/*
 * Dispatchers: who is in one, and ours (bpf/libxdp) in place of libxdp's own.
 *
 * Who is in one is read from where libxdp's protocol pins them. libxdp 1.3 would tell, but keeps two
 * descriptors each time that it is asked, until a process that watches for long has none left.
 *
 * libxdp reads its dispatcher from a file, in a folder that LIBXDP_OBJECT_PATH can name: so it is
 * written to one, for as long as libxdp may look for it. Who has set that variable has decided
 * otherwise. Where no file can be written, libxdp takes its own.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "datapath/internal.h"

#include "xdp-dispatcher.skel.h"

#define VARIABLE "LIBXDP_OBJECT_PATH"
#define FILE_NAME "xdp-dispatcher.o"

static void close_folder(DIR **folder)
{
	if (*folder)
		closedir(*folder);
}

/* The id of a pinned program; 0: it is none. */
static uint32_t pinned_id(const char *path)
{
	_cleanup_(close_fd) int fd = bpf_obj_get(path);
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	return fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

uint32_t dispatcher_member(const struct datapath *dp, uint32_t ifindex, uint32_t dispatcher_id)
{
	const char *bpffs = secure_getenv("LIBXDP_BPFFS");
	_cleanup_(close_folder) DIR *folder = NULL;
	const struct dirent *entry;
	char path[PATH_MAX];
	int length;

	length = snprintf(path, sizeof(path), "%s/xdp/dispatch-%u-%u/",
			  bpffs ? bpffs : "/sys/fs/bpf", ifindex, dispatcher_id);
	folder = opendir(path);
	while (folder && (entry = readdir(folder))) {
		uint32_t id;

		if (!strstr(entry->d_name, "-prog"))
			continue;
		snprintf(path + length, sizeof(path) - length, "%s", entry->d_name);
		id = pinned_id(path);
		if (id && program_ours(dp, id))
			return id;
	}
	return 0;
}

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
