// SPDX-License-Identifier: GPL-2.0
/*
 * A check is a port that is listened to, and is the group's; a visit is a connection, and is the
 * check's. A visit reads to the end of a request's head, answers, and ends; there are few at a time,
 * and none lasts long, so that whoever can reach the port cannot take what a watch needs to live.
 */
#include "kubernetes/health.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

enum {
	VISITS_MAX = 64,
	VISIT_S = 5,
	HEAD_MAX = 8192,
	BACKLOG = 64,
	AGAIN_S = 30,	/* until a port that was taken is tried again */
};

struct health {
	struct kube *kube;
	struct event_base *base;
	struct event *again;
	struct health_check *checks;
	size_t n_visits;
};

struct health_check {
	struct health *health;
	const struct group *group;
	uint16_t port;
	size_t n_local;
	struct evconnlistener *listener;	/* NULL: the port could not be had */
	struct visit *visits;
	struct health_check *next;
};

struct visit {
	struct health_check *check;
	struct bufferevent *stream;
	struct event *late;
	bool answered;
	struct visit *next;
};

/* --- visits --- */

static void end_visit(struct visit *visit)
{
	struct visit **at = &visit->check->visits;

	while (*at != visit)
		at = &(*at)->next;
	*at = visit->next;
	visit->check->health->n_visits--;
	event_free(visit->late);
	bufferevent_free(visit->stream);
	free(visit);
}

static void answer(struct visit *visit, bool body)
{
	const struct health_check *check = visit->check;
	const char *key = check->group->key, *slash = strchr(key, '/');
	char text[1024];
	int n = snprintf(text, sizeof(text),
			 "{\n\t\"service\": {\n\t\t\"namespace\": \"%.*s\",\n\t\t\"name\": \"%s\"\n"
			 "\t},\n\t\"localEndpoints\": %zu,\n\t\"serviceProxyHealthy\": true\n}\n",
			 (int)(slash - key), key, slash + 1, check->n_local);

	evbuffer_add_printf(bufferevent_get_output(visit->stream),
			    "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
			    "X-Content-Type-Options: nosniff\r\n"
			    "X-Load-Balancing-Endpoint-Weight: %zu\r\n"
			    "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
			    check->n_local ? "200 OK" : "503 Service Unavailable", check->n_local, n,
			    body ? text : "");
	visit->answered = true;
}

static void on_read(struct bufferevent *stream, void *arg)
{
	struct evbuffer *input = bufferevent_get_input(stream);
	struct visit *visit = arg;
	char method[5] = "";

	if (visit->answered) {
		evbuffer_drain(input, evbuffer_get_length(input));
		return;
	}
	if (evbuffer_search(input, "\r\n\r\n", 4, NULL).pos < 0) {
		if (evbuffer_get_length(input) >= HEAD_MAX)
			end_visit(visit);
		return;
	}
	evbuffer_copyout(input, method, sizeof(method));
	evbuffer_drain(input, evbuffer_get_length(input));
	answer(visit, memcmp(method, "HEAD ", sizeof(method)));
}

/* Also called when there was nothing to write yet. */
static void on_written(struct bufferevent *stream, void *arg)
{
	struct visit *visit = arg;

	(void)stream;
	if (visit->answered)
		end_visit(visit);
}

static void on_end(struct bufferevent *stream, short what, void *arg)
{
	(void)stream;
	(void)what;
	end_visit(arg);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	end_visit(arg);
}

/* Takes over the connection. NULL: one too many, or out of memory. */
static struct visit *begin_visit(struct health *health, evutil_socket_t fd)
{
	struct visit *visit = NULL;

