// SPDX-License-Identifier: GPL-2.0
/*
 * One API server: which API it has for endpoints, a reflector for that and one for Services, and
 * what to tell people about its absence.
 *
 * Discovery decides between discovery.k8s.io/v1, v1beta1 and core/v1 Endpoints, and is repeated
 * when the chosen one is gone one day. An absence is told once, with its first reason, whichever of
 * the requests noticed it, and its end when all of them work again.
 */
#include "kubernetes/cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "kubernetes/clock.h"
#include "kubernetes/decode_fields.h"
#include "kubernetes/json_stream.h"
#include "kubernetes/reflector.h"
#include "kubernetes/retry.h"

enum {
	REQUEST_TIMEOUT_S = 30,
	TOLD_MAX = 8,
};

/* Who may be in trouble; bits of cluster.failing. */
enum part { PART_DISCOVERY = 1, PART_SERVICES = 2, PART_ENDPOINTS = 4 };

struct cluster {
	struct kube *kube;
	struct event_base *base;
	struct config *config;
	struct api *api;
	struct reflector *services, *endpoints;
	struct event *timer;		/* discovery is due */
	struct api_request *request;	/* discovery */
	struct json_stream *stream;
	struct retry retry;
	const struct resource *found;	/* by the discovery under way */
	unsigned int failing;		/* enum part, or'ed */
	uint64_t failing_since_ns;
	long told[TOLD_MAX]; /* statuses that this absence was told with; 0: no whole answer */
	unsigned int n_told;
	bool gave_up;
};

static int decode_any_service(const json_t *object, const struct kube_place *place,
			      void **ret_object, struct error *err)
{
	struct kube_service *service;
	int r = decode_service(object, &service, err);

	(void)place;
	if (r >= 0)
		*ret_object = service;
	return r;
}

static int decode_any_slice(const json_t *object, const struct kube_place *place,
			    void **ret_object, struct error *err)
{
	struct kube_set *set;
	int r = decode_slice(object, place, &set, err);

	if (r >= 0)
		*ret_object = set;
	return r;
}

static int decode_any_endpoints(const json_t *object, const struct kube_place *place,
				void **ret_object, struct error *err)
{
	struct kube_set *set;
	int r = decode_endpoints(object, place, &set, err);

	if (r >= 0)
		*ret_object = set;
	return r;
}

static const struct resource services = {
	.name = "services",
	.kind = "Service",
	.version = "v1",
	.prefix = "/api/v1",
	.selector = "fieldSelector=metadata.name%3D",
	.store_kind = KUBE_SERVICE,
	.decode = decode_any_service,
};

/* In the order of preference. The last one has no discovery: it is always there. */
static const struct resource endpoints[] = {
	{
		.name = "endpointslices",
		.kind = "EndpointSlice",
		.version = "discovery.k8s.io/v1",
		.prefix = "/apis/discovery.k8s.io/v1",
		.selector = "labelSelector=kubernetes.io%2Fservice-name%3D",
		.store_kind = KUBE_SET,
		.decode = decode_any_slice,
	},
	{
		.name = "endpointslices",
		.kind = "EndpointSlice",
		.version = "discovery.k8s.io/v1beta1",
		.prefix = "/apis/discovery.k8s.io/v1beta1",
		.selector = "labelSelector=kubernetes.io%2Fservice-name%3D",
		.store_kind = KUBE_SET,
		.decode = decode_any_slice,
	},
	{
		.name = "endpoints",
		.kind = "Endpoints",
		.version = "core/v1",
		.prefix = "/api/v1",
		.selector = "fieldSelector=metadata.name%3D",
		.store_kind = KUBE_SET,
		.decode = decode_any_endpoints,
	},
};

enum { ENDPOINTS_VERSIONS = 3, ENDPOINTS_CORE = 2 };

/* --- telling --- */

static void give_up(struct cluster *cluster, const struct api_result *result)
{
	struct error err = result->error;
	int code = result->code < 0 ? result->code : -EREMOTEIO;

	if (cluster->gave_up)
		return;
	cluster->gave_up = true;
	error_prefix(&err, code, "%s", cluster->config->server);
	if (cluster->kube->calls.failed)
		cluster->kube->calls.failed(cluster->kube->arg, code, &err);
}

/* Whether this absence has not been told with this reason yet; remembers it. */
static bool is_news(struct cluster *cluster, long status)
{
	for (unsigned int i = 0; i < cluster->n_told; i++)
		if (cluster->told[i] == status)
			return false;
	if (cluster->n_told == TOLD_MAX)
		return false;
	cluster->told[cluster->n_told++] = status;
	return true;
}

