// SPDX-License-Identifier: GPL-2.0
/* Opening, making, locking and removing a pin directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <bpf/libbpf.h>
#include <linux/magic.h>

#include "datapath/internal.h"

#define BPFFS "/sys/fs/bpf"
#define WAIT_BEFORE_WORDS_MS 1000
#define WAIT_STEP_MS 10

static void datapath_close_pointer(struct datapath **dp)
{
	datapath_close(*dp);
}

static struct datapath *datapath_new(const char *pin_dir, struct error *err)
{
	struct datapath *dp = calloc(1, sizeof(*dp));

	if (!dp) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	dp->dir_fd = -1;
	dp->tick_fd = -1;
	for (int id = 0; id < MAPS; id++)
		dp->maps[id].fd = -1;
	dp->cpus = libbpf_num_possible_cpus();
	snprintf(dp->pin_dir, sizeof(dp->pin_dir), "%s", pin_dir);
	return dp;
}

void datapath_close(struct datapath *dp)
{
	if (!dp)
		return;
	state_free(dp);
	devices_free(dp);
	paths_forget(dp);
	netlink_close(dp);
	maps_close(dp);
	close_fd(&dp->dir_fd);
	close_fd(&dp->tick_fd);
	free(dp);
}

static int nothing_there(const char *pin_dir, struct error *err)
{
	return error_set(err, ENOENT, "%s: nothing there; run `lbctl attach DEV` first", pin_dir);
}

int datapath_open(const char *pin_dir, struct datapath **ret_dp, struct error *err)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	bool read_only = pins_readable_only(pin_dir);
	int r = read_only ? 0 : privilege_check(false, err);

	if (r)
		return r;
	if (strlen(pin_dir) >= PATH_MAX - 32)
		return error_set(err, ENAMETOOLONG, "%.64s...: path too long", pin_dir);
	dp = datapath_new(pin_dir, err);
	if (!dp)
		return -ENOMEM;
	dp->read_only = read_only;
	dp->dir_fd = open(pin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dp->dir_fd < 0 && errno == ENOENT)
		return nothing_there(pin_dir, err);
	if (dp->dir_fd < 0)
		return error_set(err, errno, "%s: %s", pin_dir, strerror(errno));
	log_begin();
	r = maps_open(dp, err);
	if (!r)
		r = state_load(dp, err);
	if (r)
		return r;
	*ret_dp = steal_pointer(&dp);
	return 0;
}

/* ---- making ---- */

/* A directory of pins, and all that is in it. */
static void dir_remove(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
	rmdir(path);
}

static bool is_bpffs(const char *path)
{
	struct statfs fs;

	return !statfs(path, &fs) && (uint32_t)fs.f_type == BPF_FS_MAGIC;
}

