// SPDX-License-Identifier: GPL-2.0
/* Objects as API servers of 1.20 and 1.36 really sent them, and objects that no server would send. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "kube_world.h"
#include "kubernetes/decode.h"

#define LB KUBE_VIPS_LOADBALANCER

static char *read_payload(const char *name, size_t *ret_size)
{
	char path[256];
	struct stat info;
	char *text;
	int fd;

	snprintf(path, sizeof(path), PAYLOADS "%s", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		fail_msg("%s: run from the top of the tree", path);
	assert_int_equal(fstat(fd, &info), 0);
	text = malloc(info.st_size + 1);
	assert_int_equal(read(fd, text, info.st_size), info.st_size);
	text[info.st_size] = 0;
	close(fd);
	*ret_size = info.st_size;
	return text;
}

/* Several payloads as one file. */
static const char *answer_to(struct world *world, unsigned int vips, const char *const *names)
{
	struct kube_options options = world_options(vips);
	char *all = calloc(1, 1), *text;
	struct error err = {};
	size_t total = 0, size;

	for (; *names; names++) {
		text = read_payload(*names, &size);
		all = realloc(all, total + size + 2);
		memcpy(all + total, text, size);
		total += size;
		all[total++] = '\n';
		free(text);
	}
	if (world_load(world, &options, all, total, &err) < 0)
		fail_msg("%s", err.text);
	free(all);
	return world_answer(world);
}

struct picture {
	const char *names[3];
	const char *answer;
};

