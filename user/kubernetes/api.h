/* SPDX-License-Identifier: GPL-2.0 */
/*
 * GET requests to one API server, any number at a time, on an event loop.
 *
 * libcurl does HTTP and TLS. The server's certificate is verified always, unless the kubeconfig
 * says insecure-skip-tls-verify. Redirects are not followed. A request fails when the server cannot
 * be reached, does not begin to answer within the time-out, or stops in the middle of it; a stream
 * (a watch) may be silent until its deadline.
 */
#ifndef XLB_KUBERNETES_API_H
#define XLB_KUBERNETES_API_H

#include <stdbool.h>
#include <stdint.h>

#include "kubernetes/config.h"

struct event_base;
struct api;
struct api_request;

struct api_result {
	/* 0: an answer came in full; else -errno: it did not, and error says why */
	int code;
	long status;			/* of HTTP; 0: none came */
	unsigned int retry_after_s;	/* Retry-After; 0: none */
	bool refused;			/* the credentials were not accepted (401) */
	/* also for a status that is not 200: what the server said */
	struct error error;
	uint64_t bytes;			/* of the body, decompressed */
	uint64_t lasted_ns;
};

struct api_calls {
	/*
	 * The headers of an answer with status 200 are there. May be NULL. Cancelling is not
	 * allowed in here, nor in data().
	 */
	void (*started)(void *arg);
	/*
	 * A piece of the body of an answer with status 200. An error ends the request, and is its
	 * result.
	 */
	int (*data)(void *arg, const void *data, size_t size, struct error *err);
	/* The end. The request is gone when this returns; a new one may be made in here. */
	void (*done)(void *arg, const struct api_result *result);
};

/* detail: for -v, may be NULL. config is borrowed. */
int api_new(const struct config *config, struct event_base *base, unsigned int timeout_s,
	    void (*detail)(void *arg, const char *line), void *arg, struct api **ret_api,
	    struct error *err);
void api_free(struct api *api);		/* after all requests are done or cancelled */

/*
 * path: "/api/v1/services?limit=500", escaped already. stream_s: 0, or a stream that the server is
 * to end after so long; where it does not, it is ended a request's time-out later (-ETIMEDOUT). All
 * results come through done(), later. -ENOMEM.
 */
int api_get(struct api *api, const char *path, unsigned int stream_s, const struct api_calls *calls,
	    void *arg, struct api_request **ret_request);
void api_cancel(struct api_request *request);	/* without done(); NULL is fine */

/* For a query: the caller frees. */
char *api_escape(const char *text);

#endif