/* Makes sure that the parent of pin_dir is on a BPF file system. */
static int bpffs_ensure(const char *parent, struct error *err)
{
	size_t length = strlen(BPFFS);
	bool usual = !strncmp(parent, BPFFS, length) && (!parent[length] || parent[length] == '/');

	if (usual && !is_bpffs(BPFFS) &&
	    mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700"))
		return error_denied(err, errno, "mounting a BPF file system on " BPFFS);
	if (is_bpffs(parent))
		return 0;
	if (access(parent, F_OK))
		return error_set(err, errno, "%s: %s", parent, strerror(errno));
	return error_set(err, EINVAL, "%s: not on a BPF file system (mount -t bpf bpf DIR)",
			 parent);
}

static int parent_of(const char *path, char parent[PATH_MAX], struct error *err)
{
	size_t length = strlen(path);
	char *slash;

	memcpy(parent, path, length + 1);
	slash = strrchr(parent, '/');
	if (!slash || !slash[1] || slash == parent)
		return error_set(err, EINVAL, "%s: not a directory on a BPF file system", path);
	*slash = '\0';
	return 0;
}

/* Trailing slashes would end up in the middle of "-new". */
static int pin_dir_normal(const char *pin_dir, char normal[PATH_MAX], struct error *err)
{
	size_t length = strlen(pin_dir);

	while (length > 1 && pin_dir[length - 1] == '/')
		length--;
	if (length >= PATH_MAX - 32)
		return error_set(err, ENAMETOOLONG, "%.64s...: path too long", pin_dir);
	memcpy(normal, pin_dir, length);
	normal[length] = '\0';
	return 0;
}

bool datapath_can_pin(const char *pin_dir)
{
	char normal[PATH_MAX], parent[PATH_MAX];

	return !pin_dir_normal(pin_dir, normal, NULL) && !parent_of(normal, parent, NULL) &&
	       is_bpffs(parent);
}

/* One maker at a time: whoever comes later finds the directory made. */
static int parent_lock(const char *parent, int *ret_fd, struct error *err)
{
	int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_set(err, errno, "%s: %s", parent, strerror(errno));
	while (flock(fd, LOCK_EX)) {
		if (errno != EINTR) {
			int r = error_set(err, errno, "%s: %s", parent, strerror(errno));

			close(fd);
			return r;
		}
	}
	*ret_fd = fd;
	return 0;
}

static int pin_dir_make(const char *pin_dir, const struct xlb_config *config, struct error *err)
{
	char making[PATH_MAX + 8];
	int r;

	/* No dot: a BPF file system reserves names with dots. */
	snprintf(making, sizeof(making), "%s-new", pin_dir);
	/* What a maker left that died. */
	dir_remove(making);
	if (mkdir(making, 0700)) {
		const char *last = strrchr(pin_dir, '/');

		if (errno == EPERM && strchr(last ? last : pin_dir, '.'))
			return error_set(err, EPERM,
					 "%s: a BPF file system takes no names with a dot", pin_dir);
		return error_set(err, errno, "%s: %s", making, strerror(errno));
	}
	r = load_and_pin(config, making, err);
	if (!r && rename(making, pin_dir))
		r = error_set(err, errno, "%s: %s", pin_dir,
			      errno == ENOTEMPTY || errno == EEXIST ?
				      "there is something else in it" :
				      strerror(errno));
	if (r)
		dir_remove(making);
	return r;
}

/* Makes the directory unless another one was faster. */
static int pin_dir_ensure(const char *pin_dir, const struct datapath_sizes *sizes,
			  struct error *err)
{
	_cleanup_(close_fd) int lock = -1;
	struct xlb_config config;
	char parent[PATH_MAX], path[PATH_MAX + 16];
	int r = parent_of(pin_dir, parent, err);

	if (!r)
		r = config_make(sizes, &config, err);
	if (!r)
		r = bpffs_ensure(parent, err);
	if (!r)
		r = parent_lock(parent, &lock, err);
	if (r)
		return r;
	snprintf(path, sizeof(path), "%s/config", pin_dir);
	return access(path, F_OK) ? pin_dir_make(pin_dir, &config, err) : 0;
}

int datapath_create(const char *pin_dir, const struct datapath_sizes *sizes,
		    struct datapath **ret_dp, struct error *err)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	char normal[PATH_MAX];
	int r = privilege_check(true, err);

	if (!r)
		r = pin_dir_normal(pin_dir, normal, err);
	if (r)
		return r;
	r = datapath_open(normal, &dp, err);
	if (r == -ENOENT) {
		r = pin_dir_ensure(normal, sizes, err);
		if (!r)
			r = datapath_open(normal, &dp, err);
	}
	if (!r)
		r = config_agrees(config_of(dp), sizes, err);
	if (!r)
		r = datapath_lock(dp, NULL, err);
	if (r)
		return r;
	if (dp->ids.retired)
		r = reclaim(dp, err);
	datapath_unlock(dp);
	if (r)
		return r;
	*ret_dp = steal_pointer(&dp);
	return 0;
}

