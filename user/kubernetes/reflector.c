// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/reflector_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/cleanup.h"
#include "kubernetes/clock.h"
#include "kubernetes/paths.h"

enum {
	WATCH_MIN_S = 300,
	WATCH_SPAN_S = 300,
	SILENCE_S = 30,
	REFUSALS_MAX = 3,	/* of watches, until a list is asked for instead */
};

/*
 * A watch that ended sooner than this is a failure: a server that always does it must not be asked
 * in a tight loop.
 */
static const uint64_t watch_shortest_ns = 1000000000;
static const uint64_t expired_apart_ns = 10ull * 1000000000;

static void begin(struct reflector *reflector);

static void wait_for(struct reflector *reflector, unsigned int delay_ms)
{
	struct timeval delay = { .tv_sec = delay_ms / 1000, .tv_usec = delay_ms % 1000 * 1000 };

	evtimer_add(reflector->timer, &delay);
}

/* A stream that has nothing more to say before its end: of a server that knows no such end. */
static unsigned int silence_ms(const struct reflector *reflector)
{
	return (reflector->kube->options.request_timeout_s ?: SILENCE_S) * 1000;
}

/* A watch may have nothing to say for a long time; that it was accepted is enough. */
static void on_started(void *arg)
{
	struct reflector *reflector = arg;

	if (reflector->phase == PHASE_WATCH)
		reflector_working(reflector);
	else if (reflector->phase == PHASE_STREAM)
		wait_for(reflector, silence_ms(reflector));
}

static int on_data(void *arg, const void *data, size_t size, struct error *err)
{
	struct reflector *reflector = arg;
	struct kube *kube = reflector->kube;
	int r;

	if (!kube->read_ns)
		kube->read_ns = clock_now_ns();
	if (reflector->phase == PHASE_STREAM)
		wait_for(reflector, silence_ms(reflector));
	if (reflector->phase != PHASE_WATCH)
		reflector->list_bytes += size;
	r = json_stream_feed(reflector->stream, data, size, err);
	if (r < 0)
		return r == -ESTALE || r == -EREMOTEIO ?
			       r :
			       error_prefix(err, r, "%s", reflector->resource->name);
	if (reflector->phase == PHASE_WATCH)
		kube_notify(kube);
	else if (kube->calls.progress) {
		struct kube_progress progress = {
			.resource = reflector->resource->name,
			.objects = reflector->list.n_objects,
			.bytes = reflector->list_bytes,
		};

		kube->calls.progress(kube->arg, &progress);
	}
	return 0;
}

static void on_failure(struct reflector *reflector, const struct api_result *result)
{
	bool patient = reflector->kube->options.watch;
	unsigned int delay_ms = 0;

	if (reflector->phase != PHASE_WATCH)
		reflector_forget_list(reflector);
	if (result->status == 404 && reflector->calls.missing(reflector->arg, result))
		return;
	if (!retry_after_failure(&reflector->retry, result, patient, clock_now_ns(), &delay_ms)) {
		reflector->calls.gave_up(reflector->arg, result);
		return;
	}
	if (delay_ms) {
		reflector->failing = true;
		reflector->calls.failing(reflector->arg, result, delay_ms);
	}
	wait_for(reflector, delay_ms);
}

/* The last page has been read. */
static void finish_list(struct reflector *reflector)
{
	struct api_result result = {};

	result.code = reflector_take_list(reflector, &result.error);
	if (result.code < 0) {
		on_failure(reflector, &result);
		return;
	}
	if (reflector->kube->options.watch)
		begin(reflector);
	reflector->calls.listed(reflector->arg);
}

static void on_list_done(struct reflector *reflector, struct api_result *result)
{
	if (result->status == HTTP_GONE && reflector->next_page && !reflector->whole) {
		kube_detail(reflector->kube,
			    "%s: the list expired between two pages: taking it in one piece",
			    reflector->resource->name);
		reflector_forget_list(reflector);
		reflector->whole = true;
		begin(reflector);
		return;
	}
	if (result->code >= 0 && result->status == 200) {
		result->code = json_stream_finish(reflector->stream, &result->error);
		if (result->code >= 0 && !reflector->page_read)
			result->code = error_set(&result->error, EINVAL, "the answer is empty");
		if (result->code < 0)
			error_prefix(&result->error, result->code, "%s", reflector->resource->name);
	}
	if (result->code < 0 || result->status != 200)
		on_failure(reflector, result);
	else if (reflector->next_page)
		begin(reflector);
	else
		finish_list(reflector);
}

static void list_again(struct reflector *reflector)
{
	bool stream = reflector->kube->options.watch && !reflector->plain;

	reflector->phase = stream ? PHASE_STREAM : PHASE_LIST;
}

/*
 * Whether it is the stream that the server has no sense of. Before 1.27, or where its storage does
 * not do its part, an API server says so with a status, or with an ERROR event after the status;
 * one before 1.19 just never ends the list. A stream that was cut is not tried again either: by a
 * list it is seen whether it is the server.
 */
static bool is_unfit(const struct api_result *result)
{
	if (result->status == 200)
		return true;
	return result->status >= 400 && result->status < 500 && result->status != 401 &&
	       result->status != 404 && result->status != 429;
}

static void on_stream_done(struct reflector *reflector, struct api_result *result)
{
	evtimer_del(reflector->timer);
	if (!is_unfit(result)) {
		on_failure(reflector, result);
		return;
	}
	kube_detail(reflector->kube, "%s: not to be had as a stream (%s): listing",
		    reflector->resource->name,
		    *result->error.text ? result->error.text : "it ended too early");
	reflector_forget_list(reflector);
	reflector->plain = true;
	list_again(reflector);
	begin(reflector);
}

