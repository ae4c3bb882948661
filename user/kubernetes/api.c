// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/api.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <curl/curl.h>
#include <event2/event.h>

#include "base/cleanup.h"
#include "kubernetes/api_loop.h"
#include "kubernetes/clock.h"
#include "kubernetes/credentials.h"
#include "kubernetes/decode_fields.h"

enum {
	COMPLAINT_MAX = 64 << 10,	/* of the body of an answer that is not 200 */
	KEEPALIVE_IDLE_S = 30,
	KEEPALIVE_INTERVAL_S = 10,
	KEEPALIVE_COUNT = 3,
	BUFFER_SIZE = 256 << 10,
};

struct api {
	const struct config *config;
	struct event_base *base;
	unsigned int timeout_s;
	struct credentials *credentials;
	struct api_loop *loop;
	void (*detail)(void *, const char *);
	void *arg;
	bool fresh;	/* the last connection failed: the next request makes its own */
};

struct api_request {
	struct api *api;
	struct api_calls calls;
	void *arg;
	char *path;
	unsigned int stream_s;
	struct credentials_wait wait;
	bool waiting;
	CURL *handle;			/* NULL: not begun */
	CURLU *url;
	struct curl_slist *headers, *connect_to;
	/* no answer has begun by then; or: give the outcome of the start */
	struct event *late;
	char curl_error[CURL_ERROR_SIZE];
	char *complaint;
	size_t complaint_size;
	struct error error;
	int code;			/* of data() */
	uint64_t bytes, started_ns;
};

int api_new(const struct config *config, struct event_base *base, unsigned int timeout_s,
	    void (*detail)(void *arg, const char *line), void *arg, struct api **ret_api,
	    struct error *err)
{
	struct api *api = calloc(1, sizeof(*api));

	if (!api || curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(api);
		return error_set(err, ENOMEM, "out of memory");
	}
	*api = (struct api){
		.config = config,
		.base = base,
		.timeout_s = timeout_s,
		.detail = detail,
		.arg = arg,
	};
	api->credentials = credentials_new(config, base, timeout_s);
	api->loop = api_loop_new(base);
	if (!api->credentials || !api->loop) {
		api_free(api);
		return error_set(err, ENOMEM, "out of memory");
	}
	*ret_api = api;
	return 0;
}

void api_free(struct api *api)
{
	if (!api)
		return;
	api_loop_free(api->loop);
	credentials_free(api->credentials);
	free(api);
	curl_global_cleanup();
}

char *api_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0), *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}

static void free_request(struct api_request *request)
{
	if (request->handle) {
		api_loop_remove(request->api->loop, request->handle);
		curl_easy_cleanup(request->handle);
	}
	if (request->waiting)
		credentials_cancel(request->api->credentials, &request->wait);
	if (request->late)
		event_free(request->late);
	curl_url_cleanup(request->url);
	curl_slist_free_all(request->headers);
	curl_slist_free_all(request->connect_to);
	free(request->complaint);
	free(request->path);
	free(request);
}

void api_cancel(struct api_request *request)
{
	if (request)
		free_request(request);
}

/* --- results --- */

/* What a Status object says, or nothing. */
static void read_complaint(struct api_request *request, char *ret_text, size_t size)
{
	json_t *tree = request->complaint ?
		json_loadb(request->complaint, request->complaint_size, 0, NULL) : NULL;
	const char *message = json_string_value(json_object_get(tree, "message"));

	snprintf(ret_text, size, "%s", message ?: "");
	json_decref(tree);
}

static void describe_status(struct api_request *request, struct api_result *result)
{
	char said[512];
	const char *origin = request->api->config->origin;
	int length = strcspn(request->path, "?");

	read_complaint(request, said, sizeof(said));
	switch (result->status) {
	case 401:
		result->refused = true;
		error_set(&result->error, EACCES,
			  "401: the credentials of %s are not accepted (%s)", origin,
			  *said ? said : "Unauthorized");
		break;
	case 403:
		error_set(&result->error, EPERM, "403: not allowed to %s %.*s: %s",
			  request->stream_s ? "watch" : "list", length, request->path,
			  *said ? said : "Forbidden");
		break;
	default:
		error_set(&result->error, EREMOTEIO, "%ld to %.*s%s%s", result->status, length,
			  request->path, *said ? ": " : "", said);
	}
}

static int error_of_curl(CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_OPERATION_TIMEDOUT:
		return ETIMEDOUT;
	case CURLE_COULDNT_CONNECT:
		return ECONNREFUSED;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return EHOSTUNREACH;
	case CURLE_OUT_OF_MEMORY:
		return ENOMEM;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
		return EPROTO;
	default:
		return ECONNRESET;
	}
}

static void tell_detail(const struct api_request *request, const struct api_result *result)
{
	char line[2048];

	if (!request->api->detail)
		return;
	if (result->code < 0 && !result->status)
		snprintf(line, sizeof(line), "GET %s: %s", request->path, result->error.text);
	else
		snprintf(line, sizeof(line), "GET %s: %ld, %llu bytes, %llu ms", request->path,
			 result->status, (unsigned long long)result->bytes,
			 (unsigned long long)(result->lasted_ns / 1000000));
	request->api->detail(request->api->arg, line);
}