static void test_payloads(void **state)
{
	static const struct picture pictures[] = {
		{ { "1.36/list-services.json", "1.36/list-endpointslices-v1.json" },
		  "10.96.0.1:443/tcp default/kubernetes:https nat maglev\n"
		  "10.96.54.207:80/tcp default/hello:http nat maglev 10.244.0.10:8080=active "
		  "10.244.0.11:8080=active 10.244.0.12:8080=active\n" },
		{ { "1.36/list-services.json", "1.36/list-endpointslices-v1-terminating.json" },
		  "10.96.0.1:443/tcp default/kubernetes:https nat maglev\n"
		  "10.96.54.207:80/tcp default/hello:http nat maglev 10.244.0.10:8080=active "
		  "10.244.0.11:8080=active 10.244.0.12:8080=active\n" },
		{ { "1.36/list-services.json", "1.36/list-endpoints.json" },
		  "10.96.0.1:443/tcp default/kubernetes:https nat maglev\n"
		  "10.96.54.207:80/tcp default/hello:http nat maglev 10.244.0.10:8080=active "
		  "10.244.0.11:8080=active 10.244.0.12:8080=active\n" },
		{ { "1.20/list-services.json", "1.20/list-endpointslices-v1beta1.json" },
		  "10.96.0.1:443/tcp default/kubernetes:https nat maglev\n"
		  "10.96.117.152:80/tcp default/hello:http nat maglev 10.244.0.10:8080=active "
		  "10.244.0.11:8080=active 10.244.0.12:8080=active\n" },
		{ { "1.20/list-services.json", "1.20/list-endpointslices-v1beta1-terminating.json" },
		  "10.96.0.1:443/tcp default/kubernetes:https nat maglev\n"
		  "10.96.117.152:80/tcp default/hello:http nat maglev 10.244.0.10:8080=active "
		  "10.244.0.11:8080=active 10.244.0.12:8080=active\n" },
		{ { "1.20/list-services.json", "1.20/list-endpoints.json" },
		  "10.96.0.1:443/tcp default/kubernetes:https nat maglev\n"
		  "10.96.117.152:80/tcp default/hello:http nat maglev 10.244.0.10:8080=active "
		  "10.244.0.11:8080=active 10.244.0.12:8080=active\n" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(pictures) / sizeof(*pictures); i++) {
		struct world world = {};

		assert_string_equal(answer_to(&world, KUBE_VIPS_CLUSTERIP, pictures[i].names),
				    pictures[i].answer);
		assert_string_equal(world.warnings, "");
		world_end(&world);
	}
}

struct bad {
	const char *json;
	const char *complaint;
};

#define S(more) "{'kind':'Service','metadata':{'name':'a'}," more "}"
#define E(more)                                                                                    \
	"{'kind':'EndpointSlice','metadata':{'name':'a','labels':{'kubernetes.io/service-name':'a'}"\
	"}," more "}"

static const struct bad bad_rows[] = {
	{ S("'spec':{'sessionAffinityConfig':{'clientIP':{'timeoutSeconds':0}}}"),
	  "timeoutSeconds: 0 is not in 1..86400" },
	{ S("'spec':{'sessionAffinityConfig':{'clientIP':{'timeoutSeconds':86401}}}"),
	  "timeoutSeconds: 86401 is not in 1..86400" },
	{ S("'spec':{'sessionAffinity':7}"), "sessionAffinity: a string is expected" },
	{ S("'spec':{'sessionAffinityConfig':[]}"), "sessionAffinityConfig: an object is expected" },
	{ S("'spec':{'loadBalancerSourceRanges':'10.0.0.0/8'}"),
	  "loadBalancerSourceRanges: a list is expected" },
	{ S("'spec':{'loadBalancerSourceRanges':['10.0.0.0/8',7]}"),
	  "loadBalancerSourceRanges[1]: a string is expected" },
	{ "{'kind':'Pod','metadata':{'name':'a'}}", "kind \"Pod\" is none of" },
	{ "{'kind':'PodList','items':[]}", "kind \"PodList\" is no list" },
	{ "{'kind':'List','items':[{'kind':'Secret'}]}", "kind \"Secret\" is none of" },
	{ "{'kind':7}", "kind: a string is expected, this is a number" },
	{ "{}", "an object without a kind" },
	{ "[]", "an object is expected" },
	{ "42", "an object is expected" },
	{ "{'kind':'List','items':[7]}", "items: an object is expected" },
	{ "{'kind':'List','items':[null]}", "items: an object is expected" },
	{ "{'kind':'List','items':null}", "items: a list is expected" },
	{ "", "it is empty" },
	{ "{'kind':'Service','spec':{}}", "Service: metadata.name is missing" },
	{ "{'kind':'Service','metadata':[]}", "metadata: an object is expected, this is a list" },
	{ "{'kind':'Service','metadata':{'name':'a b'}}", "metadata.name: \"a b\" is no name" },
	{ "{'kind':'Service','metadata':{'name':'a','namespace':'../x'}}", "is no name" },
	{ S("'spec':null"), "Service default/a: spec is missing" },
	{ S("'spec':[]"), "Service default/a: spec: an object is expected" },
	{ S("'spec':{'ports':{}}"), "Service default/a: spec: ports: a list is expected" },
	{ S("'spec':{'ports':[null]}"), "ports[0]: an object is expected" },
	{ S("'spec':{'ports':[{'port':'80'}]}"), "ports[0]: port: a whole number is expected" },
	{ S("'spec':{'ports':[{'port':80.5}]}"), "ports[0]: port: a whole number is expected" },
	{ S("'spec':{'ports':[{'port':70000}]}"), "ports[0]: port: 70000 is not in 1..65535" },
	{ S("'spec':{'ports':[{'port':-1}]}"), "ports[0]: port: -1 is not in 1..65535" },
	{ S("'spec':{'ports':[{'port':0}]}"), "ports[0]: port: 0 is not in 1..65535" },
	{ S("'spec':{'ports':[{}]}"), "ports[0]: port is missing" },
	{ S("'spec':{'ports':[{'port':1,'nodePort':65536}]}"), "nodePort: 65536 is not in" },
	{ S("'spec':{'ports':[{'port':1,'protocol':'ICMP'}]}"), "\"ICMP\" is none of TCP, UDP, SCTP" },
	{ S("'spec':{'ports':[{'port':1,'name':'A B'}]}"), "\"A B\" is no port name" },
	{ S("'spec':{'type':'Other'}"), "spec: type: \"Other\" is unknown" },
	{ S("'spec':{'clusterIP':'10.0.0.256'}"), "clusterIP: \"10.0.0.256\" is no IP address" },
	{ S("'spec':{'clusterIPs':[1]}"), "clusterIPs[0]: a string is expected" },
	{ S("'spec':{'externalIPs':['a']}"), "externalIPs[0]: \"a\" is no IP address" },
	{ S("'spec':{'externalIPs':['1::2::3']}"), "\"1::2::3\" is no IP address" },
	{ S("'spec':{'selector':[]}"), "selector: an object is expected" },
	{ S("'spec':{},'status':{'loadBalancer':{'ingress':[{'ip':'x'}]}}"),
	  "status.loadBalancer.ingress[0]: \"x\" is no IP address" },
	{ S("'spec':{},'status':{'loadBalancer':{'ingress':[[]]}}"), "ingress[0]: an object" },
	{ "{'kind':'Service','metadata':{'name':'a','annotations':{'xlb.dev/forward':1}},'spec':{}}",
	  "metadata: xlb.dev/forward: a string is expected" },
	{ E("'endpoints':[]"), "EndpointSlice default/a: addressType is missing" },
	{ E("'addressType':'IPv4','endpoints':{}"), "endpoints: a list is expected" },
	{ E("'addressType':'IPv4','endpoints':[1]"), "endpoints[0]: an object is expected" },
	{ E("'addressType':'IPv4','endpoints':[{}]"), "endpoints[0]: addresses[0]: a string" },
	{ E("'addressType':'IPv4','endpoints':[{'addresses':null}]"), "addresses[0]: a string" },
	{ E("'addressType':'IPv4','endpoints':[{'addresses':['::1']}]"), "\"::1\" is no IPv4 address" },
	{ E("'addressType':'IPv6','endpoints':[{'addresses':['10.0.0.1']}]"), "is no IPv6 address" },
	{ E("'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1'],'conditions':"
	    "{'ready':'true'}}]"),
	  "conditions: ready: a boolean is expected, this is a string" },
	{ E("'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1'],'nodeName':7}]"),
	  "endpoints[0]: nodeName: a string is expected" },
	{ E("'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1'],'hints':[]}]"),
	  "endpoints[0]: hints: an object is expected" },
	{ E("'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1'],'hints':{'forZones':'a'}}]"),
	  "hints: forZones: a list is expected" },
	{ E("'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1'],'hints':{'forNodes':["
	    "{'name':'a'},7]}}]"), "hints: forNodes[1]: an object is expected" },
	{ S("'spec':{'externalTrafficPolicy':true}"), "externalTrafficPolicy: a string is expected" },
	{ S("'spec':{'healthCheckNodePort':65536}"), "healthCheckNodePort: 65536 is not in 0..65535" },
	{ E("'addressType':'IPv4','ports':[{'port':65536}]"), "ports[0]: port: 65536 is not in" },
	{ E("'addressType':'IPv4','ports':[7]"), "ports[0]: an object is expected" },
	{ "{'kind':'Endpoints','metadata':{'name':'a'},'subsets':[{'addresses':[{}]}]}",
	  "Endpoints default/a: subsets[0]: addresses[0]: ip is missing" },
	{ "{'kind':'Endpoints','metadata':{'name':'a'},'subsets':[7]}", "subsets[0]: an object" },
	{ "{'kind':'Endpoints','metadata':{'name':'a'},'subsets':{}}", "subsets: a list" },
};

/* One line that names the object and the field; and what was good in the same file is not used either. */
static void test_bad(void **state)
{
	static const char good[] = S("'spec':{'type':'LoadBalancer','ports':[{'port':80}]},"
				     "'status':{'loadBalancer':{'ingress':[{'ip':'192.0.2.1'}]}}");

	(void)state;
	for (size_t i = 0; i < sizeof(bad_rows) / sizeof(*bad_rows); i++) {
		struct kube_options options = world_options(LB);
		char text[2048], *json;
		struct world world = {};
		struct error err = {};

		snprintf(text, sizeof(text), "%s%s", *bad_rows[i].json ? good : "",
			 bad_rows[i].json);
		json = quoted(text);
		assert_int_equal(world_load(&world, &options, json, strlen(json), &err), -EINVAL);
		if (!strstr(err.text, bad_rows[i].complaint))
			fail_msg("%s: %s", json, err.text);
		assert_memory_equal(err.text, "/proc/self/fd/", 14);
		assert_null(strchr(err.text, '\n'));
		assert_false(kube_complete(world.kube));
		assert_string_equal(world_answer(&world), "");
		world_end(&world);
		free(json);
	}
}

/* A real answer, cut at every length: never anything but success or one line. */
static void test_cut(void **state)
{
	struct kube_options options = world_options(LB);
	size_t size;
	char *text = read_payload("1.36/list-services.json", &size);

	(void)state;
	for (size_t cut = 0; cut < size; cut += 7) {
		struct world world = {};
		struct error err = {};

		assert_int_equal(world_load(&world, &options, text, cut, &err), -EINVAL);
		assert_string_equal(world_answer(&world), "");
		world_end(&world);
	}
	free(text);
}

/* Bytes flipped in a real answer: no crash (run with SANITIZE=1), and no endless loop. */
static void test_flips(void **state)
{
	struct kube_options options = world_options(15);
	size_t size;
	char *text = read_payload("1.36/list-endpointslices-v1.json", &size);

	(void)state;
	srandom(1);
	for (int i = 0; i < 2000; i++) {
		size_t at = random() % size;
		char was = text[at];
		struct world world = {};
		struct error err = {};

		text[at] = random();
		(void)world_load(&world, &options, text, size, &err);
		world_answer(&world);
		world_end(&world);
		text[at] = was;
	}
	free(text);
}

static void test_missing_file(void **state)
{
	struct kube_options options = world_options(LB);
	struct kube_calls calls = {};
	struct error err = {};
	struct kube *kube;

	(void)state;
	assert_int_equal(kube_new(&options, &calls, NULL, &kube, &err), 0);
	assert_int_equal(kube_load_file(kube, "/nowhere/x.json", &err), -ENOENT);
	assert_string_equal(err.text, "/nowhere/x.json: No such file or directory");
	assert_int_equal(kube_load_file(kube, "/", &err), -EISDIR);
	kube_free(kube);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_payloads), cmocka_unit_test(test_bad),
		cmocka_unit_test(test_cut),	 cmocka_unit_test(test_flips),
		cmocka_unit_test(test_missing_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
