// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/config_entries.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kubernetes/decode_fields.h"
#include "kubernetes/yaml.h"

/* A copy of a string; NULL if it is missing or empty. */
static int get_text(const json_t *object, const char *key, char **ret_text, struct error *err)
{
	const char *text = NULL;
	int r = json_get_string(object, key, &text, err);

	return r < 0 ? r : decode_text(text && *text ? text : NULL, ret_text, err);
}

/* `value` as seen from the folder of the file `from`. */
static int resolve_path(const char *value, const char *from, char **ret_path, struct error *err)
{
	_cleanup_(free_pointer) char *copy = strdup(from);
	char *path;

	if (!copy)
		return error_set(err, ENOMEM, "out of memory");
	if (*value == '/')
		path = strdup(value);
	else if (asprintf(&path, "%s/%s", dirname(copy), value) < 0)
		path = NULL;
	if (!path)
		return error_set(err, ENOMEM, "out of memory");
	*ret_path = path;
	return 0;
}

static int get_path(const json_t *object, const char *key, const char *from, char **ret_path,
		    struct error *err)
{
	const char *value = NULL;
	int r = json_get_string(object, key, &value, err);

	if (r < 0 || !value || !*value)
		return r;
	return resolve_path(value, from, ret_path, err);
}

/*
 * "KEY-data", base64, before "KEY", a path. A file that cannot be read is named here, not by the
 * TLS library.
 */
static int get_material(const json_t *object, const char *key, const char *from,
			struct config_text *ret_text, struct error *err)
{
	_cleanup_(free_pointer) char *data_key = NULL, *content = NULL;
	const char *data = NULL;
	size_t size;
	int r;

	if (asprintf(&data_key, "%s-data", key) < 0)
		return error_set(err, ENOMEM, "out of memory");
	r = json_get_string(object, data_key, &data, err);
	if (r < 0)
		return r;
	if (data && *data) {
		if (base64_decode(data, &ret_text->data, &ret_text->size) < 0)
			return error_set(err, EINVAL, "%s: not base64", data_key);
		return 0;
	}
	r = get_path(object, key, from, &ret_text->path, err);
	if (r < 0 || !ret_text->path)
		return r;
	r = read_small_file(ret_text->path, 1 << 20, &content, &size, err);
	return r < 0 ? error_prefix(err, r, "%s", key) : 0;
}

/*
 * "localhost", 127.0.0.0/8 and ::1: what `kubectl proxy` listens on. A name that begins with "127."
 * is somebody else's.
 */
static bool is_loopback(const char *host)
{
	struct in_addr address;

	if (!strcasecmp(host, "localhost") || !strcmp(host, "[::1]"))
		return true;
	return inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

static int check_server(const char *server, struct error *err)
{
	_cleanup_(free_pointer) char *scheme = NULL, *host = NULL;
	CURLU *url = curl_url();
	int r = 0;

	if (!url)
		return error_set(err, ENOMEM, "out of memory");
	if (curl_url_set(url, CURLUPART_URL, server, CURLU_NON_SUPPORT_SCHEME) ||
	    curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) ||
	    curl_url_get(url, CURLUPART_HOST, &host, 0))
		r = error_set(err, EINVAL, "server: \"%.128s\" is no URL", server);
	else if (!strcmp(scheme, "http") && !is_loopback(host))
		r = error_set(err, EINVAL, "server: %s: plain HTTP is allowed to this machine only",
			      server);
	else if (strcmp(scheme, "https") && strcmp(scheme, "http"))
		r = error_set(err, EINVAL, "server: \"%.128s\" is neither https:// nor http://",
			      server);
	curl_url_cleanup(url);
	return r;
}

int config_read_cluster(const json_t *cluster, const char *path, struct config *config,
			struct error *err)
{
	size_t length;
	int r;

	r = get_text(cluster, "server", &config->server, err);
	if (r >= 0 && !config->server)
		r = error_set(err, EINVAL, "server is missing");
	if (r >= 0)
		r = check_server(config->server, err);
	if (r < 0)
		return r;
	for (length = strlen(config->server); length && config->server[length - 1] == '/'; length--)
		config->server[length - 1] = 0;

	r = json_get_boolean(cluster, "insecure-skip-tls-verify", false, &config->insecure, err);
	if (r >= 0)
		r = get_text(cluster, "tls-server-name", &config->server_name, err);
	if (r >= 0)
		r = get_text(cluster, "proxy-url", &config->proxy, err);
	if (r >= 0)
		r = get_material(cluster, "certificate-authority", path, &config->authority, err);
	return r;
}

