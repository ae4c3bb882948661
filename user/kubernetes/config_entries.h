/* SPDX-License-Identifier: GPL-2.0 */
/* One cluster and one user of a kubeconfig; for config.c. */
#ifndef XLB_KUBERNETES_CONFIG_ENTRIES_H
#define XLB_KUBERNETES_CONFIG_ENTRIES_H

#include <jansson.h>

#include "kubernetes/config.h"

/*
 * path: the file in which the entry stands. They fill their part of *config, which keeps what it
 * got when they fail.
 */
int config_read_cluster(const json_t *cluster, const char *path, struct config *config,
			struct error *err);
int config_read_user(const json_t *user, const char *path, const json_t *cluster,
		     struct config *config, struct error *err);

#endif
