/* SPDX-License-Identifier: GPL-2.0 */
/* What verbs do with the running load balancer before they can do what they are for. */
#ifndef XLB_SESSION_H
#define XLB_SESSION_H

#include "base/cleanup.h"
#include "commands/command.h"
#include "datapath/datapath.h"

/*
 * All return an exit status; where it is not STATUS_OK, a line on stderr has said why, and nothing
 * was changed.
 */

/* Opens what is pinned, to read. datapath_close() it, or _cleanup_(datapath_close_pointer). */
int session_open(const struct command_line *line, struct datapath **ret_dp);
/* Opens and takes the writers' lock, which closing gives back. Says so if it has to wait. */
int session_open_locked(const struct command_line *line, struct datapath **ret_dp);
/* The `waiting` of datapath_lock(). */
void session_waiting(const char *pin_dir);

/* A service, as "ADDR:PORT/tcp". */
int session_parse_vip(const struct command_line *line, const char *text, struct endpoint *ret_vip);
/* The operands "SERVICE ADDR[:PORT]": the first two of the line. */
int session_parse_endpoints(const struct command_line *line, struct endpoint *ret_vip,
			    struct endpoint *ret_backend);

/* The running service of that VIP. Owned by dp. */
int session_find_service(struct datapath *dp, const struct endpoint *vip,
			 const struct service **ret_service);
/* The backend of that address; part of the service. */
int session_find_backend(const struct service *service, const struct endpoint *address,
			 struct backend **ret_backend);
/*
 * A copy of the running service of that VIP, to be changed and applied. Refused if it belongs to
 * Kubernetes or to a file, unless `force`. The caller's, for service_free().
 */
int session_copy_service(struct datapath *dp, const struct endpoint *vip, bool force,
			 struct service **ret_service);
/* Makes the service be like that; NULL: no more. */
int session_apply(struct datapath *dp, const struct endpoint *vip, const struct service *after);

/* As arguments of _cleanup_. */
void datapath_close_pointer(struct datapath **dp);
void service_free_pointer(struct service **service);

#endif