/* --- exec plugins --- */

static int add_string(char **strings, size_t *n, char *string, struct error *err)
{
	if (!string)
		return error_set(err, ENOMEM, "out of memory");
	strings[(*n)++] = string;
	return 0;
}

static int read_arguments(const json_t *body, const char *path, struct config_exec *exec,
			  struct error *err)
{
	const json_t *list = NULL;
	char *command = NULL;
	const char *text;
	size_t n = 0;
	int r = json_get_list(body, "args", &list, err);

	if (r < 0)
		return r;
	exec->argv = calloc(json_array_size(list) + 2, sizeof(*exec->argv));
	if (!exec->argv)
		return error_set(err, ENOMEM, "out of memory");
	/* A command with a slash is relative to the kubeconfig, one without is searched in PATH. */
	r = json_get_string(body, "command", &text, err);
	if (r < 0)
		return r;
	if (!text || !*text)
		return error_set(err, EINVAL, "command is missing");
	if (strchr(text, '/'))
		r = resolve_path(text, path, &command, err);
	else
		r = decode_text(text, &command, err);
	if (r < 0)
		return r;
	exec->argv[n++] = command;
	for (size_t i = 0; i < json_array_size(list); i++) {
		text = json_string_value(json_array_get(list, i));
		if (!text)
			return error_set(err, EINVAL, "args[%zu]: a string is expected", i);
		r = add_string(exec->argv, &n, strdup(text), err);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * The cluster as a plugin sees it: its authority is in there, since a path would be one from another
 * folder's point of view, and not a field of that API. NULL: out of memory, or the file went away.
 */
static json_t *inline_cluster(const json_t *cluster, const struct config_text *authority)
{
	_cleanup_(free_pointer) char *content = NULL, *encoded = NULL;
	json_t *copy = json_deep_copy(cluster);
	struct error unused;
	size_t size;

	json_object_del(copy, "certificate-authority");
	if (!authority->path)
		return copy;
	if (read_small_file(authority->path, 1 << 20, &content, &size, &unused) >= 0)
		encoded = base64_encode(content, size);
	if (!encoded || json_object_set_new(copy, "certificate-authority-data",
					    json_string(encoded)) < 0) {
		json_decref(copy);
		return NULL;
	}
	return copy;
}

/* What the plugin may know about the cluster, if the kubeconfig says so. */
static char *exec_info(const struct config *config, const json_t *cluster, bool with_cluster)
{
	const struct config_exec *exec = config->exec;
	json_t *info, *spec = json_pack("{s:b}", "interactive", 0);
	json_t *copy = with_cluster ? inline_cluster(cluster, &config->authority) : NULL;
	char *text, *line = NULL;

	if (with_cluster && !copy) {
		json_decref(spec);
		return NULL;
	}
	if (copy)
		json_object_set_new(spec, "cluster", copy);
	info = json_pack("{s:s, s:s, s:o}", "kind", "ExecCredential", "apiVersion",
			 exec->api_version, "spec", spec);
	text = info ? json_dumps(info, JSON_COMPACT) : NULL;
	if (!text || asprintf(&line, "KUBERNETES_EXEC_INFO=%s", text) < 0)
		line = NULL;
	free(text);
	json_decref(info);
	return line;
}

static int read_environment(const json_t *body, const json_t *cluster, struct config *config,
			    struct error *err)
{
	struct config_exec *exec = config->exec;
	const json_t *list = NULL;
	const char *name = NULL, *value = NULL;
	bool with_cluster = false;
	char *line;
	size_t n = 0;
	int r = json_get_list(body, "env", &list, err);

	if (r >= 0)
		r = json_get_boolean(body, "provideClusterInfo", false, &with_cluster, err);
	if (r < 0)
		return r;
	exec->environment = calloc(json_array_size(list) + 2, sizeof(*exec->environment));
	if (!exec->environment)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < json_array_size(list); i++) {
		r = json_get_string(json_array_get(list, i), "name", &name, err);
		if (r >= 0)
			r = json_get_string(json_array_get(list, i), "value", &value, err);
		if (r >= 0 && !name)
			r = error_set(err, EINVAL, "name is missing");
		if (r >= 0)
			r = add_string(
				exec->environment, &n,
				asprintf(&line, "%s=%s", name, value ?: "") < 0 ? NULL : line, err);
		if (r < 0)
			return error_prefix(err, r, "env[%zu]", i);
	}
	return add_string(exec->environment, &n, exec_info(config, cluster, with_cluster), err);
}

static int read_exec(const json_t *body, const char *path, const json_t *cluster,
		     struct config *config, struct error *err)
{
	static const char *const versions[] = {
		"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1",
	};
	struct config_exec *exec = calloc(1, sizeof(*exec));
	int r;