static void tell_failing(struct cluster *cluster, enum part part, const struct api_result *result,
			 unsigned int delay_ms)
{
	struct kube *kube = cluster->kube;
	char line[sizeof(result->error.text) + 256];

	if (!cluster->failing) {
		cluster->failing_since_ns = clock_now_ns();
		cluster->n_told = 0;
	}
	cluster->failing |= part;
	snprintf(line, sizeof(line), "%s: %s; %s, trying again in %u.%u s", cluster->config->server,
		 result->error.text, kube->options.watch ? "forwarding goes on" : "waiting",
		 delay_ms / 1000, delay_ms % 1000 / 100);
	kube_clean_text(line);
	if (!is_news(cluster, result->code < 0 ? 0 : result->status))
		kube_detail(kube, "%s", line);
	else if (kube->calls.away)
		kube->calls.away(kube->arg, line);
}

static void tell_working(struct cluster *cluster, enum part part)
{
	struct kube *kube = cluster->kube;
	unsigned long long seconds = (clock_now_ns() - cluster->failing_since_ns) / 1000000000;
	char line[512];

	if (!(cluster->failing & part))
		return;
	cluster->failing &= ~part;
	if (cluster->failing || !kube->calls.back)
		return;
	snprintf(line, sizeof(line), "%s: answers again after %llu s", cluster->config->server,
		 seconds);
	kube->calls.back(kube->arg, line);
}

/* --- reflectors --- */

static void wait_for(struct cluster *cluster, unsigned int delay_ms)
{
	struct timeval delay = { .tv_sec = delay_ms / 1000, .tv_usec = delay_ms % 1000 * 1000 };

	evtimer_add(cluster->timer, &delay);
}

static void on_listed(void *arg)
{
	struct cluster *cluster = arg;

	cluster->kube->endpoints_known = cluster->kube->known[KUBE_SET];
	/* Also where nothing is: a caller waits for the first complete picture, however empty. */
	if (kube_complete(cluster->kube) && cluster->kube->calls.changed)
		cluster->kube->calls.changed(cluster->kube->arg);
}

/* Whichever reflector was in trouble: this may be another one than failed. */
static void on_endpoints_listed(void *arg)
{
	tell_working(arg, PART_ENDPOINTS);
	on_listed(arg);
}

static void on_services_failing(void *arg, const struct api_result *result, unsigned int delay_ms)
{
	tell_failing(arg, PART_SERVICES, result, delay_ms);
}

static void on_services_working(void *arg)
{
	tell_working(arg, PART_SERVICES);
}

static void on_endpoints_failing(void *arg, const struct api_result *result, unsigned int delay_ms)
{
	tell_failing(arg, PART_ENDPOINTS, result, delay_ms);
}

static void on_endpoints_working(void *arg)
{
	tell_working(arg, PART_ENDPOINTS);
}

static void on_gave_up(void *arg, const struct api_result *result)
{
	give_up(arg, result);
}

static bool on_services_missing(void *arg, const struct api_result *result)
{
	(void)arg;
	(void)result;
	return false;
}

/*
 * The API for endpoints went away (an upgrade of the cluster): look for another one. A server that
 * announces what it does not have is asked with the same back-off as one that does not answer.
 */
static bool on_endpoints_missing(void *arg, const struct api_result *result)
{
	struct cluster *cluster = arg;
	unsigned int delay_ms = 0;

	if (!retry_after_failure(&cluster->retry, result, cluster->kube->options.watch,
				 clock_now_ns(), &delay_ms))
		return false;
	tell_failing(cluster, PART_ENDPOINTS, result, delay_ms);
	wait_for(cluster, delay_ms);
	return true;
}

static const struct reflector_calls services_calls = {
	on_listed, on_services_failing, on_services_working, on_gave_up, on_services_missing,
};

static const struct reflector_calls endpoints_calls = {
	on_endpoints_listed, on_endpoints_failing, on_endpoints_working, on_gave_up, on_endpoints_missing,
};

static void give_up_for_memory(struct cluster *cluster)
{
	struct api_result result = {};

	result.code = error_set(&result.error, ENOMEM, "out of memory");
	give_up(cluster, &result);
}

static void start_reflectors(struct cluster *cluster, const struct resource *chosen)
{
	kube_detail(cluster->kube, "%s: endpoints come from %s %s", cluster->config->server,
		    chosen->version, chosen->name);
	reflector_free(cluster->endpoints);
	cluster->endpoints = reflector_new(chosen, cluster->kube, cluster->api, cluster->base,
					   &endpoints_calls, cluster);
	if (!cluster->services)
		cluster->services = reflector_new(&services, cluster->kube, cluster->api,
						  cluster->base, &services_calls, cluster);
	if (!cluster->endpoints || !cluster->services)
		give_up_for_memory(cluster);
}

/* --- discovery --- */

