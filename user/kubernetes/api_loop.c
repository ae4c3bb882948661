// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/api_loop.h"

#include <errno.h>
#include <stdlib.h>

#include <event2/event.h>

struct transfer {
	CURL *handle;
	void (*finished)(void *, CURLcode);
	void *arg;
	struct transfer *next;
};

struct api_loop {
	struct event_base *base;
	CURLM *multi;
	struct event *timer;
	struct transfer *transfers;
};

static struct transfer **find(struct api_loop *loop, const CURL *handle)
{
	struct transfer **link = &loop->transfers;

	while (*link && (*link)->handle != handle)
		link = &(*link)->next;
	return link;
}

/* A finished() may add and remove transfers, hence one message at a time. */
static void deliver(struct api_loop *loop)
{
	struct transfer *transfer;
	CURLMsg *message;
	CURLcode code;
	int left;

	while ((message = curl_multi_info_read(loop->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		code = message->data.result;
		transfer = *find(loop, message->easy_handle);
		if (transfer)
			transfer->finished(transfer->arg, code);
	}
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct api_loop *loop = arg;
	int running, action = (what & EV_READ ? CURL_CSELECT_IN : 0) |
			      (what & EV_WRITE ? CURL_CSELECT_OUT : 0);

	curl_multi_socket_action(loop->multi, fd, action, &running);
	deliver(loop);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct api_loop *loop = arg;
	int running;

	(void)fd;
	(void)what;
	curl_multi_socket_action(loop->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	deliver(loop);
}

/* curl wants (or no longer wants) to know about a socket. */
static int on_interest(CURL *handle, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct api_loop *loop = arg;
	struct event *event = socket_arg;
	short kinds = (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0) |
		      EV_PERSIST;

	(void)handle;
	if (event)
		event_free(event);
	event = NULL;
	if (what != CURL_POLL_REMOVE) {
		event = event_new(loop->base, fd, kinds, on_event, loop);
		if (!event || event_add(event, NULL) < 0)
			return -1;
	}
	curl_multi_assign(loop->multi, fd, event);
	return 0;
}

static int on_time(CURLM *multi, long timeout_ms, void *arg)
{
	struct api_loop *loop = arg;
	struct timeval timeout = { .tv_sec = timeout_ms / 1000,
				   .tv_usec = timeout_ms % 1000 * 1000 };

	(void)multi;
	if (timeout_ms < 0)
		evtimer_del(loop->timer);
	else
		evtimer_add(loop->timer, &timeout);
	return 0;
}

struct api_loop *api_loop_new(struct event_base *base)
{
	struct api_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return NULL;
	loop->base = base;
	loop->multi = curl_multi_init();
	loop->timer = evtimer_new(base, on_timer, loop);
	if (!loop->multi || !loop->timer) {
		api_loop_free(loop);
		return NULL;
	}
	curl_multi_setopt(loop->multi, CURLMOPT_SOCKETFUNCTION, on_interest);
	curl_multi_setopt(loop->multi, CURLMOPT_SOCKETDATA, loop);
	curl_multi_setopt(loop->multi, CURLMOPT_TIMERFUNCTION, on_time);
	curl_multi_setopt(loop->multi, CURLMOPT_TIMERDATA, loop);
	return loop;
}

void api_loop_free(struct api_loop *loop)
{
	if (!loop)
		return;
	/* Closing connections still reports sockets. */
	if (loop->multi)
		curl_multi_cleanup(loop->multi);
	if (loop->timer)
		event_free(loop->timer);
	free(loop);
}

int api_loop_add(struct api_loop *loop, CURL *handle, void (*finished)(void *arg, CURLcode code),
		 void *arg)
{
	struct transfer *transfer = malloc(sizeof(*transfer));

	if (!transfer)
		return -ENOMEM;
	*transfer = (struct transfer){ handle, finished, arg, loop->transfers };
	loop->transfers = transfer;
	if (curl_multi_add_handle(loop->multi, handle) == CURLM_OK)
		return 0;
	api_loop_remove(loop, handle);
	return -ENOMEM;
}

void api_loop_remove(struct api_loop *loop, CURL *handle)
{
	struct transfer **link = find(loop, handle), *transfer = *link;

	if (!transfer)
		return;
	*link = transfer->next;
	free(transfer);
	curl_multi_remove_handle(loop->multi, handle);
}