	if (!exec)
		return error_set(err, ENOMEM, "out of memory");
	config->exec = exec;
	r = get_text(body, "apiVersion", &exec->api_version, err);
	if (r < 0)
		return r;
	if (!exec->api_version ||
	    (strcmp(exec->api_version, versions[0]) && strcmp(exec->api_version, versions[1])))
		return error_set(err, EINVAL, "apiVersion: \"%.64s\" is neither %s nor v1beta1",
				 exec->api_version ?: "", versions[0]);
	r = get_text(body, "installHint", &exec->install_hint, err);
	if (r >= 0)
		r = read_arguments(body, path, exec, err);
	if (r >= 0)
		r = read_environment(body, cluster, config, err);
	return r;
}

/* --- users --- */

/* as, as-uid and as-groups: the API server acts as if we were somebody else, if we may. */
static int read_impersonation(const json_t *user, struct config *config, struct error *err)
{
	const char *name = NULL, *uid = NULL, *text;
	const json_t *groups = NULL;
	size_t n = 0;
	char *line;
	int r;

	/* To act as somebody with less than was asked for is to act as somebody else. */
	if (json_object_size(json_object_get(user, "as-user-extra")))
		return error_set(err, EINVAL, "as-user-extra is not supported");
	r = json_get_string(user, "as", &name, err);
	if (r >= 0)
		r = json_get_string(user, "as-uid", &uid, err);
	if (r >= 0)
		r = json_get_list(user, "as-groups", &groups, err);
	if (r < 0 || !name || !*name)
		return r;
	config->impersonate = calloc(json_array_size(groups) + 3, sizeof(*config->impersonate));
	if (!config->impersonate)
		return error_set(err, ENOMEM, "out of memory");
	r = add_string(config->impersonate, &n,
		       asprintf(&line, "Impersonate-User: %s", name) < 0 ? NULL : line, err);
	if (r >= 0 && uid)
		r = add_string(config->impersonate, &n,
			       asprintf(&line, "Impersonate-Uid: %s", uid) < 0 ? NULL : line, err);
	for (size_t i = 0; r >= 0 && i < json_array_size(groups); i++) {
		text = json_string_value(json_array_get(groups, i));
		if (!text)
			return error_set(err, EINVAL, "as-groups[%zu]: a string is expected", i);
		r = add_string(config->impersonate, &n,
			       asprintf(&line, "Impersonate-Group: %s", text) < 0 ? NULL : line,
			       err);
	}
	return r;
}

static int read_tokens(const json_t *user, const char *path, struct config *config,
		       struct error *err)
{
	_cleanup_(free_pointer) char *content = NULL;
	size_t size;
	int r;

	r = get_path(user, "tokenFile", path, &config->token_path, err);
	if (r < 0)
		return r;
	if (config->token_path) {	/* wins over token, as kubectl has it */
		r = read_small_file(config->token_path, 1 << 20, &content, &size, err);
		return r < 0 ? error_prefix(err, r, "tokenFile") : 0;
	}
	return get_text(user, "token", &config->token, err);
}

int config_read_user(const json_t *user, const char *path, const json_t *cluster,
		     struct config *config, struct error *err)
{
	const json_t *exec = NULL;
	int r;

	r = get_material(user, "client-certificate", path, &config->certificate, err);
	if (r >= 0)
		r = get_material(user, "client-key", path, &config->key, err);
	if (r >= 0)
		r = read_tokens(user, path, config, err);
	if (r >= 0)
		r = get_text(user, "username", &config->username, err);
	if (r >= 0)
		r = get_text(user, "password", &config->password, err);
	if (r >= 0)
		r = read_impersonation(user, config, err);
	if (r >= 0)
		r = json_get_object(user, "exec", &exec, err);
	if (r < 0)
		return r;
	if (json_object_get(user, "auth-provider"))
		return error_set(err, EINVAL, "auth-provider is not supported: use exec");
	if (!!(config->certificate.data || config->certificate.path) !=
	    !!(config->key.data || config->key.path))
		return error_set(err, EINVAL, "client-certificate and client-key belong together");
	if (!exec)
		return 0;
	r = read_exec(exec, path, cluster, config, err);
	return r < 0 ? error_prefix(err, r, "exec") : 0;
}
