// SPDX-License-Identifier: GPL-2.0
#include "commands/sync_loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/event.h>

#include "base/cleanup.h"
#include "commands/confine.h"
#include "commands/output.h"
#include "commands/session.h"
#include "commands/sync_report.h"

enum {
	/* between batches; the first event after a pause is applied at once */
	COALESCE_MS = 20,
	WAITING_MS = 30000,	/* until what could not be had or written is tried again */
	LOCK_MS = 20,		/* until a lock that another one holds is tried again */
	LOCK_TRIES = 50,	/* until that is told */
	PATHS_MS = 50,		/* routes come in bursts */
	SETTLE_S = 60,		/* until it is looked again what has ended with time */
};

struct loop {
	const struct sync_loop_options *options;
	struct sync sync;
	struct event_base *base;
	struct event *batch, *waiting, *paths, *paths_due, *settle, *interrupt, *terminate;
	/* of the attached devices, where nobody gave others */
	struct endpoint *node_addresses;
	size_t n_node_addresses;
	uint64_t last_batch_ms;
	unsigned int n_refused;	/* locks, since one was had */
	bool done;		/* a first batch was applied */
	int status;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void start_timer(struct event *timer, unsigned int ms)
{
	struct timeval delay = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	if (!evtimer_pending(timer, NULL))
		evtimer_add(timer, &delay);
}

/* --- what the source calls --- */

static void on_changed(void *arg)
{
	struct loop *loop = arg;
	uint64_t since_ms = now_ms() - loop->last_batch_ms;

	if (loop->batch)
		start_timer(loop->batch, since_ms < COALESCE_MS ? COALESCE_MS - since_ms : 0);
}

static void on_line(void *arg, const char *line)
{
	(void)arg;
	progress_clear();
	complain("%s", line);
}

static void on_progress(void *arg, const struct kube_progress *progress)
{
	(void)arg;
	progress_show("%s: %llu objects, %.1f MB", progress->resource,
		      (unsigned long long)progress->objects, progress->bytes / 1e6);
}

static void on_failed(void *arg, int code, const struct error *err)
{
	struct loop *loop = arg;

	(void)code;
	progress_clear();
	loop->status = fail("%s", err->text);
	event_base_loopbreak(loop->base);
}

static const struct kube_calls kube_calls = {
	.changed = on_changed,
	.warning = on_line,
	.progress = on_progress,
	.away = on_line,
	.back = on_line,
	.failed = on_failed,
};

/* --- what the loop calls --- */

/* Pins that are gone do not come back: who starts the watch again opens those in their place. */
static void end_stale(struct loop *loop)
{
	loop->status = STATUS_FAILED;
	event_base_loopbreak(loop->base);
}

/*
 * A watch does not sleep until it has the lock: signals would not end it meanwhile, and health
 * checks get no answer.
 */
static int lock(struct loop *loop)
{
	struct error err;
	int r = datapath_try_lock(loop->options->dp, &err);

	if (r == -EAGAIN) {
		if (++loop->n_refused == LOCK_TRIES)
			session_waiting(datapath_pin_dir(loop->options->dp));
		return r;
	}
	loop->n_refused = 0;
	if (r < 0)
		on_line(loop, err.text);
	if (r == -ESTALE)
		end_stale(loop);
	return r;
}

static void run_batch(struct loop *loop)
{
	loop->status = sync_batch(&loop->sync);
	loop->last_batch_ms = now_ms();
	loop->done = true;
}

/* The batch finds the lock taken, and gives it back. */
static void run_watch_batch(struct loop *loop)
{
	int r = loop->options->dry_run ? 0 : lock(loop);

	if (r == -EAGAIN) {
		start_timer(loop->batch, LOCK_MS);
		return;
	}
	if (r >= 0)
		run_batch(loop);
	if (r < 0 || sync_waiting(&loop->sync))
		start_timer(loop->waiting, WAITING_MS);
}

static void on_batch(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;

	(void)fd;
	(void)what;
	if (loop->options->kube.watch) {
		run_watch_batch(loop);
		return;
	}
	run_batch(loop);
	event_base_loopbreak(loop->base);
}

static void on_waiting(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;

	(void)fd;
	(void)what;
	sync_again(&loop->sync);
	run_watch_batch(loop);
}

/* Ending is no failure: forwarding needs no process. */
static void on_signal(evutil_socket_t number, short what, void *arg)
{
	struct loop *loop = arg;

	(void)number;
	(void)what;
	loop->status = STATUS_OK;
	event_base_loopbreak(loop->base);
}

static bool same_addresses(const struct loop *loop, const struct endpoint *addresses, size_t n)
{
	if (n != loop->n_node_addresses)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!endpoint_equal(&addresses[i], &loop->node_addresses[i]))
			return false;
	return true;
}

