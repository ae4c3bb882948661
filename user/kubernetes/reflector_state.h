/* SPDX-License-Identifier: GPL-2.0 */
/* A reflector, for its two files: requests are made in one, and what they bring is read in the other. */
#ifndef XLB_KUBERNETES_REFLECTOR_STATE_H
#define XLB_KUBERNETES_REFLECTOR_STATE_H

#include "kubernetes/json_stream.h"
#include "kubernetes/reflector.h"
#include "kubernetes/retry.h"

enum { HTTP_GONE = 410 };

struct event;

/* Which request is under way, or is next. */
enum phase {
	PHASE_LIST,		/* pages */
	PHASE_STREAM,		/* a watch that began with all there is, which is not all here yet */
	PHASE_WATCH,
};

struct reflector {
	const struct resource *resource;
	struct kube *kube;
	struct api *api;
	struct reflector_calls calls;
	void *arg;
	struct event *timer;		/* the next request is due */
	struct api_request *request;
	struct json_stream *stream;	/* of the answer under way */
	struct retry retry;
	bool failing;

	enum phase phase;
	bool plain;			/* lists are not to be had as streams from this server */
	/* this list is taken in one piece: a 410 came between pages */
	bool whole;
	bool page_read;			/* the answer under way was a list indeed */
	char *version;			/* resourceVersion to watch from */
	char *next_page;		/* token; NULL: the first page, or the last one was read */
	struct kube_list list;		/* what the pages, or the stream, held so far */
	uint64_t list_bytes;
	uint64_t expired_ns;		/* when a 410 came last; 0: never */
	long watch_error;		/* code of an ERROR event; 0: none */
	unsigned int refusals;		/* of watches, one after the other, by the server itself */
};

/* To read a page of a list; and a stream or a watch. Their argument is the reflector. */
extern const struct json_stream_calls reflector_list_calls, reflector_watch_calls;

void reflector_working(struct reflector *reflector);	/* the server answered as it should */
void reflector_forget_list(struct reflector *reflector);
/* All is known: what the list says, and nothing else, counts from now on. -ENOMEM. */
int reflector_take_list(struct reflector *reflector, struct error *err);

#endif
