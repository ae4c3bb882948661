// SPDX-License-Identifier: GPL-2.0
/*
 * backends sync: services and backends as Kubernetes, or a file, has them.
 *
 * Without --watch it ends when the maps hold what the source holds. With it, it stays on an event
 * loop: watch streams (kubernetes/), changes of routes and addresses (datapath/), signals, and the
 * timer of the next batch. Nothing else wakes it up.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "commands/command.h"
#include "commands/output.h"
#include "commands/service_wish.h"
#include "commands/session.h"
#include "commands/sync_loop.h"
#include "commands/sync_report.h"

enum {
	OPTION_FROM = OPTION_LONG,
	OPTION_DRY_RUN,
	OPTION_SERVICE,
	OPTION_KUBECONFIG,
	OPTION_CONTEXT,
	OPTION_VIPS,
	OPTION_NODE_ADDRESS,
	OPTION_NODE_NAME,
	OPTION_ZONE,
	OPTION_CLASS,
	OPTION_DEFAULT_CLASS,
	OPTION_ONLY_CLASS,
	OPTION_FORWARD,
	OPTION_SCHEDULER,
	OPTION_REQUEST_TIMEOUT,
	OPTION_WATCH_TIMEOUT,
};

enum { TIMEOUT_MAX_S = 3600 };

static const struct option_spec options[] = {
	{ 'w', "watch", NULL, "go on: follow changes until interrupted" },
	{ OPTION_FROM, "from", "FILE",
	  "read what 'kubectl get services,endpointslices -A -o json' prints (-: standard input)" },
	{ OPTION_DRY_RUN, "dry-run", NULL, "say what would change, and change nothing" },
	{ 'n', "namespace", "NAMESPACE", "only this namespace" },
	{ OPTION_SERVICE, "service", "NAMESPACE/NAME", "only this Service" },
	{ OPTION_KUBECONFIG, "kubeconfig", "FILE",
	  "default: KUBECONFIG, the Pod's service account, ~/.kube/config" },
	{ OPTION_CONTEXT, "context", "NAME", "of the kubeconfig (default: its current-context)" },
	{ OPTION_VIPS, "vips", "KINDS",
	  "what becomes VIPs, with commas: loadbalancer (default), nodeport, clusterip, external" },
	{ OPTION_NODE_ADDRESS, "node-address", "ADDRESSES",
	  "where NodePorts are, with commas (default: those of the attached devices)" },
	{ OPTION_NODE_NAME, "node-name", "NAME",
	  "of this node in the cluster (default: NODE_NAME, or the host's name in lower case)" },
	{ OPTION_ZONE, "zone", "ZONE",
	  "of this node; endpoints that are meant for it are preferred (default: hints of zones do not count)" },
	{ OPTION_CLASS, "class", "CLASS",
	  "loadBalancerClass that is ours (default " KUBE_CLASS ")" },
	{ OPTION_DEFAULT_CLASS, "default-class", NULL,
	  "Services without a loadBalancerClass are ours too (the default)" },
	{ OPTION_ONLY_CLASS, "only-class", NULL, "they are not" },
	{ OPTION_FORWARD, "forward", FORWARD_VALUES,
	  "of Services without the annotation xlb.dev/forward" },
	{ OPTION_SCHEDULER, "scheduler", SCHEDULER_VALUES,
	  "of Services without the annotation xlb.dev/scheduler" },
	{ OPTION_REQUEST_TIMEOUT, "request-timeout", "SECONDS",
	  "until a server or exec plugin that says nothing is given up (default 30)" },
	{ OPTION_WATCH_TIMEOUT, "watch-timeout", "SECONDS",
	  "how long the server shall keep a watch (default: random, 300 to 600)" },
	{ 'v', "verbose", NULL, "say on standard error which API is used, and each request" },
	{ 0 },
};

/* Everything that the command line said. */
struct arguments {
	struct kube_options kube;
	const char *from;	/* NULL: an API server */
	struct endpoint *node_addresses;	/* NULL: those of the attached devices */
	char host_name[HOST_NAME_MAX + 1];
	bool dry_run, verbose;
};

static void free_arguments(struct arguments *arguments)
{
	free(arguments->node_addresses);
}

