// SPDX-License-Identifier: GPL-2.0
#include "commands/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "commands/output.h"
#include "commands/session.h"
#include "commands/sync_report.h"

enum { ERRORS_SHOWN = 10 };	/* of one batch: ten thousand services may meet one full map */

/* What a batch has on its way. */
struct batch {
	struct sync *sync;
	struct sync_report report;
	uint64_t read_ns;	/* when the first of its events was read; 0: not known */
	bool out_of_memory;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A set of VIPs is a model whose services mean nothing. true: it was not in there. */
static bool remember(struct model **set, const struct endpoint *vip)
{
	struct service *entry;
	bool fresh;

	if (!*set)
		*set = model_new();
	fresh = *set && !model_find(*set, vip);
	if (fresh)
		model_ensure(*set, vip, &entry);
	return fresh;
}

static void forget(struct model *set, const struct endpoint *vip)
{
	if (set && model_find(set, vip))
		model_remove(set, vip);
}

/* Nothing is left to do for a VIP; what comes of it later is told anew. */
static void forget_both(struct sync *sync, const struct endpoint *vip)
{
	forget(sync->waiting, vip);
	forget(sync->told, vip);
}

bool sync_waiting(const struct sync *sync)
{
	return sync->waiting && model_count(sync->waiting);
}

void sync_again(struct sync *sync)
{
	struct service *entry;
	size_t cursor = 0;

	while (sync->waiting && (entry = model_next(sync->waiting, &cursor)))
		kube_again(sync->kube, &entry->vip);
}

void sync_end(struct sync *sync)
{
	model_free(sync->told);
	model_free(sync->waiting);
}

static struct service *find_running(const struct sync *sync, const struct endpoint *vip)
{
	return sync->dp ? model_find(datapath_model(sync->dp), vip) : NULL;
}

/* Whether a running service is ours to change. */
static bool is_ours(const struct sync *sync, const struct service *running)
{
	return running->owner == sync->owner && kube_in_scope(sync->kube, running->name);
}

static void leave_alone(struct sync *sync, const struct service *running,
			const struct service *after)
{
	char vip[ENDPOINT_TEXT_MAX];

	remember(&sync->waiting, &running->vip);
	if (!remember(&sync->told, &running->vip))
		return;
	progress_clear();
	if (running->owner != sync->owner)
		complain("%s: %s is there already, and belongs to %s: left alone", after->name,
			 endpoint_format(&running->vip, vip), owner_name(running->owner));
	else
		complain("%s: %s is there already, for %s: left alone", after->name,
			 endpoint_format(&running->vip, vip), running->name);
}

static void count_states(const struct service *after, struct sync_line *line)
{
	for (size_t i = 0; i < after->n_backends; i++) {
		switch (after->backends[i].state) {
		case XLB_BACKEND_ACTIVE:
			line->active++;
			break;
		case XLB_BACKEND_DRAINING:
			line->draining++;
			break;
		default:
			line->down++;
		}
	}
}

/* Filled before the change is applied: the running service is another one afterwards. */
static void describe(const struct service_change *change, const struct endpoint *vip,
		     const char *label, struct sync_line *ret_line)
{
	const char *name = change->after ? change->after->name : change->before->name;
	struct sync_line line = {
		.vip = *vip,
		.before = change->before,
		.after = change->after,
		.added = change->added,
		.removed = change->removed,
		.changed = change->changed,
	};

	snprintf(line.name, sizeof(line.name), "%s", name);
	snprintf(line.label, sizeof(line.label), "%s", label ? label : name);
	if (change->after)
		count_states(change->after, &line);
	*ret_line = line;
}

static void tell_error(struct sync *sync, const struct sync_line *line, const struct error *err)
{
	char vip[ENDPOINT_TEXT_MAX];

	sync->n_failed++;
	remember(&sync->waiting, &line->vip);
	if (!remember(&sync->told, &line->vip) || sync->n_failed > ERRORS_SHOWN)
		return;
	progress_clear();
	complain("%s: %s: %s", line->label, endpoint_format(&line->vip, vip), err->text);
}

static void tell(struct batch *batch, const struct sync_line *line)
{
	struct sync *sync = batch->sync;
	double latency_us = -1;

	sync->n_changed++;
	if (!sync->json) {
		if (sync_report_add(&batch->report, line) < 0)
			batch->out_of_memory = true;
		return;
	}
	if (sync->timed && batch->read_ns)
		latency_us = (now_ns() - batch->read_ns) / 1000.0;
	sync_print_json(line, sync->dry_run, latency_us);
}

/* Makes the service of one VIP be like `after`; NULL: none. */
static void apply(struct batch *batch, const struct endpoint *vip, struct service *after,
		  const char *label)
{
	struct sync *sync = batch->sync;
	struct service *running = find_running(sync, vip);
	struct service_change change;
	struct sync_line line;
	struct error err;

	if (running && !is_ours(sync, running)) {
		if (after)
			leave_alone(sync, running, after);
		else
			forget_both(sync, vip);
		return;
	}
	if ((!running && !after) || !service_diff(running, after, &change)) {
		forget_both(sync, vip);
		return;
	}
	describe(&change, vip, label, &line);
	if (!sync->dry_run && datapath_apply(sync->dp, vip, after, &err) < 0) {
		tell_error(sync, &line, &err);
		return;
	}
	forget_both(sync, vip);
	tell(batch, &line);
}

/* Endpoints are not known: the running backends stay. A copy; NULL: out of memory. */
static struct service *keep_backends(const struct sync *sync, const struct service *after)
{
	const struct service *running = find_running(sync, &after->vip);
	struct service shallow = *after;