/* Hands over the result and ends the request. */
static void finish(struct api_request *request, struct api_result *result)
{
	struct api *api = request->api;
	struct api_calls calls = request->calls;
	void *arg = request->arg;

	result->bytes = request->bytes;
	result->lasted_ns = clock_now_ns() - request->started_ns;
	if (result->refused)
		credentials_refused(api->credentials);
	api->fresh = result->code < 0;
	tell_detail(request, result);
	free_request(request);
	calls.done(arg, result);
}

static void fail(struct api_request *request, int code, const struct error *error)
{
	struct api_result result = { .code = code, .error = *error };

	finish(request, &result);
}

static void on_finished(void *arg, CURLcode code)
{
	struct api_request *request = arg;
	struct api_result result = {};
	curl_off_t retry_after = 0;
	int number = error_of_curl(code);

	curl_easy_getinfo(request->handle, CURLINFO_RESPONSE_CODE, &result.status);
	curl_easy_getinfo(request->handle, CURLINFO_RETRY_AFTER, &retry_after);
	result.retry_after_s = retry_after > 3600 ? 3600 : retry_after;
	if (request->code < 0) {
		result.code = request->code;
		result.error = request->error;
	} else if (number)
		result.code = error_set(&result.error, number, "%s", *request->curl_error ?
					request->curl_error : curl_easy_strerror(code));
	else if (result.status != 200)
		describe_status(request, &result);
	finish(request, &result);
}

/* --- what curl calls --- */

static size_t on_complaint(struct api_request *request, const char *data, size_t size)
{
	char *grown;

	if (request->complaint_size + size > COMPLAINT_MAX)
		return size;
	grown = realloc(request->complaint, request->complaint_size + size);
	if (!grown)
		return 0;
	memcpy(grown + request->complaint_size, data, size);
	request->complaint = grown;
	request->complaint_size += size;
	return size;
}

static size_t on_data(char *data, size_t one, size_t size, void *arg)
{
	struct api_request *request = arg;
	long status = 0;

	(void)one;
	curl_easy_getinfo(request->handle, CURLINFO_RESPONSE_CODE, &status);
	request->bytes += size;
	if (status != 200)
		return on_complaint(request, data, size);
	request->code = request->calls.data(request->arg, data, size, &request->error);
	return request->code < 0 ? CURL_WRITEFUNC_ERROR : size;
}

static size_t on_header(char *line, size_t one, size_t size, void *arg)
{
	struct api_request *request = arg;
	long status = 0;

	(void)one;
	evtimer_del(request->late);
	if (*line != '\r' && *line != '\n')
		return size;
	curl_easy_getinfo(request->handle, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200 && request->calls.started)
		request->calls.started(request->arg);
	return size;
}

/* Half-open connections: a peer that went away without a word is noticed within a minute. */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	static const struct {
		int option, value;
	} options[] = {
		{ TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
		{ TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S },
		{ TCP_KEEPCNT, KEEPALIVE_COUNT },
		{ TCP_USER_TIMEOUT,
		  (KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_COUNT) * 1000 },
	};
	int on = 1;

	(void)arg;
	(void)purpose;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		setsockopt(fd, IPPROTO_TCP, options[i].option, &options[i].value,
			   sizeof(options[i].value));
	return CURL_SOCKOPT_OK;
}

/* --- the start of a request --- */

/*
 * tls-server-name: the URL has that name, for SNI and verification, and the connection goes to
 * where the server really is.
 */
static int set_address(struct api_request *request, struct error *err)
{
	const struct config *config = request->api->config;
	_cleanup_(free_pointer) char *host = NULL, *port = NULL, *text = NULL, *rule = NULL;
	CURLU *url = curl_url();

	request->url = url;
	if (!url || asprintf(&text, "%s%s", config->server, request->path) < 0 ||
	    curl_url_set(url, CURLUPART_URL, text, 0) ||
	    curl_url_get(url, CURLUPART_HOST, &host, 0) ||
	    curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT))
		return error_set(err, EINVAL, "%s: no URL", config->server);
	curl_easy_setopt(request->handle, CURLOPT_CURLU, url);
	if (!config->server_name)
		return 0;
	if (curl_url_set(url, CURLUPART_HOST, config->server_name, 0) ||
	    asprintf(&rule, "%s:%s:%s:%s", config->server_name, port, host, port) < 0 ||
	    !(request->connect_to = curl_slist_append(NULL, rule)))
		return error_set(err, EINVAL, "tls-server-name: \"%s\" is no name",
				 config->server_name);
	curl_easy_setopt(request->handle, CURLOPT_CONNECT_TO, request->connect_to);
	return 0;
}