/* NodePorts follow the addresses of the attached devices, unless addresses were given. */
static void follow_node_addresses(struct loop *loop)
{
	struct endpoint *addresses = NULL;
	struct error err;
	size_t n = 0;

	if (loop->options->kube.node_addresses || !loop->options->dp ||
	    !(loop->options->kube.vips & KUBE_VIPS_NODEPORT))
		return;
	if (datapath_device_addresses(loop->options->dp, &addresses, &n, &err) < 0) {
		on_line(loop, err.text);
		return;
	}
	if (same_addresses(loop, addresses, n)) {
		free(addresses);
		return;
	}
	kube_set_node_addresses(loop->sync.kube, addresses, n);
	free(loop->node_addresses);
	loop->node_addresses = addresses;
	loop->n_node_addresses = n;
	if (kube_complete(loop->sync.kube))
		on_changed(loop);
}

static void on_paths(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;

	(void)fd;
	(void)what;
	datapath_path_events_drain(loop->options->dp);
	start_timer(loop->paths_due, PATHS_MS);
}

static void on_paths_due(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	struct error err;
	int r = lock(loop);

	(void)fd;
	(void)what;
	if (r == -EAGAIN)
		start_timer(loop->paths_due, PATHS_MS);
	if (r == -EAGAIN || r == -ESTALE)
		return;
	if (r >= 0) {
		if (datapath_refresh_paths(loop->options->dp, &err) < 0)
			on_line(loop, err.text);
		datapath_unlock(loop->options->dp);
	}
	follow_node_addresses(loop);
}

/*
 * Connections from before a change may be over by now, and what is remembered of them with them; and
 * flows whose clients have vanished. Without the lock, a minute later.
 */
static void on_settle(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	struct error err;

	(void)fd;
	(void)what;
	if (!datapath_unsettled(loop->options->dp) || lock(loop) < 0)
		return;
	if (datapath_settle(loop->options->dp, &err) < 0)
		on_line(loop, err.text);
	datapath_unlock(loop->options->dp);
}

/* --- life --- */

static int add_event(struct loop *loop, struct event **event, int fd, short what,
		     event_callback_fn call)
{
	*event = event_new(loop->base, fd, what, call, loop);
	if (!*event)
		return -ENOMEM;
	return fd >= 0 ? event_add(*event, NULL) : 0;
}

/*
 * Signals, paths and the passing of time matter only to what stays. SIGPIPE comes from whoever asks
 * about health and hangs up before the answer, or no longer reads what is printed.
 */