	shallow.backends = running ? running->backends : NULL;
	shallow.n_backends = running ? running->n_backends : 0;
	return service_copy(&shallow);
}

static void apply_change(struct batch *batch, const struct kube_change *change)
{
	struct service *kept;

	if (!change->after) {
		if (kube_complete(batch->sync->kube))
			apply(batch, &change->vip, NULL, NULL);
		return;
	}
	if (kube_endpoints_known(batch->sync->kube)) {
		apply(batch, &change->vip, change->after, change->label);
		return;
	}
	kept = keep_backends(batch->sync, change->after);
	if (kept)
		apply(batch, &change->vip, kept, change->label);
	else
		batch->out_of_memory = true;
	service_free(kept);
}

/*
 * What is left of earlier runs, and is not wanted any more. Names first: the model changes under
 * way.
 */
static void sweep(struct batch *batch)
{
	struct sync *sync = batch->sync;
	_cleanup_(free_pointer) struct endpoint *gone = NULL;
	const struct service *running;
	size_t cursor = 0, n = 0;

	if (sync->swept || !sync->dp || !kube_complete(sync->kube))
		return;
	gone = calloc(model_count(datapath_model(sync->dp)) + 1, sizeof(*gone));
	if (!gone) {
		batch->out_of_memory = true;
		return;
	}
	while ((running = model_next(datapath_model(sync->dp), &cursor)))
		if (is_ours(sync, running) && !kube_wants(sync->kube, &running->vip))
			gone[n++] = running->vip;
	for (size_t i = 0; i < n; i++)
		apply(batch, &gone[i], NULL, NULL);
	sync->swept = true;
}

/*
 * Removals come first where they can: a full map has room for what is new then. So the leftovers
 * are swept as soon as the claims are known, which is after the first kube_next_change().
 */
static int run_batch(struct batch *batch, struct error *err)
{
	struct kube_change change;
	int r;

	while ((r = kube_next_change(batch->sync->kube, &change, err)) > 0) {
		sweep(batch);
		apply_change(batch, &change);
	}
	if (r < 0)
		return r;
	sweep(batch);
	return batch->out_of_memory ? error_set(err, ENOMEM, "out of memory") : 0;
}

int sync_batch(struct sync *sync)
{
	struct batch batch = { .sync = sync, .read_ns = kube_take_read_time(sync->kube) };
	bool settles = !sync->dry_run && !sync->timed;
	struct error err;
	int r;

	sync->n_failed = 0;
	if (!sync->dry_run && datapath_lock(sync->dp, session_waiting, &err) < 0) {
		progress_clear();
		return fail("%s", err.text);
	}
	/* What is over does not wait for what changes now. */
	r = settles ? datapath_settle(sync->dp, &err) : 0;
	if (r >= 0)
		r = run_batch(&batch, &err);
	/* What goes on does so later, with nobody waiting for it. */
	if (r >= 0 && settles)
		r = datapath_settle(sync->dp, &err);
	if (!sync->dry_run)
		datapath_unlock(sync->dp);
	progress_clear();
	sync_report_print(&batch.report);
	fflush(stdout);
	if (r < 0)
		return fail("%s", err.text);
	if (sync->n_failed > ERRORS_SHOWN)
		complain("%zu services could not be written in all", sync->n_failed);
	return sync->n_failed ? STATUS_FAILED : STATUS_OK;
}