static void set_tls(struct api_request *request)
{
	const struct config *config = request->api->config;
	CURL *handle = request->handle;

	curl_easy_setopt(handle, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
	if (config->insecure) {
		curl_easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (config->authority.data) {
		struct curl_blob blob = { .data = config->authority.data,
					  .len = config->authority.size };

		curl_easy_setopt(handle, CURLOPT_CAINFO_BLOB, &blob);
	} else if (config->authority.path)
		curl_easy_setopt(handle, CURLOPT_CAINFO, config->authority.path);
	if (config->authority.data || config->authority.path)
		curl_easy_setopt(handle, CURLOPT_CAPATH, NULL);
}

static void set_limits(struct api_request *request)
{
	CURL *handle = request->handle;

	curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, (long)request->api->timeout_s);
	if (request->stream_s) {
		/* A server that forgot its own time-out is left. */
		curl_easy_setopt(handle, CURLOPT_TIMEOUT,
				 (long)request->stream_s + request->api->timeout_s);
	} else {
		/* Slow is fine, silent is not. */
		curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
		/* A second more than on_late() waits, which has the better words. */
		curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME,
				 (long)request->api->timeout_s + 1);
		/* The API server compresses what is larger than 128 KB, if asked. */
		curl_easy_setopt(handle, CURLOPT_ACCEPT_ENCODING, "gzip");
	}
}

static void set_options(struct api_request *request)
{
	CURL *handle = request->handle;
	bool plain = !strncasecmp(request->api->config->server, "http://", 7);

	curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, plain ? "http" : "https");
	curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(handle, CURLOPT_PIPEWAIT, 1L);
	curl_easy_setopt(handle, CURLOPT_FRESH_CONNECT, (long)request->api->fresh);
	curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(handle, CURLOPT_USERAGENT, "lbctl/" XLB_VERSION);
	curl_easy_setopt(handle, CURLOPT_BUFFERSIZE, (long)BUFFER_SIZE);
	curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, request->curl_error);
	curl_easy_setopt(handle, CURLOPT_SOCKOPTFUNCTION, on_socket);
	curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(handle, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(handle, CURLOPT_HEADERDATA, request);
	curl_easy_setopt(handle, CURLOPT_HTTPHEADER, request->headers);
	if (request->api->config->proxy)
		curl_easy_setopt(handle, CURLOPT_PROXY, request->api->config->proxy);
	else if (plain)	/* this very machine: nobody else shall see the token */
		curl_easy_setopt(handle, CURLOPT_PROXY, "");
	set_tls(request);
	set_limits(request);
}

static int begin(struct api_request *request, struct error *err)
{
	struct api *api = request->api;
	struct timeval timeout = { .tv_sec = api->timeout_s };
	int r;

	request->handle = curl_easy_init();
	request->headers = curl_slist_append(NULL, "Accept: application/json");
	if (!request->handle || !request->headers)
		return error_set(err, ENOMEM, "out of memory");
	r = credentials_apply(api->credentials, request->handle, &request->headers, err);
	if (r >= 0)
		r = set_address(request, err);
	if (r < 0)
		return r;
	set_options(request);
	evtimer_add(request->late, &timeout);
	if (api_loop_add(api->loop, request->handle, on_finished, request) < 0)
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

/* The answer did not begin in time; or the start failed and may say so now. */
static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct api_request *request = arg;
	struct error err;

	(void)fd;
	(void)what;
	if (request->code < 0) {
		err = request->error;
		fail(request, request->code, &err);
		return;
	}
	error_set(&err, ETIMEDOUT, "no answer within %u s", request->api->timeout_s);
	fail(request, -ETIMEDOUT, &err);
}

/* done() must not be called from within api_get(): the outcome waits for the event loop. */
static void fail_later(struct api_request *request, int code)
{
	request->code = code;
	event_active(request->late, EV_TIMEOUT, 0);
}

static void on_credentials(void *arg, int code, const struct error *credentials_err)
{
	struct api_request *request = arg;

	request->waiting = false;
	request->error = *credentials_err;
	if (code >= 0)
		code = begin(request, &request->error);
	if (code < 0)
		fail_later(request, code);
}

int api_get(struct api *api, const char *path, unsigned int stream_s, const struct api_calls *calls,
	    void *arg, struct api_request **ret_request)
{
	struct api_request *request = calloc(1, sizeof(*request));
	int r;

	if (!request)
		return -ENOMEM;
	*request = (struct api_request){
		.api = api, .calls = *calls, .arg = arg, .stream_s = stream_s,
		.wait = { .ready = on_credentials, .arg = request }, .started_ns = clock_now_ns(),
	};
	request->path = strdup(path);
	request->late = evtimer_new(api->base, on_late, request);
	if (!request->path || !request->late) {
		free_request(request);
		return -ENOMEM;
	}
	r = credentials_get(api->credentials, &request->wait, &request->error);
	request->waiting = r > 0;
	if (!r)
		r = begin(request, &request->error);
	if (r < 0)
		fail_later(request, r);
	*ret_request = request;
	return 0;
}
