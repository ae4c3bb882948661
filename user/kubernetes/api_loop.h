/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Transfers of libcurl on an event loop of libevent: what the manual calls the multi socket
 * interface.
 */
#ifndef XLB_KUBERNETES_API_LOOP_H
#define XLB_KUBERNETES_API_LOOP_H

#include <curl/curl.h>

struct event_base;
struct api_loop;

struct api_loop *api_loop_new(struct event_base *base);	/* NULL: out of memory */
void api_loop_free(struct api_loop *loop);		/* NULL is fine; no transfer may be left */

/*
 * Starts a transfer. finished() is called from the event loop, never from within this call; the
 * handle is the caller's to remove.
 */
int api_loop_add(struct api_loop *loop, CURL *handle, void (*finished)(void *arg, CURLcode code),
		 void *arg);
void api_loop_remove(struct api_loop *loop, CURL *handle);	/* also one that was not added */

#endif
