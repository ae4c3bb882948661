// SPDX-License-Identifier: GPL-2.0
/*
 * Kubeconfig files.
 *
 * Several files (KUBECONFIG) count as one: of entries with the same name, and of current-context,
 * the first one holds. Relative paths are relative to the file in which they stand. What is wrong
 * with an entry is an error only if that entry is used.
 */
#include "kubernetes/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kubernetes/config_entries.h"
#include "kubernetes/decode_fields.h"
#include "kubernetes/yaml.h"

#define SERVICE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

enum { FILES_MAX = 16 };

struct files {
	struct {
		char *path;
		json_t *tree;
	} file[FILES_MAX];
	unsigned int n;
};

/* An entry of clusters, users or contexts. */
struct entry {
	const json_t *body;
	const char *path;	/* of the file that it is from */
};

static void free_files(struct files *files)
{
	for (unsigned int i = 0; i < files->n; i++) {
		json_decref(files->file[i].tree);
		free(files->file[i].path);
	}
}

static void free_config(struct config **config)
{
	config_free(*config);
}

static void free_text(struct config_text *text)
{
	if (text->data)
		explicit_bzero(text->data, text->size);
	free(text->data);
	free(text->path);
}

static void free_strings(char **strings)
{
	for (char **string = strings; string && *string; string++)
		free(*string);
	free(strings);
}

void config_free(struct config *config)
{
	if (!config)
		return;
	free(config->origin);
	free(config->server);
	free(config->server_name);
	free(config->proxy);
	free_text(&config->authority);
	free_text(&config->certificate);
	free_text(&config->key);
	free(config->token);
	free(config->token_path);
	free(config->username);
	free(config->password);
	free_strings(config->impersonate);
	if (config->exec) {
		free_strings(config->exec->argv);
		free_strings(config->exec->environment);
		free(config->exec->api_version);
		free(config->exec->install_hint);
		free(config->exec);
	}
	free(config);
}

static int load_file(struct files *files, const char *path, struct error *err)
{
	json_t *tree;
	int r;

	if (files->n == FILES_MAX)
		return error_set(err, E2BIG, "KUBECONFIG: more than %d files", FILES_MAX);
	r = yaml_load_file(path, &tree, err);
	if (r < 0)
		return error_prefix(err, r, "kubeconfig");
	if (!json_is_object(tree)) {
		json_decref(tree);
		return error_set(err, EINVAL, "kubeconfig: %s: a mapping is expected", path);
	}
	files->file[files->n].path = strdup(path);
	files->file[files->n].tree = tree;
	return files->file[files->n++].path ? 0 : error_set(err, ENOMEM, "out of memory");
}