/* An APIGroup: {"versions": [{"version": "v1"}, ...]}. */
static int on_group(void *arg, const json_t *group, struct error *err)
{
	struct cluster *cluster = arg;
	const json_t *versions = NULL;
	const char *version = NULL;
	int r;

	if (!json_is_object(group))
		return error_set(err, EINVAL, "an object is expected");
	r = json_get_list(group, "versions", &versions, err);
	for (size_t i = 0; r >= 0 && i < json_array_size(versions); i++) {
		r = json_get_string(json_array_get(versions, i), "version", &version, err);
		for (size_t j = 0; r >= 0 && version && j < ENDPOINTS_CORE; j++)
			if (!strcmp(strrchr(endpoints[j].version, '/') + 1, version) &&
			    (!cluster->found || &endpoints[j] < cluster->found))
				cluster->found = &endpoints[j];
	}
	return r;
}

static int on_data(void *arg, const void *data, size_t size, struct error *err)
{
	struct cluster *cluster = arg;
	int r = json_stream_feed(cluster->stream, data, size, err);

	return r < 0 ? error_prefix(err, r, "/apis/discovery.k8s.io") : 0;
}

static void on_done(void *arg, const struct api_result *result)
{
	struct cluster *cluster = arg;
	struct api_result copy = *result;
	unsigned int delay_ms = 0;

	cluster->request = NULL;
	kube_clean_text(copy.error.text);
	if (copy.code >= 0 && copy.status == 200)
		copy.code = json_stream_finish(cluster->stream, &copy.error);
	/* Not there, or not served: Endpoints. Not allowed to ask: most likely there. */
	if (copy.code >= 0 && (copy.status == 200 || copy.status == 404 || copy.status == 403)) {
		retry_success(&cluster->retry);
		tell_working(cluster, PART_DISCOVERY);
		start_reflectors(cluster, copy.status == 403 ? &endpoints[0] :
				 cluster->found ? cluster->found : &endpoints[ENDPOINTS_CORE]);
		return;
	}
	if (!retry_after_failure(&cluster->retry, &copy, cluster->kube->options.watch,
				 clock_now_ns(), &delay_ms)) {
		give_up(cluster, &copy);
		return;
	}
	if (delay_ms)
		tell_failing(cluster, PART_DISCOVERY, &copy, delay_ms);
	wait_for(cluster, delay_ms);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	static const struct api_calls calls = { .data = on_data, .done = on_done };
	static const struct json_stream_calls stream_calls = { .document = on_group };
	struct cluster *cluster = arg;

	(void)fd;
	(void)what;
	cluster->found = NULL;
	json_stream_free(cluster->stream);
	cluster->stream = json_stream_new(&stream_calls, cluster);
	if (!cluster->stream || api_get(cluster->api, "/apis/discovery.k8s.io", 0, &calls, cluster,
					&cluster->request) < 0)
		give_up_for_memory(cluster);
}

/* --- life --- */

static void on_detail(void *arg, const char *line)
{
	kube_detail(arg, "%s", line);
}

static int start(struct cluster *cluster, struct error *err)
{
	const struct kube_options *options = &cluster->kube->options;
	int r = config_load(options->kubeconfig, options->context, &cluster->config, err);

	if (r < 0)
		return r;
	kube_detail(cluster->kube, "%s, as %s says", cluster->config->server,
		    cluster->config->origin);
	if (cluster->config->insecure)
		kube_warn(cluster->kube,
			  "%s: insecure-skip-tls-verify: whoever is on the way to the API server "
			  "decides "
			  "where traffic goes",
			  cluster->config->origin);
	r = api_new(cluster->config, cluster->base, options->request_timeout_s ?: REQUEST_TIMEOUT_S,
		    cluster->kube->calls.detail ? on_detail : NULL, cluster->kube, &cluster->api,
		    err);
	if (r < 0)
		return r;
	cluster->timer = evtimer_new(cluster->base, on_timer, cluster);
	if (!cluster->timer)
		return error_set(err, ENOMEM, "out of memory");
	wait_for(cluster, 0);
	return 0;
}

int cluster_start(struct kube *kube, struct event_base *base, struct cluster **ret_cluster,
		  struct error *err)
{
	struct cluster *cluster = calloc(1, sizeof(*cluster));
	int r;

	if (!cluster)
		return error_set(err, ENOMEM, "out of memory");
	cluster->kube = kube;
	cluster->base = base;
	r = start(cluster, err);
	if (r < 0) {
		cluster_free(cluster);
		return r;
	}
	*ret_cluster = cluster;
	return 0;
}

bool cluster_runs_plugins(const struct cluster *cluster)
{
	return cluster->config->exec;
}

void cluster_free(struct cluster *cluster)
{
	if (!cluster)
		return;
	reflector_free(cluster->services);
	reflector_free(cluster->endpoints);
	api_cancel(cluster->request);
	json_stream_free(cluster->stream);
	if (cluster->timer)
		event_free(cluster->timer);
	api_free(cluster->api);
	config_free(cluster->config);
	free(cluster);
}
