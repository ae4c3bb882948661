// SPDX-License-Identifier: GPL-2.0
/* Services and endpoints -> VIPs and backends: each row is a picture of a cluster and its meaning. */
#include "base/cleanup.h"
#include "kube_world.h"

#define LB KUBE_VIPS_LOADBALANCER

#define SERVICE(name, more)                                                                        \
	"{'kind':'Service','metadata':{'name':'" name "','namespace':'default'," more "}"
#define META "'creationTimestamp':'2026-01-01T00:00:00Z'}"
#define BALANCER "'status':{'loadBalancer':{'ingress':[{'ip':'192.0.2.10'}]}}"
#define HTTP "'ports':[{'name':'http','port':80,'protocol':'TCP','nodePort':31001}]"
#define HELLO                                                                                      \
	SERVICE("hello", META ",'spec':{'type':'LoadBalancer','selector':{'a':'b'},"               \
			 "'clusterIP':'10.96.0.10','clusterIPs':['10.96.0.10']," HTTP "}," BALANCER)
/* A slice of hello with these endpoints. */
#define SLICE(name, endpoints)                                                                     \
	"{'kind':'EndpointSlice','metadata':{'name':'" name "','namespace':'default',"             \
	"'labels':{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4',"                   \
	"'ports':[{'name':'http','port':8080,'protocol':'TCP'}],'endpoints':[" endpoints "]}"
#define EP(ip, conditions) "{'addresses':['" ip "'],'conditions':{" conditions "}}"
#define READY "'ready':true,'serving':true,'terminating':false"
#define NOT_READY "'ready':false,'serving':true,'terminating':false"
#define ENDING "'ready':false,'serving':true,'terminating':true"
#define ENDED "'ready':false,'serving':false,'terminating':true"
#define VIP "192.0.2.10:80/tcp default/hello:http nat maglev"
/* The tests are on node-a, in zone z1. */
#define AT(node, ip, conditions)                                                                   \
	"{'addresses':['" ip "'],'nodeName':'" node "','conditions':{" conditions "}}"
#define ZONED(zones, ip, conditions)                                                               \
	"{'addresses':['" ip "'],'conditions':{" conditions "},'hints':{'forZones':[{'name':'"     \
	zones "'}]}}"
#define LOCAL(more)                                                                                \
	SERVICE("hello", META ",'spec':{'type':'LoadBalancer','externalTrafficPolicy':'Local',"    \
			 "'clusterIP':'10.96.0.10'," more HTTP "}," BALANCER)
#define KEPT "192.0.2.10:80/tcp default/hello:http dnat maglev"

/* A Service of type LoadBalancer with one port and more in its spec, or with annotations. */
#define LB_SERVICE(name, port, more)                                                               \
	SERVICE(name, META ",'spec':{'type':'LoadBalancer'," more "'ports':[{'port':" #port "}]},"  \
		BALANCER)
