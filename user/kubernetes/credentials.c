// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/credentials.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/event.h>

#include "base/cleanup.h"
#include "kubernetes/decode_fields.h"
#include "kubernetes/plugin.h"
#include "kubernetes/yaml.h"

enum {
	TOKEN_MAX = 1 << 20,
	EARLY_S = 10,	/* a token is renewed so much before it expires: clocks differ */
};

struct credentials {
	const struct config *config;
	struct event_base *base;
	unsigned int timeout_s;
	struct plugin *plugin;		/* running */
	struct credentials_wait *waiting;
	bool plugin_valid;		/* what follows came from the plugin and may be used */
	time_t expires;			/* 0: never */
	char *token, *certificate, *key;
};

struct credentials *credentials_new(const struct config *config, struct event_base *base,
				    unsigned int timeout_s)
{
	struct credentials *credentials = calloc(1, sizeof(*credentials));

	if (!credentials)
		return NULL;
	credentials->config = config;
	credentials->base = base;
	credentials->timeout_s = timeout_s;
	return credentials;
}

static void free_secret(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

static void forget(struct credentials *credentials)
{
	free_secret(&credentials->token);
	free_secret(&credentials->certificate);
	free_secret(&credentials->key);
	credentials->plugin_valid = false;
}

void credentials_free(struct credentials *credentials)
{
	if (!credentials)
		return;
	plugin_cancel(credentials->plugin);
	forget(credentials);
	free(credentials);
}

void credentials_refused(struct credentials *credentials)
{
	credentials->plugin_valid = false;
}

void credentials_cancel(struct credentials *credentials, struct credentials_wait *wait)
{
	struct credentials_wait **link = &credentials->waiting;

	while (*link && *link != wait)
		link = &(*link)->next;
	if (*link)
		*link = wait->next;
}

static int parse_time(const char *text, time_t *ret_time)
{
	struct tm tm = {};

	if (!strptime(text, "%Y-%m-%dT%H:%M:%S", &tm))
		return -EINVAL;
	*ret_time = timegm(&tm);
	return 0;
}

/* The status of an ExecCredential. */
static int take_status(struct credentials *credentials, const json_t *status, struct error *err)
{
	const char *token = NULL, *certificate = NULL, *key = NULL, *expires = NULL;
	int r;

	r = json_get_string(status, "token", &token, err);
	if (r >= 0)
		r = json_get_string(status, "clientCertificateData", &certificate, err);
	if (r >= 0)
		r = json_get_string(status, "clientKeyData", &key, err);
	if (r >= 0)
		r = json_get_string(status, "expirationTimestamp", &expires, err);
	if (r < 0)
		return r;
	if (!token && !certificate)
		return error_set(err, EINVAL, "neither token nor clientCertificateData");
	if (!!certificate != !!key)
		return error_set(err, EINVAL,
				 "clientCertificateData and clientKeyData belong together");
	credentials->expires = 0;
	if (expires && parse_time(expires, &credentials->expires) < 0)
		return error_set(err, EINVAL, "expirationTimestamp: \"%.32s\" is no time", expires);
	if (credentials->expires && credentials->expires <= time(NULL))
		return error_set(err, EKEYEXPIRED, "it has expired already (%s)", expires);
	forget(credentials);
	r = decode_text(token, &credentials->token, err);
	if (r >= 0)
		r = decode_text(certificate, &credentials->certificate, err);
	if (r >= 0)
		r = decode_text(key, &credentials->key, err);
	credentials->plugin_valid = r >= 0;
	return r;
}

static int take_output(struct credentials *credentials, const char *text, size_t size,
		       struct error *err)
{
	const char *name = credentials->config->exec->argv[0], *kind = NULL;
	json_error_t json_error;
	json_t *tree = json_loadb(text, size, JSON_REJECT_DUPLICATES, &json_error);
	const json_t *status = NULL;
	int r;

	if (!tree)
		return error_set(err, EINVAL, "exec plugin %s: not JSON: %s", name,
				 json_error.text);
	r = json_get_string(tree, "kind", &kind, err);
	if (r >= 0 && (!kind || strcmp(kind, "ExecCredential")))
		r = error_set(err, EINVAL, "kind: ExecCredential is expected");
	if (r >= 0)
		r = json_get_object(tree, "status", &status, err);
	if (r >= 0 && !status)
		r = error_set(err, EINVAL, "status is missing");
	if (r >= 0)
		r = take_status(credentials, status, err);
	json_decref(tree);
	return r < 0 ? error_prefix(err, r, "exec plugin %s", name) : 0;
}

static void on_plugin_done(void *arg, const char *text, size_t size, const struct error *plugin_err)
{
	struct credentials *credentials = arg;
	struct credentials_wait *wait = credentials->waiting, *next;
	struct error err = *plugin_err;
	int r = -EIO;

	credentials->plugin = NULL;
	credentials->waiting = NULL;
	if (text)
		r = take_output(credentials, text, size, &err);
	for (; wait; wait = next) {
		next = wait->next;
		wait->ready(wait->arg, r, &err);
	}
}

static bool plugin_still_valid(const struct credentials *credentials)
{
	return credentials->plugin_valid &&
	       (!credentials->expires || time(NULL) + EARLY_S < credentials->expires);
}

int credentials_get(struct credentials *credentials, struct credentials_wait *wait,
		    struct error *err)
{
	const struct config_exec *exec = credentials->config->exec;
	int r;

	if (!exec || plugin_still_valid(credentials))
		return 0;
	if (!credentials->plugin) {
		r = plugin_start(credentials->base, exec->argv, exec->environment,
				 credentials->timeout_s, on_plugin_done, credentials,
				 &credentials->plugin, err);
		if (r == -ENOENT && exec->install_hint)
			error_set(err, ENOENT, "exec plugin %s is not there: %s", exec->argv[0],
				  exec->install_hint);
		if (r < 0)
			return r;
	}
	wait->next = credentials->waiting;
	credentials->waiting = wait;
	return 1;
}

static int add_header(struct curl_slist **headers, const char *name, const char *value,
		      struct error *err)
{
	_cleanup_(free_pointer) char *line = NULL;
	struct curl_slist *grown;

	for (const char *c = value; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return error_set(err, EINVAL,
					 "%.32s: a control character in the credentials", name);
	if (asprintf(&line, "%s%s", name, value) < 0 ||
	    !(grown = curl_slist_append(*headers, line)))
		return error_set(err, ENOMEM, "out of memory");
	*headers = grown;
	return 0;
}

static int apply_token(const struct credentials *credentials, struct curl_slist **headers,
		       struct error *err)
{
	const struct config *config = credentials->config;
	_cleanup_(free_pointer) char *text = NULL;
	const char *token = credentials->plugin_valid ? credentials->token : config->token;
	size_t size;
	int r;

	if (config->token_path) {
		r = read_small_file(config->token_path, TOKEN_MAX, &text, &size, err);
		if (r < 0)
			return error_prefix(err, r, "token of %s", config->origin);
		while (size && strchr(" \t\r\n", text[size - 1]))
			text[--size] = 0;
		if (!size)
			return error_set(err, EINVAL, "token of %s: %s: it is empty",
					 config->origin, config->token_path);
		token = text;
	}
	return token ? add_header(headers, "Authorization: Bearer ", token, err) : 0;
}

static void set_blob(CURL *handle, CURLoption option, char *data, size_t size)
{
	struct curl_blob blob = { .data = data, .len = size, .flags = CURL_BLOB_COPY };

	curl_easy_setopt(handle, option, &blob);
}

static void set_material(CURL *handle, CURLoption blob, CURLoption path,
			 const struct config_text *text)
{
	if (text->data)
		set_blob(handle, blob, text->data, text->size);
	else if (text->path)
		curl_easy_setopt(handle, path, text->path);
}

int credentials_apply(const struct credentials *credentials, CURL *handle,
		      struct curl_slist **headers, struct error *err)
{
	const struct config *config = credentials->config;
	int r;

	r = apply_token(credentials, headers, err);
	for (char **line = config->impersonate; r >= 0 && line && *line; line++)
		r = add_header(headers, "", *line, err);
	if (r < 0)
		return r;
	if (credentials->plugin_valid && credentials->certificate) {
		set_blob(handle, CURLOPT_SSLCERT_BLOB, credentials->certificate,
			 strlen(credentials->certificate));
		set_blob(handle, CURLOPT_SSLKEY_BLOB, credentials->key, strlen(credentials->key));
	} else {
		set_material(handle, CURLOPT_SSLCERT_BLOB, CURLOPT_SSLCERT, &config->certificate);
		set_material(handle, CURLOPT_SSLKEY_BLOB, CURLOPT_SSLKEY, &config->key);
	}
	if (config->username) {
		curl_easy_setopt(handle, CURLOPT_USERNAME, config->username);
		curl_easy_setopt(handle, CURLOPT_PASSWORD, config->password ?: "");
	}
	return 0;
}