/* At once, unless it happens again and again: then the server is given time. */
static void on_expired(struct reflector *reflector, const struct api_result *result)
{
	uint64_t now_ns = clock_now_ns();
	bool again = reflector->expired_ns && now_ns - reflector->expired_ns < expired_apart_ns;

	kube_detail(reflector->kube, "%s: the version is too old to watch from: listing again",
		    reflector->resource->name);
	reflector->expired_ns = now_ns;
	list_again(reflector);
	if (again)
		on_failure(reflector, result);
	else
		begin(reflector);
}

/* Whether the server was there, and would not or could not go on from the version. */
static bool is_refusal(const struct reflector *reflector, const struct api_result *result)
{
	long code = reflector->watch_error ?: result->status;

	return code >= 400 && code != 401 && code != 403 && code != 429;
}

static void on_watch_done(struct reflector *reflector, struct api_result *result)
{
	bool answered = result->status == 200;

	if (result->status == HTTP_GONE || reflector->watch_error == HTTP_GONE) {
		on_expired(reflector, result);
		return;
	}
	/* What made no sense in a stream may make sense in a list. */
	if (result->code == -EINVAL)
		list_again(reflector);
	/* The end of a stream, clean or cut, is daily life: go on from the last version. */
	if (answered && reflector->phase == PHASE_WATCH && !reflector->watch_error &&
	    result->lasted_ns >= watch_shortest_ns) {
		reflector->refusals = 0;
		begin(reflector);
		return;
	}
	/* A version that it has no sense of (any more) is got past by a list. */
	if (!is_refusal(reflector, result)) {
		reflector->refusals = 0;
	} else if (++reflector->refusals >= REFUSALS_MAX) {
		reflector->refusals = 0;
		list_again(reflector);
	}
	if (answered && result->code >= 0)
		error_set(&result->error, ECONNRESET, "the watch of %s ended at once",
			  reflector->resource->name);
	on_failure(reflector, result);
}

static void on_done(void *arg, const struct api_result *result)
{
	struct reflector *reflector = arg;
	struct api_result copy = *result;

	reflector->request = NULL;
	kube_clean_text(copy.error.text);
	if (reflector->phase == PHASE_WATCH)
		on_watch_done(reflector, &copy);
	else if (reflector->phase == PHASE_STREAM)
		on_stream_done(reflector, &copy);
	else
		on_list_done(reflector, &copy);
}

static char *make_path(const struct reflector *reflector, unsigned int timeout_s)
{
	const struct kube_options *options = &reflector->kube->options;

	switch (reflector->phase) {
	case PHASE_WATCH:
		return paths_watch(reflector->resource, options, reflector->version, timeout_s);
	case PHASE_STREAM:
		return paths_stream(reflector->resource, options, timeout_s);
	default:
		return reflector->whole ? paths_whole_list(reflector->resource, options) :
					  paths_list(reflector->resource, options,
						     reflector->next_page);
	}
}

static void begin(struct reflector *reflector)
{
	static const struct api_calls calls = { .started = on_started,
						.data = on_data,
						.done = on_done };
	unsigned int timeout_s = reflector->kube->options.watch_timeout_s ?:
				 WATCH_MIN_S + retry_random(WATCH_SPAN_S);
	_cleanup_(free_pointer) char *path = make_path(reflector, timeout_s);
	bool lists = reflector->phase == PHASE_LIST;
	struct api_result result = {};

	json_stream_free(reflector->stream);
	reflector->stream =
		json_stream_new(lists ? &reflector_list_calls : &reflector_watch_calls, reflector);
	reflector->watch_error = 0;
	reflector->page_read = false;
	if (path && reflector->stream &&
	    api_get(reflector->api, path, lists ? 0 : timeout_s, &calls, reflector,
		    &reflector->request) >= 0)
		return;
	result.code = error_set(&result.error, ENOMEM, "out of memory");
	on_failure(reflector, &result);
}

/* The next request is due; or the one under way, a list as a stream, has fallen silent. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct reflector *reflector = arg;
	struct api_result result = { .status = 200 };

	(void)fd;
	(void)what;
	if (!reflector->request) {
		begin(reflector);
		return;
	}
	api_cancel(reflector->request);
	reflector->request = NULL;
	error_set(&result.error, ETIMEDOUT, "it does not come to its end");
	on_stream_done(reflector, &result);
}

struct reflector *reflector_new(const struct resource *resource, struct kube *kube, struct api *api,
				struct event_base *base, const struct reflector_calls *calls,
				void *arg)
{
	struct reflector *reflector = calloc(1, sizeof(*reflector));

	if (!reflector)
		return NULL;
	*reflector = (struct reflector){
		.resource = resource, .kube = kube, .api = api, .calls = *calls, .arg = arg,
		.list.kind = resource->store_kind,
	};
	reflector->timer = evtimer_new(base, on_timer, reflector);
	if (!reflector->timer) {
		free(reflector);
		return NULL;
	}
	list_again(reflector);
	wait_for(reflector, 0);
	return reflector;
}

void reflector_free(struct reflector *reflector)
{
	if (!reflector)
		return;
	api_cancel(reflector->request);
	json_stream_free(reflector->stream);
	event_free(reflector->timer);
	kube_list_free(&reflector->list);
	free(reflector->version);
	free(reflector->next_page);
	free(reflector);
}
