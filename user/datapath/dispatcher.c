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
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <xdp/prog_dispatcher.h>

#include "datapath/internal.h"

#include "xdp-dispatcher.skel.h"

#define VARIABLE "LIBXDP_OBJECT_PATH"
#define FILE_NAME "xdp-dispatcher.o"

/* Bytes of a program's tag as text. */
static void tag_format(const __u8 tag[BPF_TAG_SIZE], char text[2 * BPF_TAG_SIZE + 1])
{
	for (size_t i = 0; i < BPF_TAG_SIZE; i++)
		sprintf(text + 2 * i, "%02x", tag[i]);
}

static bool describe(const struct datapath *dp, int fd, struct chain_member *ret_member)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size))
		return false;
	*ret_member = (struct chain_member){ .id = info.id, .ours = program_fd_ours(dp, fd) };
	snprintf(ret_member->name, sizeof(ret_member->name), "%s", info.name);
	tag_format(info.tag, ret_member->tag);
	return true;
}

bool program_describe(const struct datapath *dp, uint32_t id, struct chain_member *ret_member)
{
	_cleanup_(close_fd) int fd = bpf_prog_get_fd_by_id(id);

	return describe(dp, fd, ret_member);
}

/* What a dispatcher was made with: the constants of the program, in its one map. */
static bool dispatcher_config(uint32_t id, struct xdp_dispatcher_config *ret_config)
{
	_cleanup_(close_fd) int fd = bpf_prog_get_fd_by_id(id);
	_cleanup_(close_fd) int map = -1;
	uint32_t map_id = 0, zero = 0;
	struct bpf_prog_info program = { .nr_map_ids = 1, .map_ids = (uintptr_t)&map_id };
	struct xdp_dispatcher_config config;
	uint32_t size = sizeof(program);
	struct bpf_map_info info = {};

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &program, &size))
		return false;
	map = map_id ? bpf_map_get_fd_by_id(map_id) : -1;
	size = sizeof(info);
	if (map < 0 || bpf_obj_get_info_by_fd(map, &info, &size) ||
	    info.value_size != sizeof(config) || bpf_map_lookup_elem(map, &zero, &config))
		return false;
	if (config.magic != XDP_DISPATCHER_MAGIC ||
	    config.dispatcher_version != XDP_DISPATCHER_VERSION)
		return false;
	*ret_config = config;
	return true;
}

size_t dispatcher_chain(const struct datapath *dp, uint32_t ifindex, uint32_t dispatcher_id,
			struct chain_member ret_chain[CHAIN_MAX])
{
	const char *bpffs = secure_getenv("LIBXDP_BPFFS");
	struct xdp_dispatcher_config config = {};
	size_t n = 0;

	_Static_assert(CHAIN_MAX == MAX_DISPATCHER_ACTIONS, "room for all");
	dispatcher_config(dispatcher_id, &config);
	for (unsigned int i = 0; i < CHAIN_MAX; i++) {
		_cleanup_(close_fd) int fd = -1;
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/xdp/dispatch-%u-%u/prog%u-prog",
			 bpffs ? bpffs : "/sys/fs/bpf", ifindex, dispatcher_id, i);
		fd = bpf_obj_get(path);
		if (!describe(dp, fd, &ret_chain[n]))
			continue;
		ret_chain[n++].priority = config.run_prios[i];
	}
	return n;
}

bool dispatcher_readable(void)
{
	const char *bpffs = secure_getenv("LIBXDP_BPFFS");
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/xdp", bpffs ? bpffs : "/sys/fs/bpf");
	return !faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) || errno == ENOENT;
}

uint32_t dispatcher_member(const struct datapath *dp, uint32_t ifindex, uint32_t dispatcher_id)
{
	struct chain_member chain[CHAIN_MAX];
	size_t n = dispatcher_chain(dp, ifindex, dispatcher_id, chain);

	for (size_t i = 0; i < n; i++)
		if (chain[i].ours)
			return chain[i].id;
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
