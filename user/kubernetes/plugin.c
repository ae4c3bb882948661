// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/cleanup.h"

enum {
	OUTPUT_MAX = 1 << 20,
	COMPLAINT_MAX = 512,	/* of standard error, the end of it */
};

struct plugin {
	plugin_done done;
	void *arg;
	const char *name;
	unsigned int timeout_s;
	pid_t pid;
	int pidfd, output_fd, complaint_fd;
	struct event *exited, *output_ready, *complaint_ready, *late;
	char *output;
	size_t output_size;
	char complaint[COMPLAINT_MAX];
	size_t complaint_size;
};

static void close_event(struct event **event, int *fd)
{
	if (*event)
		event_free(*event);
	*event = NULL;
	if (fd && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
}

static void plugin_free(struct plugin *plugin)
{
	close_event(&plugin->exited, &plugin->pidfd);
	close_event(&plugin->output_ready, &plugin->output_fd);
	close_event(&plugin->complaint_ready, &plugin->complaint_fd);
	close_event(&plugin->late, NULL);
	if (plugin->output)
		explicit_bzero(plugin->output, plugin->output_size);
	free(plugin->output);
	free(plugin);
}

/* Ends the whole group and leaves no zombie. */
static int reap(struct plugin *plugin, bool force)
{
	int status = 0;

	if (force)
		kill(-plugin->pid, SIGKILL);
	while (waitpid(plugin->pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

void plugin_cancel(struct plugin *plugin)
{
	if (!plugin)
		return;
	reap(plugin, true);
	plugin_free(plugin);
}

/* Reads what is there. false: end of file, or not now. */
static bool read_output(struct plugin *plugin)
{
	char *grown = realloc(plugin->output, plugin->output_size + 4097);
	ssize_t n;

	if (!grown)
		return false;
	plugin->output = grown;
	n = read(plugin->output_fd, plugin->output + plugin->output_size, 4096);
	if (n <= 0)
		return false;
	plugin->output_size += n;
	plugin->output[plugin->output_size] = 0;
	return true;
}

/* Keeps the last bytes. */
static bool read_complaint(struct plugin *plugin)
{
	char buffer[COMPLAINT_MAX / 2];
	ssize_t n = read(plugin->complaint_fd, buffer, sizeof(buffer));

	if (n <= 0)
		return false;
	if (plugin->complaint_size + n >= COMPLAINT_MAX) {
		size_t keep = COMPLAINT_MAX - 1 - n;

		memmove(plugin->complaint, plugin->complaint + plugin->complaint_size - keep, keep);
		plugin->complaint_size = keep;
	}
	memcpy(plugin->complaint + plugin->complaint_size, buffer, n);
	plugin->complaint_size += n;
	plugin->complaint[plugin->complaint_size] = 0;
	return true;
}

/* Enough of it: the whole group ends. */
static void end_with(struct plugin *plugin, const struct error *err)
{
	reap(plugin, true);
	plugin->done(plugin->arg, NULL, 0, err);
	plugin_free(plugin);
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
	struct plugin *plugin = arg;
	struct error err;

	(void)fd;
	(void)what;
	if (!read_output(plugin)) {
		event_del(plugin->output_ready);
	} else if (plugin->output_size > OUTPUT_MAX) {
		error_set(&err, EFBIG, "exec plugin %s: printed more than 1 MB", plugin->name);
		end_with(plugin, &err);
	}
}

static void on_complaint(evutil_socket_t fd, short what, void *arg)
{
	struct plugin *plugin = arg;

	(void)fd;
	(void)what;
	if (!read_complaint(plugin))
		event_del(plugin->complaint_ready);
}

/* The last line of what it complained about. */
static const char *last_line(struct plugin *plugin)
{
	char *text = plugin->complaint, *line;
	size_t length = strlen(text);

	while (length && strchr("\r\n \t", text[length - 1]))
		text[--length] = 0;
	line = strrchr(text, '\n');
	return line ? line + 1 : text;
}

static void on_exit_of_plugin(evutil_socket_t fd, short what, void *arg)
{
	struct plugin *plugin = arg;
	struct error err = {};
	int status = reap(plugin, false);

	(void)fd;
	(void)what;
	while (plugin->output_size <= OUTPUT_MAX && read_output(plugin))
		;
	while (read_complaint(plugin))
		;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		error_set(&err, EIO,
			  "exec plugin %s: ended by a system call that the filter of a watch "
			  "refuses; the kernel's log names it", plugin->name);
	else if (WIFSIGNALED(status))
		error_set(&err, EIO, "exec plugin %s: killed by signal %d", plugin->name,
			  WTERMSIG(status));
	else if (WEXITSTATUS(status))
		error_set(&err, EIO, "exec plugin %s: exit status %d%s%s", plugin->name,
			  WEXITSTATUS(status), *plugin->complaint ? ": " : "", last_line(plugin));
	else if (!plugin->output_size)
		error_set(&err, EIO, "exec plugin %s: printed nothing", plugin->name);
	else if (plugin->output_size > OUTPUT_MAX)
		error_set(&err, EIO, "exec plugin %s: printed more than 1 MB", plugin->name);
	plugin->done(plugin->arg, *err.text ? NULL : plugin->output, plugin->output_size, &err);
	plugin_free(plugin);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct plugin *plugin = arg;
	struct error err;

	(void)fd;
	(void)what;
	error_set(&err, ETIMEDOUT, "exec plugin %s: no answer within %u s: killed", plugin->name,
		  plugin->timeout_s);
	end_with(plugin, &err);
}

/* Ours after theirs: of two entries with the same name the first one counts for getenv(). */
static char **join_environment(char *const *additions)
{
	size_t n_added = 0, n_own = 0;
	char **joined;

	while (additions && additions[n_added])
		n_added++;
	while (environ[n_own])
		n_own++;
	joined = calloc(n_added + n_own + 1, sizeof(*joined));
	if (!joined)
		return NULL;
	for (size_t i = 0; i < n_added; i++)
		joined[i] = additions[i];
	memcpy(joined + n_added, environ, n_own * sizeof(*joined));
	return joined;
}

static int spawn(char *const *argv, char *const *environment, int output, int complaint,
		 pid_t *ret_pid)
{
	_cleanup_(free_pointer) char **joined = join_environment(environment);
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t defaults, none;
	int r;

	if (!joined)
		return -ENOMEM;
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, complaint, STDERR_FILENO);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
						      POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setsigmask(&attributes, &none);
	r = -posix_spawnp(ret_pid, argv[0], &actions, &attributes, argv, joined);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

static int open_pipes(struct plugin *plugin, int *ret_output, int *ret_complaint)
{
	int output[2], complaint[2];

	if (pipe2(output, O_CLOEXEC) < 0)
		return -errno;
	plugin->output_fd = output[0];
	*ret_output = output[1];
	if (pipe2(complaint, O_CLOEXEC) < 0)
		return -errno;
	plugin->complaint_fd = complaint[0];
	*ret_complaint = complaint[1];
	evutil_make_socket_nonblocking(output[0]);
	evutil_make_socket_nonblocking(complaint[0]);
	return 0;
}

/* Follows a running plugin. */
static int follow(struct event_base *base, struct plugin *plugin)
{
	struct timeval timeout = { .tv_sec = plugin->timeout_s };

	plugin->pidfd = syscall(SYS_pidfd_open, plugin->pid, 0);
	if (plugin->pidfd < 0)
		return -errno;
	fcntl(plugin->pidfd, F_SETFD, FD_CLOEXEC);
	plugin->exited = event_new(base, plugin->pidfd, EV_READ, on_exit_of_plugin, plugin);
	plugin->output_ready =
		event_new(base, plugin->output_fd, EV_READ | EV_PERSIST, on_output, plugin);
	plugin->complaint_ready =
		event_new(base, plugin->complaint_fd, EV_READ | EV_PERSIST, on_complaint, plugin);
	plugin->late = evtimer_new(base, on_late, plugin);
	if (!plugin->exited || !plugin->output_ready || !plugin->complaint_ready || !plugin->late ||
	    event_add(plugin->exited, NULL) < 0 || event_add(plugin->output_ready, NULL) < 0 ||
	    event_add(plugin->complaint_ready, NULL) < 0 || evtimer_add(plugin->late, &timeout) < 0)
		return -ENOMEM;
	return 0;
}

int plugin_start(struct event_base *base, char *const *argv, char *const *environment,
		 unsigned int timeout_s, plugin_done done, void *arg, struct plugin **ret_plugin,
		 struct error *err)
{
	_cleanup_(close_fd) int output = -1, complaint = -1;
	struct plugin *plugin = calloc(1, sizeof(*plugin));
	int r;

	if (!plugin)
		return error_set(err, ENOMEM, "out of memory");
	*plugin = (struct plugin){
		.done = done, .arg = arg, .name = argv[0], .timeout_s = timeout_s,
		.pidfd = -1, .output_fd = -1, .complaint_fd = -1,
	};
	r = open_pipes(plugin, &output, &complaint);
	if (r >= 0)
		r = spawn(argv, environment, output, complaint, &plugin->pid);
	if (r < 0) {
		plugin_free(plugin);
		return error_set(err, -r, "exec plugin %s: %s", argv[0], strerror(-r));
	}
	r = follow(base, plugin);
	if (r < 0) {
		plugin_cancel(plugin);
		return error_set(err, -r, "exec plugin %s: %s", argv[0], strerror(-r));
	}
	*ret_plugin = plugin;
	return 0;
}