int datapath_destroy(struct datapath *dp, struct error *err)
{
	char going[PATH_MAX + 8];

	if (!dp->locked)
		return error_set(err, EINVAL, "%s: removed without the lock", dp->pin_dir);
	devices_forget_gone(dp);
	if (devices_attached(dp))
		return error_set(err, EBUSY, "%s: still attached to a device", dp->pin_dir);
	snprintf(going, sizeof(going), "%s-old", dp->pin_dir);
	dir_remove(going);
	/*
	 * Gone by one rename: whoever waits for the lock finds that it is no longer the same
	 * directory.
	 */
	if (rename(dp->pin_dir, going))
		return error_set(err, errno, "%s: %s", dp->pin_dir, strerror(errno));
	dir_remove(going);
	return 0;
}

/* ---- locking ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* Waits for the lock; says so once if it takes long. */
static int lock_wait(struct datapath *dp, void (*waiting)(const char *pin_dir), struct error *err)
{
	int64_t until = now_ms() + WAIT_BEFORE_WORDS_MS;

	while (waiting) {
		if (!flock(dp->dir_fd, LOCK_EX | LOCK_NB))
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_set(err, errno, "%s: %s", dp->pin_dir, strerror(errno));
		if (now_ms() >= until)
			break;
		poll(NULL, 0, WAIT_STEP_MS);
	}
	if (waiting)
		waiting(dp->pin_dir);
	if (!flock(dp->dir_fd, LOCK_EX))
		return 0;
	return error_set(err, errno, "%s: waiting for the lock: %s", dp->pin_dir, strerror(errno));
}

/* Whether the directory that was locked is still the one of that name. */
static bool dir_same(const struct datapath *dp)
{
	struct stat locked, named;

	return !fstat(dp->dir_fd, &locked) && !stat(dp->pin_dir, &named) &&
	       locked.st_ino == named.st_ino && locked.st_dev == named.st_dev;
}

static int lock_allowed(const struct datapath *dp, struct error *err)
{
	if (!dp->read_only)
		return 0;
	return error_set(err, EACCES, "%s: this user may look (--pin-group), and change nothing",
			 dp->pin_dir);
}

/* The lock is had: whether anything can be written with it, and what others wrote meanwhile. */
static int lock_begin(struct datapath *dp, struct error *err)
{
	uint64_t generation;
	int r = 0;

	dp->locked = true;
	paths_forget(dp);
	generation = __atomic_load_n(&config_of(dp)->generation, __ATOMIC_ACQUIRE);
	if (!dir_same(dp))
		r = error_set(err, ESTALE,
			      "%s: was removed by another lbctl meanwhile; start this again, "
			      "after `lbctl attach DEV` if nothing is there",
			      dp->pin_dir);
	else if (generation & 1)
		r = repair(dp, err);
	else if (generation != dp->generation)
		r = state_load(dp, err);
	if (r)
		datapath_unlock(dp);
	return r;
}

int datapath_lock(struct datapath *dp, void (*waiting)(const char *pin_dir), struct error *err)
{
	int r;

	if (dp->locked)
		return 0;
	r = lock_allowed(dp, err);
	if (!r)
		r = lock_wait(dp, waiting, err);
	return r ?: lock_begin(dp, err);
}

int datapath_try_lock(struct datapath *dp, struct error *err)
{
	int r;

	if (dp->locked)
		return 0;
	r = lock_allowed(dp, err);
	if (!r && flock(dp->dir_fd, LOCK_EX | LOCK_NB))
		r = error_set(err, errno, "%s: the lock: %s", dp->pin_dir, strerror(errno));
	return r ?: lock_begin(dp, err);
}

void datapath_unlock(struct datapath *dp)
{
	if (!dp->locked)
		return;
	flock(dp->dir_fd, LOCK_UN);
	dp->locked = false;
}

const char *datapath_pin_dir(const struct datapath *dp)
{
	return dp->pin_dir;
}

const struct model *datapath_model(struct datapath *dp)
{
	return dp->model;
}
