/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who we are, for each request: a token, a certificate, or both.
 *
 * Token files are read for every request, since tokens rotate. What an exec plugin printed is kept
 * until it expires or the server refuses it; the plugin runs beside the event loop and requests
 * wait for it.
 */
#ifndef XLB_KUBERNETES_CREDENTIALS_H
#define XLB_KUBERNETES_CREDENTIALS_H

#include <curl/curl.h>

#include "kubernetes/config.h"

struct event_base;
struct credentials;

/* A request that wants credentials. In the list of waiters while an exec plugin runs. */
struct credentials_wait {
	void (*ready)(void *arg, int code, const struct error *err);	/* code: 0 or -errno */
	void *arg;
	struct credentials_wait *next;
};

/* config is borrowed. NULL: out of memory. */
struct credentials *credentials_new(const struct config *config, struct event_base *base,
				    unsigned int timeout_s);
void credentials_free(struct credentials *credentials);

/* 0: there are some now. 1: wait->ready() will be called. -errno: there will be none. */
int credentials_get(struct credentials *credentials, struct credentials_wait *wait,
		    struct error *err);
void credentials_cancel(struct credentials *credentials, struct credentials_wait *wait);
/* The server refused them: what was kept is forgotten. */
void credentials_refused(struct credentials *credentials);

/* Puts them on a handle; headers are appended to *headers, the caller's to free. */
int credentials_apply(const struct credentials *credentials, CURL *handle,
		      struct curl_slist **headers, struct error *err);

#endif