	if (health->n_visits < VISITS_MAX)
		visit = calloc(1, sizeof(*visit));
	if (visit)
		visit->late = evtimer_new(health->base, on_late, visit);
	if (visit && visit->late)
		visit->stream = bufferevent_socket_new(health->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (visit && visit->stream)
		return visit;
	if (visit && visit->late)
		event_free(visit->late);
	free(visit);
	evutil_closesocket(fd);
	return NULL;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from,
		      int length, void *arg)
{
	const struct timeval limit = { .tv_sec = VISIT_S };
	struct health_check *check = arg;
	struct visit *visit = begin_visit(check->health, fd);

	(void)listener;
	(void)from;
	(void)length;
	if (!visit)
		return;
	visit->check = check;
	visit->next = check->visits;
	check->visits = visit;
	check->health->n_visits++;
	bufferevent_setcb(visit->stream, on_read, on_written, on_end, visit);
	bufferevent_setwatermark(visit->stream, EV_READ, 0, HEAD_MAX);
	bufferevent_enable(visit->stream, EV_READ | EV_WRITE);
	/* Of the whole visit: a time-out of the stream's begins anew with each byte. */
	evtimer_add(visit->late, &limit);
}

/* --- checks --- */

/* Both families on one socket; where there is no IPv6, IPv4. */
static struct evconnlistener *listen_at(struct health_check *check)
{
	struct sockaddr_in6 both = { .sin6_family = AF_INET6, .sin6_port = htons(check->port) };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(check->port) };
	unsigned int flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
	struct evconnlistener *listener;

	listener = evconnlistener_new_bind(check->health->base, on_accept, check, flags, BACKLOG,
					   (struct sockaddr *)&both, sizeof(both));
	if (!listener && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
		listener = evconnlistener_new_bind(check->health->base, on_accept, check, flags,
						   BACKLOG, (struct sockaddr *)&four, sizeof(four));
	return listener;
}

static void try_listen(struct health_check *check, bool tell)
{
	const struct timeval again = { .tv_sec = AGAIN_S };
	struct kube *kube = check->health->kube;

	check->listener = listen_at(check);
	if (check->listener)
		kube_detail(kube, "%s: health checks are answered at port %u", check->group->key,
			    check->port);
	else if (tell && errno == EADDRINUSE)
		kube_detail(kube, "%s: health checks at port %u are left to who has it already",
			    check->group->key, check->port);
	else if (tell)
		kube_warn(kube, "%s: health checks at port %u cannot be answered: %s",
			  check->group->key, check->port, strerror(errno));
	if (!check->listener && !evtimer_pending(check->health->again, NULL))
		evtimer_add(check->health->again, &again);
}

static void listen_again(struct health *health)
{
	for (struct health_check *check = health->checks; check; check = check->next)
		if (!check->listener)
			try_listen(check, false);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	listen_again(arg);
}

static void end_check(struct health_check *check)
{
	struct health_check **at = &check->health->checks;

	while (*at != check)
		at = &(*at)->next;
	*at = check->next;
	while (check->visits)
		end_visit(check->visits);
	if (check->listener)
		evconnlistener_free(check->listener);
	free(check);
}

int health_update(struct health *health, struct group *group, bool served)
{
	const struct kube_service *service = group->service;
	uint16_t port = served && service && service->external_local &&
			service->type == KUBE_TYPE_LOADBALANCER ? service->health_port : 0;
	struct health_check *check = group->health;
	size_t n = 0;

	if (port && resolve_count_local(group, &n) < 0)
		return -ENOMEM;
	if (check && check->port != port) {
		end_check(check);
		group->health = check = NULL;
		/* Another of our Services may have been given the port before this one gave it back. */
		listen_again(health);
	}
	if (check)
		check->n_local = n;
	if (check || !port)
		return 0;
	check = calloc(1, sizeof(*check));
	if (!check)
		return -ENOMEM;
	*check = (struct health_check){
		.health = health, .group = group, .port = port, .n_local = n,
		.next = health->checks,
	};
	health->checks = group->health = check;
	try_listen(check, true);
	return 0;
}

/* --- life --- */

struct health *health_new(struct kube *kube, struct event_base *base)
{
	struct health *health = calloc(1, sizeof(*health));

	if (!health)
		return NULL;
	health->kube = kube;
	health->base = base;
	health->again = evtimer_new(base, on_again, health);
	if (!health->again) {
		free(health);
		return NULL;
	}
	return health;
}

void health_free(struct health *health)
{
	if (!health)
		return;
	while (health->checks)
		end_check(health->checks);
	event_free(health->again);
	free(health);
}
