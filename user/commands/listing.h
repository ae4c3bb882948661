/* SPDX-License-Identifier: GPL-2.0 */
/* Services and backends in the order and the form in which both `list` and `show` give them. */
#ifndef XLB_LISTING_H
#define XLB_LISTING_H

#include <jansson.h>

#include "datapath/datapath.h"

/* All services, by VIP. The array is the caller's, what it points to is dp's. 0 or -ENOMEM. */
int listing_services(struct datapath *dp, const struct service ***ret_services, size_t *ret_n);
/* 0 where they cannot be read: another lbctl removed the service meanwhile. */
struct counters listing_service_counters(struct datapath *dp, const struct service *service);

/*
 * The backends of these services, by address and port within each: a table, or a JSON array.
 * Returns an exit status.
 */
int listing_print_backends(struct datapath *dp, const struct service *const *services, size_t n,
			   bool json);
/* The same for one service as a JSON value; NULL: out of memory. */
json_t *listing_backends_json(struct datapath *dp, const struct service *service);
/* One backend; NULL: out of memory. */
json_t *listing_backend_json(struct datapath *dp, const struct service *service,
			     const struct backend *backend);

/* A line of `show`: "what  N packets, N bytes". */
void listing_print_count(const char *what, const struct xlb_count *count);

#endif