static int parse_vips(const char *text, unsigned int *ret_vips, struct error *err)
{
	static const struct {
		const char *name;
		unsigned int bit;
	} kinds[] = {
		{ "loadbalancer", KUBE_VIPS_LOADBALANCER },
		{ "nodeport", KUBE_VIPS_NODEPORT },
		{ "clusterip", KUBE_VIPS_CLUSTERIP },
		{ "external", KUBE_VIPS_EXTERNAL },
	};
	unsigned int vips = 0, found;
	size_t length;

	for (;; text += length + 1) {
		length = strcspn(text, ",");
		found = 0;
		for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
			if (strlen(kinds[i].name) == length &&
			    !strncmp(text, kinds[i].name, length))
				found = kinds[i].bit;
		if (!found)
			return error_set(
				err, EINVAL,
				"'%.*s' is none of loadbalancer, nodeport, clusterip, external",
				(int)length, text);
		vips |= found;
		if (!text[length])
			break;
	}
	*ret_vips = vips;
	return 0;
}

static int parse_addresses(const char *text, struct arguments *arguments, struct error *err)
{
	_cleanup_(free_pointer) char *copy = strdup(text);
	size_t n = arguments->kube.n_node_addresses;
	struct endpoint *grown;
	char *word, *rest = copy;
	int r;

	if (!copy)
		return error_set(err, ENOMEM, "out of memory");
	while ((word = strsep(&rest, ","))) {
		grown = reallocarray(arguments->node_addresses, n + 1, sizeof(*grown));
		if (!grown)
			return error_set(err, ENOMEM, "out of memory");
		arguments->node_addresses = grown;
		memset(&grown[n], 0, sizeof(*grown));
		r = address_parse(word, &grown[n].address, &grown[n].family, err);
		if (r < 0)
			return r;
		n++;
	}
	arguments->kube.node_addresses = arguments->node_addresses;
	arguments->kube.n_node_addresses = n;
	return 0;
}

/* A namespace, or with a slash a Service: nothing else may get into a URL. */
static int check_name(const char *text, unsigned int slashes, struct error *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-./";
	const char *slash = strchr(text, '/');

	if (strspn(text, allowed) != strlen(text) || strlen(text) > 127 || !*text ||
	    (slashes && (!slash || slash == text || !slash[1] || strchr(slash + 1, '/'))) ||
	    (!slashes && slash))
		return error_set(err, EINVAL, "'%s' is no %s", text,
				 slashes ? "NAMESPACE/NAME" : "namespace");
	return 0;
}

/* Of a node, or of a zone, which is the value of a label. */
static int check_place(const char *text, struct error *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

	if (!*text || strlen(text) > 253 || strspn(text, allowed) != strlen(text))
		return error_set(err, EINVAL, "'%s' is no name", text);
	return 0;
}

/* As the kubelet names its node, if nobody told it otherwise. */
static void find_node_name(struct arguments *arguments)
{
	const char *said = getenv("NODE_NAME");
	char *name = arguments->host_name;

	if (!arguments->kube.place.node && said && *said)
		arguments->kube.place.node = said;
	if (arguments->kube.place.node || gethostname(name, sizeof(arguments->host_name)) < 0)
		return;
	name[sizeof(arguments->host_name) - 1] = 0;
	arguments->kube.place.node = name;
	for (; *name; name++)
		*name = tolower((unsigned char)*name);
}

static int parse_timeout(const char *text, unsigned int *ret_s, struct error *err)
{
	uint64_t number;
	int r = number_parse(text, 1, TIMEOUT_MAX_S, &number, err);

	if (r >= 0)
		*ret_s = number;
	return r;
}

/* Options whose value has a form of its own. */
static int parse_formed(struct arguments *arguments, int option, const char *value,
			struct error *err)
{
	switch (option) {
	case OPTION_VIPS:
		return parse_vips(value, &arguments->kube.vips, err);
	case OPTION_NODE_ADDRESS:
		return parse_addresses(value, arguments, err);
	case OPTION_FORWARD:
		return forward_parse(value, &arguments->kube.default_forward, err);
	case OPTION_SCHEDULER:
		return scheduler_parse(value, &arguments->kube.default_scheduler, err);
	case OPTION_REQUEST_TIMEOUT:
		return parse_timeout(value, &arguments->kube.request_timeout_s, err);
	case OPTION_WATCH_TIMEOUT:
		return parse_timeout(value, &arguments->kube.watch_timeout_s, err);
	case OPTION_NODE_NAME:
		arguments->kube.place.node = value;
		return check_place(value, err);
	case OPTION_ZONE:
		arguments->kube.place.zone = value;
		return check_place(value, err);
	case 'n':
		arguments->kube.namespace = value;
		return check_name(value, 0, err);
	default:	/* OPTION_SERVICE */
		arguments->kube.service = value;
		return check_name(value, 1, err);
	}
}