#define NOTED(name, port, annotations)                                                             \
	SERVICE(name, "'annotations':{" annotations "}},'spec':{'type':'LoadBalancer','ports':["   \
		      "{'port':" #port "}]}," BALANCER)

struct row {
	const char *what;
	unsigned int vips;
	const char *json;
	const char *answer;
	const char *warnings;	/* NULL: none */
};

static const struct row rows[] = {
	{ "a ready endpoint", LB, HELLO SLICE("s1", EP("10.0.0.1", READY)),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "nil conditions mean ready", LB, HELLO SLICE("s1", "{'addresses':['10.0.0.1']}"),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "null conditions mean ready", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", "'ready':null,'serving':null,'terminating':null")),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "nil serving means true", LB, HELLO SLICE("s1", EP("10.0.0.1", "'ready':false")),
	  VIP " 10.0.0.1:8080=draining\n", NULL },
	{ "not ready beside ready: keeps its flows", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", READY) "," EP("10.0.0.2", NOT_READY)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=draining\n", NULL },
	{ "terminating beside ready: keeps its flows", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", READY) "," EP("10.0.0.2", ENDING)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=draining\n", NULL },
	{ "only terminating ones that serve: they are used (KEP-1669)", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", ENDING) "," EP("10.0.0.2", ENDED)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=down\n", NULL },
	{ "only one that is not ready: no fallback to it", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", NOT_READY)), VIP " 10.0.0.1:8080=draining\n", NULL },
	{ "not ready and not terminating is no match for terminating", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", NOT_READY) "," EP("10.0.0.2", ENDING)),
	  VIP " 10.0.0.1:8080=draining 10.0.0.2:8080=active\n", NULL },
	{ "terminating and not serving gets nothing new", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", ENDED)), VIP " 10.0.0.1:8080=down\n", NULL },
	{ "terminating and not serving: nothing new, whatever is said of ready", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", "'ready':true,'serving':false,'terminating':true") ","
			    EP("10.0.0.2", "'serving':false,'terminating':true")),
	  VIP " 10.0.0.1:8080=down 10.0.0.2:8080=down\n", NULL },
	{ "such a one beside one that serves while it terminates", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", "'ready':true,'serving':false,'terminating':true") ","
			    EP("10.0.0.2", ENDING)),
	  VIP " 10.0.0.1:8080=down 10.0.0.2:8080=active\n", NULL },
	{ "ready by publishNotReadyAddresses is ready", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", "'ready':true,'serving':false")),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "null endpoints and ports", LB,
	  HELLO "{'kind':'EndpointSlice','metadata':{'name':'s','namespace':'default','labels':"
		"{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4','endpoints':null,"
		"'ports':null}",
	  VIP "\n", NULL },

	{ "slices are joined", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", READY)) SLICE("s2", EP("10.0.0.2", READY)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=active\n", NULL },
	{ "the same endpoint in two slices: the fitter entry counts", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", ENDED)) SLICE("s2", EP("10.0.0.1", READY)),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "the same, the other way round", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", READY)) SLICE("s2", EP("10.0.0.1", ENDED)),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "ready in one slice ends the fallback in another", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", ENDING)) SLICE("s2", EP("10.0.0.2", READY)),
	  VIP " 10.0.0.1:8080=draining 10.0.0.2:8080=active\n", NULL },
	{ "addresses[0] stands for the endpoint", LB,
	  HELLO SLICE("s1", "{'addresses':['10.0.0.1','10.0.0.2']}"), VIP " 10.0.0.1:8080=active\n",
	  NULL },
	{ "a named port with other numbers in another slice", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", READY))
	  "{'kind':'EndpointSlice','metadata':{'name':'s2','namespace':'default','labels':"
	  "{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4','ports':[{'name':'http',"
	  "'port':9090}],'endpoints':[" EP("10.0.0.2", READY) "]}",
	  VIP " 10.0.0.1:8080=active 10.0.0.2:9090=active\n", NULL },
	{ "ports match by protocol too, nil ports are skipped, SCTP is not ours", LB,
	  HELLO "{'kind':'EndpointSlice','metadata':{'name':'s','namespace':'default','labels':"
		"{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4','ports':["
		"{'name':'http','port':1,'protocol':'UDP'},{'name':'http','port':2,"
		"'protocol':'SCTP'},{'name':'http'},{'name':'http','port':3,'protocol':'TCP'}],"
		"'endpoints':[" EP("10.0.0.1", READY) "]}",
	  VIP " 10.0.0.1:3=active\n", NULL },
	{ "ports match by name, never by number", LB,
	  HELLO "{'kind':'EndpointSlice','metadata':{'name':'s','namespace':'default','labels':"
		"{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4','ports':["
		"{'name':'other','port':80}],'endpoints':[" EP("10.0.0.1", READY) "]}",
	  VIP "\n", NULL },
	{ "FQDN slices are ignored", LB,
	  HELLO "{'kind':'EndpointSlice','metadata':{'name':'s','namespace':'default','labels':"
		"{'kubernetes.io/service-name':'hello'}},'addressType':'FQDN','ports':[],"
		"'endpoints':[{'addresses':['a.example']}]}" SLICE("s2", EP("10.0.0.1", READY)),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "another namespace's slice of that name is another Service's", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", READY))
	  "{'kind':'EndpointSlice','metadata':{'name':'s1','namespace':'other','labels':"
	  "{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4','ports':[{'name':'http',"
	  "'port':1}],'endpoints':[" EP("10.0.0.9", READY) "]}",
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "loopback endpoints are left out", LB,
	  HELLO SLICE("s1", EP("127.0.0.1", READY) "," EP("10.0.0.1", READY)),
	  VIP " 10.0.0.1:8080=active\n",
	  "default/hello: 1 endpoint of default/s1 cannot be reached from outside (loopback or "
	  "multicast): left out\n" },

	{ "dual stack: each family is a VIP of its own with backends of its own", LB,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer'," HTTP "},'status':{'loadBalancer':"
			   "{'ingress':[{'ip':'192.0.2.10'},{'ip':'2001:db8::10','ipMode':'VIP'}]}}")
	  SLICE("s1", EP("10.0.0.1", READY))
	  "{'kind':'EndpointSlice','metadata':{'name':'s6','namespace':'default','labels':"
	  "{'kubernetes.io/service-name':'hello'}},'addressType':'IPv6','ports':[{'name':'http',"
	  "'port':8080}],'endpoints':[" EP("2001:db8::1", READY) "]}",
	  VIP " 10.0.0.1:8080=active\n"
	      "[2001:db8::10]:80/tcp default/hello:http nat maglev [2001:db8::1]:8080=active\n",
	  NULL },
	{ "one number on TCP and on UDP, unnamed port", LB,
	  SERVICE("dns", META ",'spec':{'type':'LoadBalancer','ports':[{'port':53,'name':'t'},"
			 "{'port':53,'name':'u','protocol':'UDP'}]}," BALANCER)
	  SERVICE("one", META ",'spec':{'type':'LoadBalancer','ports':[{'port':80}]}," BALANCER),
	  "192.0.2.10:53/tcp default/dns:t nat maglev\n"
	  "192.0.2.10:53/udp default/dns:u nat maglev\n"
	  "192.0.2.10:80/tcp default/one:80 nat maglev\n",
	  NULL },
	{ "ipMode Proxy and hostnames are no VIPs", LB,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer'," HTTP "},'status':{'loadBalancer':"
			   "{'ingress':[{'ip':'192.0.2.10','ipMode':'Proxy'},{'hostname':'a'},"
			   "{'ip':''}]}}"),
	  "", NULL },
	{ "headless, ExternalName and another proxy's Services are not ours", 15,
	  SERVICE("a", META ",'spec':{'clusterIP':'None','externalIPs':['192.0.2.1']," HTTP "}")
	  SERVICE("b", META ",'spec':{'type':'ExternalName','externalIPs':['192.0.2.1']," HTTP "}")
	  SERVICE("c", "'labels':{'service.kubernetes.io/service-proxy-name':'other'}},"
		       "'spec':{'clusterIP':'10.96.0.1'," HTTP "}")
	  SERVICE("d", "'labels':{'service.kubernetes.io/service-proxy-name':'xlb'}},"
		       "'spec':{'clusterIP':'10.96.0.2'," HTTP "}"),
	  "10.96.0.2:80/tcp default/d:http nat maglev\n", NULL },
	{ "classes: unset and ours, not another's; and not what is left of another type", LB,
	  SERVICE("a", META ",'spec':{'type':'LoadBalancer','loadBalancerClass':'xlb.dev/xlb',"
		       "'ports':[{'port':1}]}," BALANCER)
	  SERVICE("b", META ",'spec':{'type':'LoadBalancer','loadBalancerClass':'a/b',"
		       "'ports':[{'port':2}]}," BALANCER)
	  SERVICE("c", META ",'spec':{'type':'ClusterIP','ports':[{'port':3}]}," BALANCER),
	  "192.0.2.10:1/tcp default/a:1 nat maglev\n", NULL },
	{ "cluster and external addresses, only when asked for", KUBE_VIPS_CLUSTERIP |
	  KUBE_VIPS_EXTERNAL,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer','clusterIP':'10.96.0.10',"
			   "'externalIPs':['192.0.2.99']," HTTP "}," BALANCER),
	  "10.96.0.10:80/tcp default/hello:http nat maglev\n"
	  "192.0.2.99:80/tcp default/hello:http nat maglev\n",
	  NULL },
	{ "an external address that is also the load balancer's is one VIP", LB | KUBE_VIPS_EXTERNAL,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer','externalIPs':['192.0.2.10'],"
			   HTTP "}," BALANCER),
	  VIP "\n", NULL },
	{ "a NodePort of 0 is none", KUBE_VIPS_NODEPORT,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer','allocateLoadBalancerNodePorts':"
			   "false,'ports':[{'port':80,'nodePort':0}]}," BALANCER),
	  "", NULL },
	{ "NodePorts on every node address", KUBE_VIPS_NODEPORT,
	  SERVICE("hello", META ",'spec':{'type':'NodePort'," HTTP "}")
	  SLICE("s1", EP("10.0.0.1", READY)),
	  "198.51.100.1:31001/tcp default/hello:http nat maglev 10.0.0.1:8080=active\n"
	  "[2001:db8::99]:31001/tcp default/hello:http nat maglev\n",
	  NULL },
	{ "NodePorts of the families that the Service has", KUBE_VIPS_NODEPORT,
	  SERVICE("four", META ",'spec':{'type':'NodePort','clusterIP':'10.96.0.4','clusterIPs':["
			  "'10.96.0.4'],'ports':[{'port':4,'nodePort':31004}]}")
	  SERVICE("six", META ",'spec':{'type':'NodePort','clusterIPs':['2001:db8::6'],'ports':["
			 "{'port':6,'nodePort':31006}]}")
	  SERVICE("both", META ",'spec':{'type':'NodePort','clusterIPs':['10.96.0.5','2001:db8::5'],"
			  "'ports':[{'port':5,'nodePort':31005}]}"),
	  "198.51.100.1:31004/tcp default/four:4 nat maglev\n"
	  "198.51.100.1:31005/tcp default/both:5 nat maglev\n"
	  "[2001:db8::99]:31005/tcp default/both:5 nat maglev\n"
	  "[2001:db8::99]:31006/tcp default/six:6 nat maglev\n",
	  NULL },
	{ "SCTP is skipped and said", LB,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer','ports':[{'port':9,'protocol':"
			   "'SCTP'},{'port':80}]}," BALANCER),
	  "192.0.2.10:80/tcp default/hello:80 nat maglev\n",
	  "default/hello:9: SCTP is not supported: the port is skipped\n" },
	{ "addresses that cannot be VIPs", LB,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer','ports':[{'port':80}]},'status':"
			   "{'loadBalancer':{'ingress':[{'ip':'127.0.0.1'}]}}"),
	  "", "default/hello: 127.0.0.1 cannot be a VIP: it is left out\n" },
	{ "annotations", LB,
	  SERVICE("hello", "'annotations':{'xlb.dev/forward':'dnat','xlb.dev/scheduler':'rr'}},"
			   "'spec':{'type':'LoadBalancer'," HTTP "}," BALANCER),
	  "192.0.2.10:80/tcp default/hello:http dnat rr\n", NULL },
	{ "wrong annotations: the default, and a line", LB,
	  SERVICE("hello", "'annotations':{'xlb.dev/forward':'x','xlb.dev/scheduler':'y\\u001b[0m'}"
			   "},'spec':{'type':'LoadBalancer'," HTTP "}," BALANCER),
	  VIP "\n",
	  "default/hello: annotation xlb.dev/forward: \"x\" is unknown: nat is used\n"
	  "default/hello: annotation xlb.dev/scheduler: \"y [0m\" is unknown: maglev is used\n" },

	{ "Local: endpoints of this node, and the client's address is kept", LB,
	  LOCAL("") SLICE("s1", AT("node-a", "10.0.0.1", READY) "," AT("node-b", "10.0.0.2", READY) ","
			       EP("10.0.0.3", READY)),
	  KEPT " 10.0.0.1:8080=active\n", NULL },
	{ "Local: names of nodes are not prefixes of each other", LB,
	  LOCAL("") SLICE("s1", AT("node-a", "10.0.0.1", READY) "," AT("node-aa", "10.0.0.2", READY) ","
			       AT("node", "10.0.0.3", READY) "," AT("", "10.0.0.4", READY)),
	  KEPT " 10.0.0.1:8080=active\n", NULL },
	{ "Local: who ends here serves where only others' are ready", LB,
	  LOCAL("") SLICE("s1", AT("node-a", "10.0.0.1", ENDING) "," AT("node-b", "10.0.0.2", READY)),
	  KEPT " 10.0.0.1:8080=active\n", NULL },
	{ "Local: who ends here does not beside one that is ready here", LB,
	  LOCAL("") SLICE("s1", AT("node-a", "10.0.0.1", ENDING) "," AT("node-a", "10.0.0.2", READY)),
	  KEPT " 10.0.0.1:8080=draining 10.0.0.2:8080=active\n", NULL },
	{ "Cluster: who ends here does not beside one that is ready elsewhere", LB,
	  HELLO SLICE("s1", AT("node-a", "10.0.0.1", ENDING) "," AT("node-b", "10.0.0.2", READY)),
	  VIP " 10.0.0.1:8080=draining 10.0.0.2:8080=active\n", NULL },
	{ "Local: one that is not ready keeps its flows, and nobody is kept out", LB,
	  LOCAL("") SLICE("s1", AT("node-a", "10.0.0.1", NOT_READY) "," AT("node-b", "10.0.0.2", READY)),
	  KEPT " 10.0.0.1:8080=draining\n", NULL },
	{ "Local: none here and some elsewhere: dropped", LB,
	  LOCAL("'loadBalancerSourceRanges':['10.0.0.0/8'],")
	  SLICE("s1", AT("node-b", "10.0.0.2", READY)),
	  KEPT " range=::/0\n", NULL },
	{ "Local: none here, and elsewhere one that ends: dropped", LB,
	  LOCAL("") SLICE("s1", AT("node-b", "10.0.0.2", ENDING)), KEPT " range=::/0\n", NULL },
	{ "Local: none anywhere: refused", LB,
	  LOCAL("") SLICE("s1", AT("node-b", "10.0.0.2", NOT_READY) "," AT("node-b", "10.0.0.3", ENDED)),
	  KEPT "\n", NULL },
	{ "Local: by v1beta1's topology, and nodeName before it", LB,
	  LOCAL("") SLICE("s1",
		"{'addresses':['10.0.0.1'],'topology':{'kubernetes.io/hostname':'node-a'}},"
		"{'addresses':['10.0.0.2'],'topology':{'kubernetes.io/hostname':'node-b'}},"
		"{'addresses':['10.0.0.3'],'nodeName':null,'topology':{'kubernetes.io/hostname':'node-a'}},"
		"{'addresses':['10.0.0.4'],'nodeName':'node-b','topology':{'kubernetes.io/hostname':'node-a'}},"
		"{'addresses':['10.0.0.5'],'topology':null}"),
	  KEPT " 10.0.0.1:8080=active 10.0.0.3:8080=active\n", NULL },
	{ "Local: by Endpoints", LB,
	  LOCAL("") "{'kind':'Endpoints','metadata':{'name':'hello'},'subsets':[{'addresses':["
		"{'ip':'10.0.0.1','nodeName':'node-a'},{'ip':'10.0.0.2','nodeName':'node-b'},"
		"{'ip':'10.0.0.3'}],'notReadyAddresses':[{'ip':'10.0.0.4','nodeName':'node-a'},"
		"{'ip':'10.0.0.5','nodeName':'node-b'}],'ports':[{'name':'http','port':8080}]}]}",
	  KEPT " 10.0.0.1:8080=active 10.0.0.4:8080=draining\n", NULL },
	{ "Local is for what comes from outside: not for the cluster IP", 15,
	  LOCAL("'externalIPs':['192.0.2.99'],")
	  SLICE("s1", AT("node-a", "10.0.0.1", READY) "," AT("node-b", "10.0.0.2", READY)),
	  "10.96.0.10:80/tcp default/hello:http nat maglev 10.0.0.1:8080=active 10.0.0.2:8080=active\n"
	  "192.0.2.10:80/tcp default/hello:http dnat maglev 10.0.0.1:8080=active\n"
	  "192.0.2.99:80/tcp default/hello:http dnat maglev 10.0.0.1:8080=active\n"
	  "198.51.100.1:31001/tcp default/hello:http dnat maglev 10.0.0.1:8080=active\n", NULL },
	{ "internalTrafficPolicy is for the cluster IP alone", LB | KUBE_VIPS_CLUSTERIP,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer','clusterIP':'10.96.0.10',"
			   "'internalTrafficPolicy':'Local'," HTTP "}," BALANCER)
	  SLICE("s1", AT("node-a", "10.0.0.1", READY) "," AT("node-b", "10.0.0.2", READY)),
	  "10.96.0.10:80/tcp default/hello:http nat maglev 10.0.0.1:8080=active\n"
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=active\n", NULL },
	{ "internalTrafficPolicy with none here: dropped", KUBE_VIPS_CLUSTERIP,
	  SERVICE("hello", META ",'spec':{'clusterIP':'10.96.0.10','internalTrafficPolicy':'Local',"
			   HTTP "}") SLICE("s1", AT("node-b", "10.0.0.2", READY)),
	  "10.96.0.10:80/tcp default/hello:http nat maglev range=::/0\n", NULL },
	{ "Local: the annotation has the last word on forwarding", LB,
	  SERVICE("hello", "'annotations':{'xlb.dev/forward':'nat'}},'spec':{'type':'LoadBalancer',"
			   "'externalTrafficPolicy':'Local'," HTTP "}," BALANCER)
	  SLICE("s1", AT("node-a", "10.0.0.1", READY)),
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "Local: where an annotation cannot be had, the client's address is kept", LB,
	  SERVICE("hello", "'annotations':{'xlb.dev/forward':'gue','xlb.dev/scheduler':'rr'}},'spec':{"
			   "'type':'LoadBalancer','externalTrafficPolicy':'Local'," HTTP "}," BALANCER)
	  SLICE("s1", AT("node-a", "10.0.0.1", READY)),
	  "192.0.2.10:80/tcp default/hello:http dnat rr 10.0.0.1:8080=active\n",
	  "default/hello: 192.0.2.10:80/tcp: gue keeps the port, but endpoints have port 8080: dnat is "
	  "used\n" },
	{ "Local: an address in two slices, once without its node", LB,
	  LOCAL("") SLICE("s1", EP("10.0.0.1", READY)) SLICE("s2", AT("node-a", "10.0.0.1", READY)),
	  KEPT " 10.0.0.1:8080=active\n", NULL },

	{ "hints of zones: all have one, and one is for us", LB,
	  HELLO SLICE("s1", ZONED("z1", "10.0.0.1", READY) "," ZONED("z2", "10.0.0.2", READY) ","
			    ZONED("z3'},{'name':'z1", "10.0.0.3", READY)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=draining 10.0.0.3:8080=active\n", NULL },
	{ "hints of zones: one ready endpoint has none", LB,
	  HELLO SLICE("s1", ZONED("z1", "10.0.0.1", READY) "," ZONED("z2", "10.0.0.2", READY) ","
			    EP("10.0.0.3", READY)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=active 10.0.0.3:8080=active\n", NULL },
	{ "hints of zones: who is not ready needs none", LB,
	  HELLO SLICE("s1", ZONED("z1", "10.0.0.1", READY) "," ZONED("z2", "10.0.0.2", READY) ","
			    EP("10.0.0.3", NOT_READY)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=draining 10.0.0.3:8080=draining\n", NULL },
	{ "hints of zones: none is for us", LB,
	  HELLO SLICE("s1", ZONED("z2", "10.0.0.1", READY) "," ZONED("z3", "10.0.0.2", READY)),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=active\n", NULL },
	{ "hints of zones: the one for us is not ready", LB,
	  HELLO SLICE("s1", ZONED("z1", "10.0.0.1", ENDING) "," ZONED("z3", "10.0.0.2", READY)),
	  VIP " 10.0.0.1:8080=draining 10.0.0.2:8080=active\n", NULL },
	{ "hints do not count where nobody is ready, nor for Local", LB,
	  HELLO SLICE("s1", ZONED("z1", "10.0.0.1", ENDING) "," ZONED("z2", "10.0.0.2", ENDING))
	  SERVICE("near", META ",'spec':{'type':'LoadBalancer','externalTrafficPolicy':'Local',"
			  "'ports':[{'port':1}]}," BALANCER)
	  "{'kind':'EndpointSlice','metadata':{'name':'n1','labels':{'kubernetes.io/service-name':"
	  "'near'}},'addressType':'IPv4','ports':[{'port':1}],'endpoints':[{'addresses':['10.0.1.1'],"
	  "'nodeName':'node-a','hints':{'forZones':[{'name':'z2'}]}},{'addresses':['10.0.1.2'],"
	  "'nodeName':'node-a','hints':{'forZones':[{'name':'z1'}]}}]}",
	  "192.0.2.10:1/tcp default/near:1 dnat maglev 10.0.1.1:1=active 10.0.1.2:1=active\n"
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=active\n", NULL },
	{ "hints of nodes come before those of zones", LB,
	  HELLO SLICE("s1", "{'addresses':['10.0.0.1'],'hints':{'forZones':[{'name':'z1'}],'forNodes':["
			    "{'name':'node-b'}]}},{'addresses':['10.0.0.2'],'hints':{'forZones':["
			    "{'name':'z1'}],'forNodes':[{'name':'node-a'}]}}"),
	  VIP " 10.0.0.1:8080=draining 10.0.0.2:8080=active\n", NULL },
	{ "hints of nodes for others leave those of zones", LB,
	  HELLO SLICE("s1", "{'addresses':['10.0.0.1'],'hints':{'forZones':[{'name':'z1'}],'forNodes':["
			    "{'name':'node-b'}]}},{'addresses':['10.0.0.2'],'hints':{'forZones':["
			    "{'name':'z2'}],'forNodes':[{'name':'node-c'}]}}"),
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=draining\n", NULL },

	{ "session affinity: three hours unless it says", LB,
	  LB_SERVICE("a", 1, "'sessionAffinity':'ClientIP',")
	  LB_SERVICE("b", 2, "'sessionAffinity':'ClientIP','sessionAffinityConfig':{'clientIP':"
			     "{'timeoutSeconds':86400}},")
	  LB_SERVICE("c", 3, "'sessionAffinity':'ClientIP','sessionAffinityConfig':{'clientIP':null},")
	  LB_SERVICE("d", 4, "'sessionAffinity':'None','sessionAffinityConfig':{'clientIP':"
			     "{'timeoutSeconds':10}},")
	  LB_SERVICE("e", 5, "'sessionAffinity':'ClientIP','sessionAffinityConfig':null,"),
	  "192.0.2.10:1/tcp default/a:1 nat maglev affinity=10800\n"
	  "192.0.2.10:2/tcp default/b:2 nat maglev affinity=86400\n"
	  "192.0.2.10:3/tcp default/c:3 nat maglev affinity=10800\n"
	  "192.0.2.10:4/tcp default/d:4 nat maglev\n"
	  "192.0.2.10:5/tcp default/e:5 nat maglev affinity=10800\n", NULL },
	{ "source ranges: blanks and bits behind them do not matter", LB,
	  LB_SERVICE("a", 1, "'loadBalancerSourceRanges':[' 10.1.2.3/8\\n','192.0.2.0/24'],")
	  LB_SERVICE("b", 2, "'loadBalancerSourceRanges':[],")
	  LB_SERVICE("c", 3, "'loadBalancerSourceRanges':null,"),
	  "192.0.2.10:1/tcp default/a:1 nat maglev range=10.0.0.0/8 range=192.0.2.0/24\n"
	  "192.0.2.10:2/tcp default/b:2 nat maglev\n"
	  "192.0.2.10:3/tcp default/c:3 nat maglev\n", NULL },
	{ "source ranges that make no sense are left out, and said", LB,
	  LB_SERVICE("a", 1, "'loadBalancerSourceRanges':['10.0.0.0/8','10.0.0.0/33','10.0.0.1',"
			     "'','x\\u001b[0m/1'],"),
	  "192.0.2.10:1/tcp default/a:1 nat maglev range=10.0.0.0/8\n",
	  "default/a: loadBalancerSourceRanges: \"10.0.0.0/33\", \"10.0.0.1\", \"\", \"x [0m/1\" "
	  "cannot be understood: left out\n" },
	{ "no source range that makes sense: nobody is let in", LB,
	  LB_SERVICE("a", 1, "'loadBalancerSourceRanges':['all'],"),
	  "192.0.2.10:1/tcp default/a:1 nat maglev range=::/0\n",
	  "default/a: loadBalancerSourceRanges: \"all\" cannot be understood: left out\n"
	  "default/a: 192.0.2.10:1/tcp: loadBalancerSourceRanges has none of IPv4: nobody is let in\n" },
	{ "source ranges of one family let nobody of the other in", LB,
	  SERVICE("a", META ",'spec':{'type':'LoadBalancer','loadBalancerSourceRanges':['10.0.0.0/8'],"
		       "'ports':[{'port':1}]},'status':{'loadBalancer':{'ingress':["
		       "{'ip':'192.0.2.10'},{'ip':'2001:db8::10'}]}}"),
	  "192.0.2.10:1/tcp default/a:1 nat maglev range=10.0.0.0/8\n"
	  "[2001:db8::10]:1/tcp default/a:1 nat maglev range=0.0.0.0/0\n",
	  "default/a: [2001:db8::10]:1/tcp: loadBalancerSourceRanges has none of IPv6: nobody is let in\n" },
	{ "source ranges are for the load balancer's addresses, whatever else those are", 15,
	  SERVICE("a", META ",'spec':{'type':'LoadBalancer','clusterIP':'10.96.0.1','externalIPs':["
		       "'192.0.2.99','192.0.2.10'],'loadBalancerSourceRanges':['10.0.0.0/8'],"
		       "'ports':[{'port':1,'nodePort':31001}]}," BALANCER),
	  "10.96.0.1:1/tcp default/a:1 nat maglev\n"
	  "192.0.2.10:1/tcp default/a:1 nat maglev range=10.0.0.0/8\n"
	  "192.0.2.99:1/tcp default/a:1 nat maglev\n"
	  "198.51.100.1:31001/tcp default/a:1 nat maglev\n", NULL },
	{ "source ranges of a Service of another type say nothing", 15,
	  SERVICE("a", META ",'spec':{'type':'NodePort','clusterIP':'10.96.0.1',"
		       "'loadBalancerSourceRanges':['10.0.0.0/8','x'],'ports':[{'port':1}]}"),
	  "10.96.0.1:1/tcp default/a:1 nat maglev\n", NULL },

	{ "every way of forwarding, every scheduler", LB,
	  NOTED("a", 1, "'xlb.dev/forward':'l2','xlb.dev/scheduler':'lc'")
	  NOTED("b", 2, "'xlb.dev/forward':'ipip','xlb.dev/scheduler':'random'")
	  NOTED("c", 3, "'xlb.dev/forward':'gue','xlb.dev/scheduler':'source'")
	  NOTED("d", 4, "'xlb.dev/forward':'nat','xlb.dev/scheduler':'maglev'"),
	  "192.0.2.10:1/tcp default/a:1 l2 lc\n"
	  "192.0.2.10:2/tcp default/b:2 ipip random\n"
	  "192.0.2.10:3/tcp default/c:3 gue source\n"
	  "192.0.2.10:4/tcp default/d:4 nat maglev\n", NULL },
	{ "annotations of tunnels", LB,
	  NOTED("a", 1, "'xlb.dev/forward':'gue','xlb.dev/gue-port':'6081','xlb.dev/mss':'1400',"
			"'xlb.dev/encap-source':'172.16.0.0/16','xlb.dev/echo':'off',"
			"'xlb.dev/gue-checksum':'on'")
	  NOTED("b", 2, "'xlb.dev/forward':'ipip','xlb.dev/encap-source':'2001:db8::1',"
			"'xlb.dev/echo':'on','xlb.dev/mss':'0'"),
	  "192.0.2.10:1/tcp default/a:1 gue maglev mss=1400 encap_source=172.16.0.0/16 gue_port=6081 "
	  "gue_checksum=on echo=off\n"
	  "192.0.2.10:2/tcp default/b:2 ipip maglev encap_source=2001:db8::1\n", NULL },
	{ "wrong annotations of tunnels: the defaults, and a line each", LB,
	  NOTED("a", 1, "'xlb.dev/forward':'gue','xlb.dev/gue-port':'0','xlb.dev/mss':'x',"
			"'xlb.dev/encap-source':'172.16.0.1/16','xlb.dev/echo':'yes\\n',"
			"'xlb.dev/gue-checksum':'full'"),
	  "192.0.2.10:1/tcp default/a:1 gue maglev\n",
	  "default/a: annotation xlb.dev/mss: x: not a size of segments from 536 to 65495, or 0 for "
	  "any: the default is used\n"
	  "default/a: annotation xlb.dev/encap-source: 172.16.0.1/16: has bits behind its prefix, is "
	  "172.16.0.0/16 meant?: the default is used\n"
	  "default/a: annotation xlb.dev/gue-port: 0: not a port (1..65535): the default is used\n"
	  "default/a: annotation xlb.dev/gue-checksum: full: not on or off: the default is used\n"
	  "default/a: annotation xlb.dev/echo: yes : not on or off: the default is used\n" },
	{ "annotations of tunnels without one", LB,
	  NOTED("a", 1, "'xlb.dev/gue-port':'6081','xlb.dev/encap-source':'172.16.0.0/16',"
			"'xlb.dev/gue-checksum':'on'"),
	  "192.0.2.10:1/tcp default/a:1 nat maglev\n",
	  "default/a: annotation xlb.dev/encap-source: the Service is forwarded by nat, and only ipip "
	  "and gue have an outer header: it is ignored\n"
	  "default/a: annotation xlb.dev/gue-port: the Service is forwarded by nat, and only gue has a "
	  "port: it is ignored\n"
	  "default/a: annotation xlb.dev/gue-checksum: the Service is forwarded by nat, and only gue "
	  "has a checksum: it is ignored\n" },
	{ "segments are TCP's", LB,
	  SERVICE("a", "'annotations':{'xlb.dev/mss':'1400'}},'spec':{'type':'LoadBalancer','ports':["
		       "{'name':'t','port':1},{'name':'u','port':1,'protocol':'UDP'}]}," BALANCER),
	  "192.0.2.10:1/tcp default/a:t nat maglev mss=1400\n"
	  "192.0.2.10:1/udp default/a:u nat maglev\n", NULL },
	{ "a port that a tunnel would have to change: the default, and a line", LB,
	  SERVICE("hello", "'annotations':{'xlb.dev/forward':'gue','xlb.dev/gue-port':'6081'}},'spec':"
			   "{'type':'LoadBalancer'," HTTP "}," BALANCER)
	  SLICE("s1", EP("10.0.0.1", READY)),
	  VIP " 10.0.0.1:8080=active\n",
	  "default/hello: 192.0.2.10:80/tcp: gue keeps the port, but endpoints have port 8080: nat is "
	  "used\n" },
	{ "a port that is the same on both sides", LB,
	  SERVICE("hello", "'annotations':{'xlb.dev/forward':'ipip'}},'spec':{'type':'LoadBalancer',"
			   "'ports':[{'name':'http','port':8080}]}," BALANCER)
	  SLICE("s1", EP("10.0.0.1", READY)),
	  "192.0.2.10:8080/tcp default/hello:http ipip maglev 10.0.0.1:8080=active\n", NULL },
	{ "NodePorts are other ports", KUBE_VIPS_NODEPORT,
	  SERVICE("hello", "'annotations':{'xlb.dev/forward':'l2'}},'spec':{'type':'NodePort',"
			   "'clusterIP':'10.96.0.1',"
			   "'ports':[{'name':'http','port':8080,'nodePort':31001}]}")
	  SLICE("s1", EP("10.0.0.1", READY)),
	  "198.51.100.1:31001/tcp default/hello:http nat maglev 10.0.0.1:8080=active\n",
	  "default/hello: 198.51.100.1:31001/tcp: l2 keeps the port, but endpoints have port 8080: nat "
	  "is used\n" },
	{ "Services without VIPs get no warnings", LB,
	  SERVICE("hello", META ",'spec':{'type':'ClusterIP','clusterIP':'10.96.0.1',"
			   "'externalTrafficPolicy':'Local','loadBalancerSourceRanges':['x'],"
			   HTTP "}"),
	  "", NULL },
	{ "two Services and one VIP: the older one has it", LB,
	  SERVICE("young", "'creationTimestamp':'2026-02-01T00:00:00Z'},'spec':{'type':"
			   "'LoadBalancer','ports':[{'port':80}]}," BALANCER)
	  SERVICE("older", "'creationTimestamp':'2026-01-31T23:59:59Z'},'spec':{'type':"
			   "'LoadBalancer','ports':[{'port':80}]}," BALANCER),
	  "192.0.2.10:80/tcp default/older:80 nat maglev\n",
	  "default/young: 192.0.2.10:80/tcp belongs to default/older, which is older: left alone\n" },
	{ "equally old: the first name", LB,
	  SERVICE("b", META ",'spec':{'type':'LoadBalancer','ports':[{'port':80}]}," BALANCER)
	  SERVICE("a", META ",'spec':{'type':'LoadBalancer','ports':[{'port':80}]}," BALANCER),
	  "192.0.2.10:80/tcp default/a:80 nat maglev\n",
	  "default/b: 192.0.2.10:80/tcp belongs to default/a, which is older: left alone\n" },

	{ "Endpoints where there are no slices", LB,
	  HELLO "{'kind':'Endpoints','metadata':{'name':'hello','namespace':'default'},'subsets':["
		"{'addresses':[{'ip':'10.0.0.1'},{'ip':'2001:db8::1'}],'notReadyAddresses':["
		"{'ip':'10.0.0.2'}],'ports':[{'name':'http','port':8080}]},"
		"{'addresses':[{'ip':'10.0.0.3'}],'ports':[{'name':'http','port':9090}]}]}",
	  VIP " 10.0.0.1:8080=active 10.0.0.2:8080=draining 10.0.0.3:9090=active\n", NULL },
	{ "Endpoints are never read together with slices", LB,
	  HELLO SLICE("s1", EP("10.0.0.1", READY))
	  "{'kind':'Endpoints','metadata':{'name':'hello','namespace':'default'},'subsets':["
	  "{'addresses':[{'ip':'10.0.0.2'}],'ports':[{'name':'http','port':8080}]}]}",
	  VIP " 10.0.0.1:8080=active\n", NULL },
	{ "a Service without a selector takes slices made by hand", LB,
	  SERVICE("hello", META ",'spec':{'type':'LoadBalancer','ports':[{'port':80,'name':'http'}]},"
			   BALANCER) SLICE("by-hand", EP("203.0.113.7", "")),
	  VIP " 203.0.113.7:8080=active\n", NULL },
	{ "lists in lists' clothes: kinds before and after the items", LB,
	  "{'kind':'ServiceList','apiVersion':'v1','items':[{'metadata':{'name':'hello'},'spec':"
	  "{'type':'LoadBalancer'," HTTP "}," BALANCER "}]}"
	  "{'items':[{'metadata':{'name':'s','labels':{'kubernetes.io/service-name':'hello'}},"
	  "'addressType':'IPv4','ports':[{'name':'http','port':1}],'endpoints':["
	  "{'addresses':['10.0.0.1']}]}],'kind':'EndpointSliceList'}",
	  VIP " 10.0.0.1:1=active\n", NULL },
};

static const struct endpoint node_addresses[] = {
	{ .family = XLB_IPV4, .address.word = { 0x016433c6 } },
	{ .family = XLB_IPV6, .address.word = { 0xb80d0120, 0, 0, 0x99000000 } },
};

static void test_row(void **state)
{
	const struct row *row = *state;
	struct kube_options options = world_options(row->vips);
	struct world world = {};
	struct error err = {};
	char *json = quoted(row->json);
	int r;

	options.node_addresses = node_addresses;
	options.n_node_addresses = 2;
	options.place = (struct kube_place){ .node = "node-a", .zone = "z1" };
	r = world_load(&world, &options, json, strlen(json), &err);
	if (r < 0)
		fail_msg("%s", err.text);
	assert_string_equal(world_answer(&world), row->answer);
	/* A file of Services alone says so; that is not what these rows are about. */
	if (!strstr(world.warnings, "no endpoints"))
		assert_string_equal(world.warnings, row->warnings ? row->warnings : "");
	else if (row->warnings)
		assert_non_null(strstr(world.warnings, row->warnings));
	world_end(&world);
	free(json);
}

/* --- what one picture cannot show --- */

/* Appends to a text that has room. */
static void add(char *text, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsprintf(text + strlen(text), format, arguments);
	va_end(arguments);
}

static void load(struct world *world, const char *text);

/* The VIPs that change, and the backends that they have together. */
static size_t count_changes(struct world *world, size_t *ret_backends)
{
	struct kube_change change;
	struct error err;
	size_t n = 0;

	*ret_backends = 0;
	for (; kube_next_change(world->kube, &change, &err) > 0; n++)
		*ret_backends += change.after ? change.after->n_backends : 0;
	return n;
}

static void test_512_ports(void **state)
{
	_cleanup_(free_pointer) char *text = calloc(1, 1 << 20);
	struct world world = {};
	size_t n;

	(void)state;
	add(text, "{'kind':'Service','metadata':{'name':'hello'},'spec':{'type':'LoadBalancer','ports':[");
	for (int i = 0; i < 512; i++)
		add(text, "%s{'name':'p%d','port':%d}", i ? "," : "", i, 1000 + i);
	add(text, "]}," BALANCER "}{'kind':'EndpointSlice','metadata':{'name':'s','labels':"
		  "{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4','ports':[");
	for (int i = 0; i < 512; i++)
		add(text, "%s{'name':'p%d','port':%d}", i ? "," : "", i, 2000 + i);
	add(text, "],'endpoints':[" EP("10.0.0.1", READY) "," EP("10.0.0.2", READY) "]}");
	load(&world, text);
	assert_int_equal(count_changes(&world, &n), 512);
	assert_int_equal(n, 1024);
	assert_string_equal(world.warnings, "");
	world_end(&world);
}

static void test_5000_backends(void **state)
{
	_cleanup_(free_pointer) char *text = calloc(1, 1 << 20);
	struct world world = {};
	size_t n;

	(void)state;
	add(text, HELLO);
	for (int i = 0; i < 50; i++) {
		add(text, "{'kind':'EndpointSlice','metadata':{'name':'s%d','labels':"
			  "{'kubernetes.io/service-name':'hello'}},'addressType':'IPv4','ports':["
			  "{'name':'http','port':8080}],'endpoints':[", i);
		for (int j = 0; j < 100; j++)
			add(text, "%s{'addresses':['10.0.%d.%d']}", j ? "," : "", i, j + 1);
		add(text, "]}");
	}
	load(&world, text);
	assert_int_equal(count_changes(&world, &n), 1);
	assert_int_equal(n, 5000);
	world_end(&world);
}

static void load(struct world *world, const char *text)
{
	struct kube_options options = world_options(LB);
	struct error err = {};
	char *json = quoted(text);

	if (world_load(world, &options, json, strlen(json), &err) < 0)
		fail_msg("%s", err.text);
	free(json);
}

static void test_changes(void **state)
{
	struct world world = {};

	(void)state;
	load(&world, HELLO SLICE("s1", EP("10.0.0.1", READY)));
	assert_string_equal(world_answer(&world), VIP " 10.0.0.1:8080=active\n");
	/* The same again: nothing to say. */
	load(&world, HELLO SLICE("s1", EP("10.0.0.1", READY)));
	assert_string_equal(world_answer(&world), "");
	load(&world, HELLO SLICE("s2", EP("10.0.0.2", READY)));
	assert_string_equal(world_answer(&world), VIP " 10.0.0.2:8080=active\n");
	/* The class is wiped with the type: the VIP is released. */
	load(&world, SERVICE("hello", META ",'spec':{'type':'ClusterIP'," HTTP "}," BALANCER)
		     SLICE("s2", EP("10.0.0.2", READY)));
	assert_string_equal(world_answer(&world), "192.0.2.10:80/tcp gone\n");
	load(&world, HELLO SLICE("s2", EP("10.0.0.2", READY)));
	assert_string_equal(world_answer(&world), VIP " 10.0.0.2:8080=active\n");
	/* Its Service goes, its slice stays a little longer. */
	load(&world, SERVICE("other", META ",'spec':{" HTTP "}") SLICE("s2", EP("10.0.0.2", READY)));
	assert_string_equal(world_answer(&world), "192.0.2.10:80/tcp gone\n");
	world_end(&world);
}

/* A wish that changes, and nothing else, is a change. */
static void test_changed_wishes(void **state)
{
	static const struct {
		const char *json, *wishes;
	} steps[] = {
		{ LB_SERVICE("a", 1, ""), "" },
		{ LB_SERVICE("a", 1, "'sessionAffinity':'ClientIP',"), " affinity=10800" },
		{ LB_SERVICE("a", 1, "'sessionAffinity':'ClientIP','sessionAffinityConfig':{"
				     "'clientIP':{'timeoutSeconds':5}},"), " affinity=5" },
		{ LB_SERVICE("a", 1, "'loadBalancerSourceRanges':['10.0.0.0/8'],"),
		  " range=10.0.0.0/8" },
		{ LB_SERVICE("a", 1, "'loadBalancerSourceRanges':['10.0.0.0/9'],"),
		  " range=10.0.0.0/9" },
		{ LB_SERVICE("a", 1, "'loadBalancerSourceRanges':['x'],"), " range=::/0" },
		{ NOTED("a", 1, "'xlb.dev/mss':'1400'"), " mss=1400" },
		{ NOTED("a", 1, "'xlb.dev/mss':'1300'"), " mss=1300" },
		{ NOTED("a", 1, "'xlb.dev/echo':'off'"), " echo=off" },
		{ NOTED("a", 1, "'xlb.dev/echo':'on'"), "" },
	};
	struct world world = {};
	char expected[256];

	(void)state;
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		load(&world, steps[i].json);
		snprintf(expected, sizeof(expected), "192.0.2.10:1/tcp default/a:1 nat maglev%s\n",
			 steps[i].wishes);
		assert_string_equal(world_answer(&world), expected);
		/* The same again: nothing to say. */
		load(&world, steps[i].json);
		assert_string_equal(world_answer(&world), "");
	}
	world_end(&world);
}

/* Without a zone hints of zones do not count; without a name no endpoint is here. */
static void test_nowhere(void **state)
{
	struct world world = {};

	(void)state;
	load(&world, HELLO SLICE("s1", ZONED("z1", "10.0.0.1", READY) ","
				       ZONED("z2", "10.0.0.2", READY)));
	assert_string_equal(world_answer(&world),
			    VIP " 10.0.0.1:8080=active 10.0.0.2:8080=active\n");
	load(&world, LOCAL("") SLICE("s1", AT("node-a", "10.0.0.1", READY) ","
					   EP("10.0.0.2", READY)));
	assert_string_equal(world_answer(&world), KEPT " range=::/0\n");
	/* The policy alone is a change. */
	load(&world, HELLO SLICE("s1", AT("node-a", "10.0.0.1", READY) "," EP("10.0.0.2", READY)));
	assert_string_equal(world_answer(&world),
			    VIP " 10.0.0.1:8080=active 10.0.0.2:8080=active\n");
	world_end(&world);
}

static void test_next_in_line(void **state)
{
	struct world world = {};

	(void)state;
#define CLAIM(name, year)                                                                          \
	SERVICE(name, "'creationTimestamp':'" year "-01-01T00:00:00Z'},'spec':{'type':"            \
		      "'LoadBalancer','ports':[{'port':80}]}," BALANCER)
	load(&world, CLAIM("a", "2026") CLAIM("b", "2025") CLAIM("c", "2024"));
	assert_string_equal(world_answer(&world), "192.0.2.10:80/tcp default/c:80 nat maglev\n");
	/* Warned about once, not at each look. */
	*world.warnings = 0;
	load(&world, CLAIM("a", "2027") CLAIM("b", "2025") CLAIM("c", "2024") CLAIM("d", "2028"));
	world_answer(&world);
	assert_null(strstr(world.warnings, "default/a"));
	assert_non_null(strstr(world.warnings, "default/d: 192.0.2.10:80/tcp belongs to default/c"));
	load(&world, CLAIM("a", "2026") CLAIM("b", "2025"));
	assert_string_equal(world_answer(&world), "192.0.2.10:80/tcp default/b:80 nat maglev\n");
	world_end(&world);
}

static void test_scope(void **state)
{
	struct kube_options options = world_options(LB);
	struct kube_calls calls = {};
	struct kube *kube;
	struct error err;

	(void)state;
	options.namespace = "prod";
	assert_int_equal(kube_new(&options, &calls, NULL, &kube, &err), 0);
	assert_true(kube_in_scope(kube, "prod/web:80"));
	assert_false(kube_in_scope(kube, "production/web:80"));
	assert_false(kube_in_scope(kube, ""));
	kube_free(kube);
	options.service = "prod/web";
	assert_int_equal(kube_new(&options, &calls, NULL, &kube, &err), 0);
	assert_true(kube_in_scope(kube, "prod/web:80"));
	assert_false(kube_in_scope(kube, "prod/web2:80"));
	assert_false(kube_in_scope(kube, "prod/web"));
	kube_free(kube);
}

static void test_only_services(void **state)
{
	struct world world = {};

	(void)state;
	load(&world, HELLO);
	assert_false(kube_endpoints_known(world.kube));
	assert_false(kube_complete(world.kube));
	assert_non_null(strstr(world.warnings, "no endpoints: nothing is removed"));
	world_end(&world);
	load(&world, SLICE("s1", EP("10.0.0.1", READY)));
	assert_false(kube_complete(world.kube));
	assert_string_equal(world_answer(&world), "");
	world_end(&world);
	load(&world, "{'kind':'List','items':[]}");
	assert_false(kube_complete(world.kube));
	assert_non_null(strstr(world.warnings, "nothing is removed"));
	world_end(&world);
}

/* "namespace/name:port" may be longer than a name in the map: then the number stands for the name. */
static void test_long_name(void **state)
{
	char json[1024], name[64], port[64];
	struct world world = {};

	(void)state;
	memset(name, 'n', 63);
	memset(port, 'p', 63);
	name[63] = port[63] = 0;
	snprintf(json, sizeof(json),
		 "{'kind':'Service','metadata':{'name':'%s','namespace':'%s'},'spec':{'type':"
		 "'LoadBalancer','ports':[{'name':'%s','port':80}]}," BALANCER "}", name, name, port);
	load(&world, json);
	assert_non_null(strstr(world_answer(&world), "n:80 nat"));
	world_end(&world);
}

int main(void)
{
	size_t n = sizeof(rows) / sizeof(*rows);
	struct CMUnitTest tests[sizeof(rows) / sizeof(*rows) + 9];

	for (size_t i = 0; i < n; i++)
		tests[i] = (struct CMUnitTest){ rows[i].what, test_row, NULL, NULL, (void *)&rows[i] };
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_changes);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_nowhere);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_next_in_line);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_scope);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_only_services);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_long_name);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_changed_wishes);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_512_ports);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_5000_backends);
	return _cmocka_run_group_tests("kube semantics", tests, n, NULL, NULL);
}
