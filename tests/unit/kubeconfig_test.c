// SPDX-License-Identifier: GPL-2.0
/* Kubeconfig files: what is found in them, how several of them count as one, and what is said of bad ones. */
#include <errno.h>
#include <sys/stat.h>

#include "kube_world.h"
#include "kubernetes/config.h"
#include "kubernetes/yaml.h"

static char folder[] = "/tmp/xlb-kubeconfig-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static const char *put(const char *name, const char *text)
{
	static char path[4][128];
	static int turn;
	char *at = path[turn++ % 4];
	FILE *file;

	snprintf(at, sizeof(path[0]), "%s/%s", folder, name);
	file = fopen(at, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return at;
}

#define HEAD "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
#define CONTEXTS "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
#define CLUSTERS "clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443/'}}]\n"
#define USERS "users: [{name: u, user: {token: secret}}]\n"

static void test_good(void **state)
{
	struct config *config;
	struct error err = {};
	const char *path;

	(void)state;
	put("ca.crt", "authority");
	path = put("good", HEAD CONTEXTS
		   "clusters:\n- name: c\n  cluster:\n    server: https://192.0.2.1:6443/prefix/\n"
		   "    certificate-authority: ca.crt\n    tls-server-name: kubernetes\n"
		   "    proxy-url: http://192.0.2.9:3128\n"
		   "users:\n- name: u\n  user:\n    client-certificate-data: Y2VydA==\n"
		   "    client-key-data: a2V5\n    token: secret\n    as: jane\n    as-groups: [a, b]\n");
	if (config_load(path, NULL, &config, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(config->origin, path);
	assert_string_equal(config->server, "https://192.0.2.1:6443/prefix");
	assert_string_equal(config->server_name, "kubernetes");
	assert_string_equal(config->proxy, "http://192.0.2.9:3128");
	assert_false(config->insecure);
	assert_null(config->authority.data);
	assert_string_equal(config->authority.path + strlen(folder), "/ca.crt");
	assert_string_equal(config->certificate.data, "cert");
	assert_int_equal(config->certificate.size, 4);
	assert_string_equal(config->key.data, "key");
	assert_string_equal(config->token, "secret");
	assert_string_equal(config->impersonate[0], "Impersonate-User: jane");
	assert_string_equal(config->impersonate[2], "Impersonate-Group: b");
	assert_null(config->impersonate[3]);
	assert_null(config->exec);
	config_free(config);
}

/* Plain HTTP is for this machine, by whatever name or address it goes. */
static void test_loopback(void **state)
{
	static const char *const hosts[] = {
		"localhost", "LOCALHOST:8001", "127.0.0.1:8001", "127.8.9.10", "[::1]:8001",
	};
	struct config *config;
	struct error err = {};
	char text[512];

	(void)state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		snprintf(text, sizeof(text), HEAD CONTEXTS USERS
			 "clusters: [{name: c, cluster: {server: 'http://%s'}}]\n", hosts[i]);
		if (config_load(put("loopback", text), NULL, &config, &err) < 0)
			fail_msg("%s: %s", hosts[i], err.text);
		config_free(config);
	}
}

/* JSON is YAML; anchors are followed; unknown entries are none of our business. */
static void test_forms(void **state)
{
	struct config *config;
	struct error err = {};

	(void)state;
	assert_int_equal(config_load(put("json", "{\"current-context\": \"x\", \"contexts\": [{\"name\": "
		"\"x\", \"context\": {\"cluster\": \"c\"}}], \"clusters\": [{\"name\": \"c\", "
		"\"cluster\": {\"server\": \"http://127.0.0.1:8001\"}}]}"), NULL, &config, &err), 0);
	assert_string_equal(config->server, "http://127.0.0.1:8001");
	config_free(config);
	assert_int_equal(config_load(put("anchor", HEAD CONTEXTS
		"clusters: [{name: c, cluster: &a {server: 'https://a', insecure-skip-tls-verify: true}},"
		" {name: d, cluster: *a}]\nusers: [{name: u, user: {}}]\nextensions: [{}]\n"), NULL,
		&config, &err), 0);
	assert_true(config->insecure);
	config_free(config);
}

static void test_contexts(void **state)
{
	const char *path = put("contexts", HEAD CLUSTERS USERS
			       "contexts: [{name: x, context: {cluster: c, user: u}},"
			       " {name: y, context: {cluster: other}}]\n");
	struct config *config;
	struct error err = {};

	(void)state;
	assert_int_equal(config_load(path, "x", &config, &err), 0);
	config_free(config);
	assert_int_equal(config_load(path, "y", &config, &err), -ENOENT);
	assert_non_null(strstr(err.text, "there is no cluster \"other\""));
	assert_int_equal(config_load(path, "z", &config, &err), -ENOENT);
	assert_non_null(strstr(err.text, "there is no context \"z\""));
}

/* Of several files the first one that has an entry counts; one that does not exist is passed over. */
static void test_several(void **state)
{
	char list[512], one[128], two[128];
	struct config *config;
	struct error err = {};

	(void)state;
	snprintf(one, sizeof(one), "%s", put("one", "current-context: x\n" CONTEXTS
		"users: [{name: u, user: {token: first}}]\n"));
	snprintf(two, sizeof(two), "%s", put("two", "current-context: y\n" CLUSTERS
		"users: [{name: u, user: {token: second}}]\n"));
	snprintf(list, sizeof(list), "%s/none:%s:%s", folder, one, two);
	setenv("KUBECONFIG", list, 1);
	if (config_load(NULL, NULL, &config, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(config->server, "https://192.0.2.1:6443");
	assert_string_equal(config->token, "first");
	config_free(config);

	setenv("KUBECONFIG", "/nowhere/a:/nowhere/b", 1);
	assert_int_equal(config_load(NULL, NULL, &config, &err), -ENOENT);
	assert_string_equal(err.text, "kubeconfig: KUBECONFIG=/nowhere/a:/nowhere/b: no such file");
	unsetenv("KUBECONFIG");
}

static void test_places(void **state)
{
	char path[128];
	struct config *config;
	struct error err = {};

	(void)state;
	unsetenv("KUBECONFIG");
	setenv("HOME", folder, 1);
	assert_int_equal(config_load(NULL, NULL, &config, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/.kube/config is not there: give --kubeconfig"));
	snprintf(path, sizeof(path), "%s/.kube", folder);
	mkdir(path, 0700);
	put(".kube/config", HEAD CONTEXTS CLUSTERS USERS);
	assert_int_equal(config_load(NULL, NULL, &config, &err), 0);
	config_free(config);

	/* Inside a Pod. */
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	assert_int_equal(config_load(NULL, NULL, &config, &err), 0);
	assert_string_equal(config->server, "https://[fd00::1]:443");
	assert_string_equal(config->token_path, "/var/run/secrets/kubernetes.io/serviceaccount/token");
	config_free(config);
	/* A context can only be in a file. */
	assert_int_equal(config_load(NULL, "x", &config, &err), 0);
	assert_string_equal(config->token, "secret");
	config_free(config);
	unsetenv("KUBERNETES_SERVICE_HOST");
}

static void test_exec(void **state)
{
	struct config *config;
	struct error err = {};

	(void)state;
	if (config_load(put("exec", HEAD CONTEXTS CLUSTERS
		"users:\n- name: u\n  user:\n    exec: {apiVersion: client.authentication.k8s.io/v1,"
		" command: bin/plugin, args: [a, 'b c'], env: [{name: A, value: '1'}],"
		" provideClusterInfo: true, installHint: get it}\n"), NULL, &config, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(config->exec->argv[0] + strlen(folder), "/bin/plugin");
	assert_string_equal(config->exec->argv[2], "b c");
	assert_null(config->exec->argv[3]);
	assert_string_equal(config->exec->environment[0], "A=1");
	assert_non_null(strstr(config->exec->environment[1], "KUBERNETES_EXEC_INFO={"));
	assert_non_null(strstr(config->exec->environment[1], "https://192.0.2.1:6443/"));
	assert_string_equal(config->exec->install_hint, "get it");
	config_free(config);
	/* A plugin gets the authority itself: a path means nothing to it. */
	put("exec-ca.crt", "authority!");
	if (config_load(put("exec-ca", HEAD CONTEXTS "clusters: [{name: c, cluster: {server: 'https://a', "
			    "certificate-authority: exec-ca.crt}}]\n"
			    "users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, "
			    "command: plugin, provideClusterInfo: true}}}]\n"), NULL, &config, &err) < 0)
		fail_msg("%s", err.text);
	assert_non_null(strstr(config->exec->environment[0],
			       "\"certificate-authority-data\":\"YXV0aG9yaXR5IQ==\""));
	assert_null(strstr(config->exec->environment[0], "\"certificate-authority\""));
	config_free(config);
}

struct bad {
	const char *text, *complaint;
	int code;
};

#define ONE_USER(user) HEAD CONTEXTS CLUSTERS "users: [{name: u, user: " user "}]\n"
#define ONE_CLUSTER(cluster) HEAD CONTEXTS USERS "clusters: [{name: c, cluster: " cluster "}]\n"

static const struct bad bad_rows[] = {
	{ ONE_USER("{token: a, as: jane, as-user-extra: {scopes: [view]}}"),
	  "as-user-extra is not supported", -EINVAL },
	{ "a: [b", "not YAML", -EINVAL },
	{ "\t- x: ][", "not YAML", -EINVAL },
	{ "", "it is empty", -EINVAL },
	{ "just text", "a mapping is expected", -EINVAL },
	{ "a: 1\na: 2\n", "line 2: a key is there twice", -EINVAL },
	{ "? [a]\n: b\n", "a key has to be a word", -EINVAL },
	{ "a: &a [*a]\n", "nested more than 32 deep", -EINVAL },
	{ CONTEXTS CLUSTERS USERS, "no current-context: give --context", -ENOENT },
	{ "current-context: nope\n" CONTEXTS CLUSTERS USERS, "there is no context \"nope\"", -ENOENT },
	{ HEAD CONTEXTS USERS, "there is no cluster \"c\", which the context names", -ENOENT },
	{ HEAD CONTEXTS CLUSTERS, "there is no user \"u\", which the context names", -ENOENT },
	{ HEAD "contexts: {x: y}\n", "contexts: a list is expected", -EINVAL },
	{ HEAD "contexts: [{name: x, context: {}}]\n", "context \"x\": cluster is missing", -EINVAL },
	{ ONE_CLUSTER("{}"), "cluster \"c\": server is missing", -EINVAL },
	{ ONE_CLUSTER("{server: 'http://192.0.2.1'}"), "plain HTTP is allowed to this machine only",
	  -EINVAL },
	{ ONE_CLUSTER("{server: 'http://127.attacker.example'}"),
	  "plain HTTP is allowed to this machine only", -EINVAL },
	{ ONE_CLUSTER("{server: 'http://127.0.0.1.attacker.example:8001/x'}"),
	  "plain HTTP is allowed to this machine only", -EINVAL },
	{ ONE_CLUSTER("{server: 'http://localhost.attacker.example'}"),
	  "plain HTTP is allowed to this machine only", -EINVAL },
	{ ONE_CLUSTER("{server: 'http://127.0.0.1@192.0.2.1'}"),
	  "plain HTTP is allowed to this machine only", -EINVAL },
	{ ONE_CLUSTER("{server: 'http://[::2]'}"), "plain HTTP is allowed to this machine only",
	  -EINVAL },
	{ ONE_CLUSTER("{server: 'ftp://192.0.2.1'}"), "is neither https:// nor http://", -EINVAL },
	{ ONE_CLUSTER("{server: 'https://'}"), "is no URL", -EINVAL },
	{ ONE_CLUSTER("{server: 'https://a', insecure-skip-tls-verify: 'yes'}"),
	  "insecure-skip-tls-verify: a boolean is expected", -EINVAL },
	{ ONE_CLUSTER("{server: 'https://a', certificate-authority-data: '!'}"),
	  "certificate-authority-data: not base64", -EINVAL },
	{ ONE_CLUSTER("{server: 'https://a', certificate-authority: none.crt}"),
	  "none.crt: No such file or directory", -ENOENT },
	{ ONE_USER("{client-certificate-data: Y2VydA==}"), "belong together", -EINVAL },
	{ ONE_USER("{client-certificate-data: Y2VydA==, client-key: /nowhere/key}"),
	  "client-key: /nowhere/key: No such file or directory", -ENOENT },
	{ ONE_USER("{tokenFile: none}"), "none: No such file or directory", -ENOENT },
	{ ONE_USER("{token: [a]}"), "token: a string is expected", -EINVAL },
	{ ONE_USER("{auth-provider: {name: gcp}}"), "auth-provider is not supported: use exec", -EINVAL },
	{ ONE_USER("{exec: {command: x}}"), "exec: apiVersion: \"\" is neither", -EINVAL },
	{ ONE_USER("{exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}}"),
	  "v1alpha1\" is neither", -EINVAL },
	{ ONE_USER("{exec: {apiVersion: client.authentication.k8s.io/v1}}"), "exec: command is missing",
	  -EINVAL },
	{ ONE_USER("{exec: {apiVersion: client.authentication.k8s.io/v1, command: x, args: [[]]}}"),
	  "args[0]: a string is expected", -EINVAL },
};

static void test_bad(void **state)
{
	struct config *config;

	(void)state;
	for (size_t i = 0; i < sizeof(bad_rows) / sizeof(*bad_rows); i++) {
		struct error err = {};
		int r = config_load(put("bad", bad_rows[i].text), NULL, &config, &err);

		if (r >= 0 || !strstr(err.text, bad_rows[i].complaint))
			fail_msg("row %zu: %d: %s", i, r, err.text);
		assert_int_equal(r, bad_rows[i].code);
		assert_memory_equal(err.text, "kubeconfig: ", 12);
		assert_null(strchr(err.text, '\n'));
	}
}

/* Aliases of aliases of aliases: small on disk. */
static void test_bomb(void **state)
{
	char text[4096] = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
	struct config *config;
	struct error err = {};

	(void)state;
	for (int i = 1; i < 9; i++) {
		size_t n = strlen(text);

		n += snprintf(text + n, sizeof(text) - n, "a%d: &a%d [", i, i);
		for (int j = 0; j < 10; j++)
			n += snprintf(text + n, sizeof(text) - n, "*a%d%s", i - 1, j < 9 ? ", " : "]\n");
	}
	assert_int_equal(config_load(put("bomb", text), NULL, &config, &err), -EINVAL);
	assert_non_null(strstr(err.text, "aliases make it too large"));
}

static void test_base64(void **state)
{
	static const struct {
		const char *text, *data;
	} rows[] = {
		{ "", "" }, { "YQ==", "a" }, { "YWI=", "ab" }, { "YWJj", "abc" }, { "YWJjZA", "abcd" },
		{ "YW\nJj\r\n", "abc" },
	};
	static const char *const bad[] = { "Y", "YW*j", "YQ==YQ", "YWJjZ" };
	size_t size;
	char *data;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		assert_int_equal(base64_decode(rows[i].text, &data, &size), 0);
		assert_string_equal(data, rows[i].data);
		assert_int_equal(size, strlen(rows[i].data));
		free(data);
		data = base64_encode(rows[i].data, size);
		if (i < 4)	/* the others are not as anybody writes them */
			assert_string_equal(data, rows[i].text);
		free(data);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(base64_decode(bad[i], &data, &size), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),	 cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_contexts), cmocka_unit_test(test_several),
		cmocka_unit_test(test_places),	 cmocka_unit_test(test_exec),
		cmocka_unit_test(test_bad),	 cmocka_unit_test(test_bomb),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