static int add_watch_events(struct loop *loop, struct error *err)
{
	struct timeval minute = { .tv_sec = SETTLE_S };
	int fd, r = 0;

	if (add_event(loop, &loop->interrupt, SIGINT, EV_SIGNAL | EV_PERSIST, on_signal) < 0 ||
	    add_event(loop, &loop->terminate, SIGTERM, EV_SIGNAL | EV_PERSIST, on_signal) < 0)
		return error_set(err, ENOMEM, "out of memory");
	signal(SIGPIPE, SIG_IGN);
	if (loop->options->dry_run)
		return 0;
	fd = datapath_path_events_fd(loop->options->dp, err);
	if (fd < 0)
		return fd;
	r = add_event(loop, &loop->paths, fd, EV_READ | EV_PERSIST, on_paths);
	if (r >= 0)
		r = add_event(loop, &loop->settle, -1, EV_PERSIST, on_settle);
	if (r >= 0)
		r = event_add(loop->settle, &minute);
	if (r < 0)
		return error_set(err, ENOMEM, "out of memory");
	/* What changed while nobody watched: a batch looks at backends that differ, and no others. */
	start_timer(loop->paths_due, PATHS_MS);
	return 0;
}

static int follow_server(struct loop *loop, struct error *err)
{
	int r;

	loop->base = event_base_new();
	if (!loop->base || add_event(loop, &loop->batch, -1, 0, on_batch) < 0 ||
	    add_event(loop, &loop->waiting, -1, 0, on_waiting) < 0 ||
	    add_event(loop, &loop->paths_due, -1, 0, on_paths_due) < 0)
		return error_set(err, ENOMEM, "out of memory");
	if (loop->options->kube.watch) {
		r = add_watch_events(loop, err);
		if (r < 0)
			return r;
	}
	r = kube_connect(loop->sync.kube, loop->base, err);
	if (r < 0)
		return r;
	/* All that is left goes on without: nothing has been asked, and no thread been started. */
	if (loop->options->kube.watch) {
		r = confine(kube_runs_plugins(loop->sync.kube), err);
		if (r < 0)
			return r;
	}
	if (event_base_dispatch(loop->base) < 0)
		return error_set(err, EIO, "the event loop does not work");
	return 0;
}

static int follow_file(struct loop *loop, struct error *err)
{
	int r = kube_load_file(loop->sync.kube, loop->options->from, err);

	if (r >= 0)
		run_batch(loop);
	return r;
}

static int start(struct loop *loop, struct error *err)
{
	struct kube_calls calls = kube_calls;
	int r;

	calls.detail = loop->options->verbose ? on_line : NULL;
	r = kube_new(&loop->options->kube, &calls, loop, &loop->sync.kube, err);
	if (r < 0)
		return r;
	follow_node_addresses(loop);
	if (loop->options->kube.vips & KUBE_VIPS_NODEPORT && !loop->options->kube.node_addresses &&
	    !loop->n_node_addresses)
		complain("no address of an attached device is known: NodePorts are left out "
			 "(--node-address gives them one)");
	return loop->options->from ? follow_file(loop, err) : follow_server(loop, err);
}

static void end(struct loop *loop)
{
	struct event *events[] = {
		loop->batch, loop->waiting, loop->paths, loop->paths_due, loop->settle,
		loop->interrupt, loop->terminate,
	};

	kube_free(loop->sync.kube);
	for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
		if (events[i])
			event_free(events[i]);
	if (loop->base)
		event_base_free(loop->base);
	sync_end(&loop->sync);
	free(loop->node_addresses);
}

int sync_loop(const struct sync_loop_options *options)
{
	struct loop loop = {
		.options = options,
		.sync = {
			.dp = options->dp,
			.owner = options->kube.owner,
			.dry_run = options->dry_run,
			.json = options->json,
			.timed = options->kube.watch,
		},
		.status = STATUS_FAILED,
	};
	struct error err;
	size_t ignored = 0;

	if (start(&loop, &err) < 0) {
		progress_clear();
		loop.status = fail("%s", err.text);
	} else
		ignored = kube_count_ignored(loop.sync.kube);
	end(&loop);
	/* What made no sense is not in the maps: they do not hold what the server holds. */
	return ignored && !options->kube.watch && loop.status == STATUS_OK ? STATUS_FAILED :
									     loop.status;
}