static int parse_option(struct arguments *arguments, int option, const char *value,
			struct error *err)
{
	switch (option) {
	case 'w':
		arguments->kube.watch = true;
		return 0;
	case 'v':
		arguments->verbose = true;
		return 0;
	case OPTION_DRY_RUN:
		arguments->dry_run = true;
		return 0;
	case OPTION_FROM:
		arguments->from = value;
		return 0;
	case OPTION_KUBECONFIG:
		arguments->kube.kubeconfig = value;
		return 0;
	case OPTION_CONTEXT:
		arguments->kube.context = value;
		return 0;
	case OPTION_DEFAULT_CLASS:
	case OPTION_ONLY_CLASS:
		arguments->kube.only_class = option == OPTION_ONLY_CLASS;
		return 0;
	case OPTION_CLASS:
		arguments->kube.load_balancer_class = value;
		return 0;
	default:
		return parse_formed(arguments, option, value, err);
	}
}

/* Options that contradict each other. An exit status. */
static int check_arguments(const struct command_line *line, struct arguments *arguments)
{
	const struct kube_options *kube = &arguments->kube;
	size_t length = kube->namespace ? strlen(kube->namespace) : 0;

	if (arguments->from && (kube->kubeconfig || kube->context))
		return usage_error(line, "--from needs no --kubeconfig and no --context");
	if (arguments->from && kube->watch)
		return usage_error(line, "--from cannot be watched");
	if (kube->namespace && kube->service &&
	    (strncmp(kube->service, kube->namespace, length) || kube->service[length] != '/'))
		return usage_error(line, "--service %s is not in --namespace %s", kube->service,
				   kube->namespace);
	find_node_name(arguments);
	arguments->kube.health_checks = kube->watch && !arguments->dry_run;
	arguments->kube.owner = arguments->from ? XLB_OWNER_FILE : XLB_OWNER_KUBERNETES;
	return STATUS_OK;
}

/* false: nothing is left to do (--help, or a mistake), and line->status is what to exit with. */
static bool parse(struct command_line *line, struct arguments *arguments)
{
	struct error err;
	int option;

	while ((option = command_line_next(line)) > 0) {
		if (parse_option(arguments, option, line->value, &err) < 0) {
			line->status = bad_value(line, &err);
			return false;
		}
	}
	if (option < 0)
		return false;
	line->status = check_arguments(line, arguments);
	return line->status == STATUS_OK;
}

/* A dry run needs nothing attached: everything is new then. */
static int open_datapath(const struct command_line *line, bool dry_run, struct datapath **ret_dp)
{
	struct datapath *dp = NULL;
	struct error err;
	int r = datapath_open(line->pin_dir, &dp, &err);

	if (r < 0 && !(dry_run && r == -ENOENT))
		return fail("%s", err.text);
	*ret_dp = dp;
	return STATUS_OK;
}

static int run(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	_cleanup_(free_arguments) struct arguments arguments = {
		.kube.vips = KUBE_VIPS_LOADBALANCER,
	};
	struct sync_loop_options loop;
	struct command_line line;
	int status;

	command_line_start(&line, &verb_backends_sync, argc, argv);
	if (!parse(&line, &arguments))
		return line.status;
	status = open_datapath(&line, arguments.dry_run, &dp);
	if (status != STATUS_OK)
		return status;
	loop = (struct sync_loop_options){
		.kube = arguments.kube,
		.from = arguments.from,
		.dp = dp,
		.dry_run = arguments.dry_run,
		.verbose = arguments.verbose,
		.json = line.json,
	};
	return sync_loop(&loop);
}

const struct command verb_backends_sync = {
	.name = "backends sync",
	.operands = "",
	.summary = "Make services and backends be as Kubernetes, or a file, has them",
	.details = "Prints a line for each port of a Service that changed: backends that came and "
		   "went, and\n"
		   "how many take new flows. Services of other owners are left alone. Only what "
		   "the whole\n"
		   "picture does not contain is removed: a failed or cut list changes nothing, and "
		   "with\n"
		   "--watch forwarding goes on while the API server is away.\n",
	.options = options,
	.run = run,
};
