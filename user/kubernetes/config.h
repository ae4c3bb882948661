/* SPDX-License-Identifier: GPL-2.0 */
/* Where the API server is and how to prove who we are: from a kubeconfig, or from inside a Pod. */
#ifndef XLB_KUBERNETES_CONFIG_H
#define XLB_KUBERNETES_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* What stands in the file itself, or where it is to be read from; at most one of the two. */
struct config_text {
	char *data;
	size_t size;
	char *path;
};

/* users[].user.exec: a program that prints credentials (client.authentication.k8s.io). */
struct config_exec {
	char **argv;		/* NULL at the end */
	/* additions, "NAME=value", NULL at the end; KUBERNETES_EXEC_INFO is among them */
	char **environment;
	char *api_version;
	char *install_hint;	/* NULL: none */
};

struct config {
	char *origin;		/* what to name in errors: a path, or "in-cluster" */
	char *server;		/* "https://host:port/prefix", without a slash at the end */
	char *server_name;	/* tls-server-name; NULL: the host of the URL */
	char *proxy;		/* proxy-url; NULL: as the environment says */
	bool insecure;		/* insecure-skip-tls-verify */
	struct config_text authority;
	struct config_text certificate, key;
	char *token;
	char *token_path;	/* read again for every request: it rotates */
	char *username, *password;
	char **impersonate;	/* headers, NULL at the end; NULL: none */
	struct config_exec *exec;	/* NULL: none */
};

/* path: --kubeconfig or NULL; context: --context or NULL. Errors name the file and the entry. */
int config_load(const char *path, const char *context, struct config **ret_config,
		struct error *err);
void config_free(struct config *config);	/* NULL is fine */

#endif