/* KUBECONFIG: a list of paths; those that do not exist are passed over, as kubectl does. */
static int load_environment(struct files *files, const char *list, struct error *err)
{
	_cleanup_(free_pointer) char *copy = strdup(list);
	char *path, *state = NULL;
	int r;

	if (!copy)
		return error_set(err, ENOMEM, "out of memory");
	for (path = strtok_r(copy, ":", &state); path; path = strtok_r(NULL, ":", &state)) {
		r = load_file(files, path, err);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return files->n ? 0 :
			  error_set(err, ENOENT, "kubeconfig: KUBECONFIG=%s: no such file", list);
}

/* The value of `kind`[].`inner` whose name is `name`; body is NULL if there is none. */
static int find_entry(const struct files *files, const char *kind, const char *inner,
		      const char *name, struct entry *ret_entry, struct error *err)
{
	const json_t *list = NULL, *body = NULL;
	const char *found;
	int r = 0;

	*ret_entry = (struct entry){};
	for (unsigned int i = 0; i < files->n && r >= 0; i++) {
		r = json_get_list(files->file[i].tree, kind, &list, err);
		for (size_t j = 0; r >= 0 && j < json_array_size(list); j++) {
			const json_t *item = json_array_get(list, j);

			found = json_string_value(json_object_get(item, "name"));
			if (!found || strcmp(found, name))
				continue;
			r = json_get_object(item, inner, &body, err);
			if (r < 0)
				return error_prefix(err, r, "kubeconfig: %s: %s \"%s\"",
						    files->file[i].path, inner, name);
			if (!body)
				continue;
			ret_entry->body = body;
			ret_entry->path = files->file[i].path;
			return 0;
		}
		if (r < 0)
			return error_prefix(err, r, "kubeconfig: %s", files->file[i].path);
	}
	return 0;
}

static int find_needed(const struct files *files, const char *kind, const char *inner,
		       const char *name, const char *needed_by, struct entry *ret_entry,
		       struct error *err)
{
	int r = find_entry(files, kind, inner, name, ret_entry, err);

	if (r < 0)
		return r;
	if (!ret_entry->body)
		return error_set(err, ENOENT, "kubeconfig: %s: there is no %s \"%s\"%s",
				 files->file[0].path, inner, name, needed_by);
	return 0;
}

static int find_context_name(const struct files *files, const char *wanted, const char **ret_name,
			     struct error *err)
{
	const char *name = wanted;
	int r = 0;

	for (unsigned int i = 0; !name && i < files->n; i++) {
		r = json_get_string(files->file[i].tree, "current-context", &name, err);
		if (r < 0)
			return error_prefix(err, r, "kubeconfig: %s", files->file[i].path);
		if (name && !*name)
			name = NULL;
	}
	if (!name)
		return error_set(err, ENOENT, "kubeconfig: %s: no current-context: give --context",
				 files->file[0].path);
	*ret_name = name;
	return 0;
}

/* The chosen context's cluster and user as a configuration. */
static int build(const struct files *files, const char *wanted_context, struct config *config,
		 struct error *err)
{
	const char *context_name = NULL, *cluster_name = NULL, *user_name = NULL;
	struct entry context, cluster, user = {};
	int r;

	r = find_context_name(files, wanted_context, &context_name, err);
	if (r >= 0)
		r = find_needed(files, "contexts", "context", context_name, "", &context, err);
	if (r < 0)
		return r;
	config->origin = strdup(context.path);
	r = json_get_string(context.body, "cluster", &cluster_name, err);
	if (r >= 0)
		r = json_get_string(context.body, "user", &user_name, err);
	if (r >= 0 && !cluster_name)
		r = error_set(err, EINVAL, "cluster is missing");
	if (r < 0)
		return error_prefix(err, r, "kubeconfig: %s: context \"%s\"", context.path,
				    context_name);

	r = find_needed(files, "clusters", "cluster", cluster_name, ", which the context names",
			&cluster, err);
	if (r >= 0 && user_name && *user_name)
		r = find_needed(files, "users", "user", user_name, ", which the context names",
				&user, err);
	if (r < 0)
		return r;
	r = config_read_cluster(cluster.body, cluster.path, config, err);
	if (r < 0)
		return error_prefix(err, r, "kubeconfig: %s: cluster \"%s\"", cluster.path,
				    cluster_name);
	if (!user.body)
		return 0;
	r = config_read_user(user.body, user.path, cluster.body, config, err);
	return r < 0 ? error_prefix(err, r, "kubeconfig: %s: user \"%s\"", user.path, user_name) :
		       0;
}

/* What the kubelet gives to every Pod. */
static int load_in_cluster(const char *host, const char *port, struct config *config,
			   struct error *err)
{
	bool brackets = strchr(host, ':');

	config->origin = strdup("in-cluster");
	config->authority.path = strdup(SERVICE_ACCOUNT "/ca.crt");
	config->token_path = strdup(SERVICE_ACCOUNT "/token");
	if (asprintf(&config->server, "https://%s%s%s:%s", brackets ? "[" : "", host,
		     brackets ? "]" : "", port) < 0)
		config->server = NULL;
	if (!config->origin || !config->authority.path || !config->token_path || !config->server)
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

static int load_home(struct files *files, struct error *err)
{
	_cleanup_(free_pointer) char *path = NULL;
	const char *home = getenv("HOME") ?: "/root";
	int r;

	if (asprintf(&path, "%s/.kube/config", home) < 0)
		return error_set(err, ENOMEM, "out of memory");
	r = load_file(files, path, err);
	return r == -ENOENT ?
		       error_set(
			       err, ENOENT,
			       "kubeconfig: %s is not there: give --kubeconfig, or set KUBECONFIG",
			       path) :
		       r;
}

int config_load(const char *path, const char *context, struct config **ret_config,
		struct error *err)
{
	_cleanup_(free_config) struct config *config = calloc(1, sizeof(*config));
	_cleanup_(free_files) struct files files = {};
	const char *list = getenv("KUBECONFIG"), *host = getenv("KUBERNETES_SERVICE_HOST"),
		   *port = getenv("KUBERNETES_SERVICE_PORT");
	int r;

	if (!config)
		return error_set(err, ENOMEM, "out of memory");
	if (path)
		r = load_file(&files, path, err);
	else if (list && *list)
		r = load_environment(&files, list, err);
	else if (host && *host && port && *port && !context)
		r = load_in_cluster(host, port, config, err);
	else
		r = load_home(&files, err);
	if (r >= 0 && files.n)
		r = build(&files, context, config, err);
	if (r < 0)
		return r;
	*ret_config = steal_pointer(&config);
	return 0;
}
