// SPDX-License-Identifier: GPL-2.0
/* Services, their backends, and what differs between two of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

#define MANY 5000

static struct endpoint vip_of(uint32_t number)
{
	return (struct endpoint){
		.address.word[0] = htonl(0xc6336400 + number),
		.port = 80,
		.family = XLB_IPV4,
		.protocol = XLB_TCP,
	};
}

static struct backend backend_of(uint32_t number)
{
	return (struct backend){
		.endpoint = { .address.word[0] = htonl(0x0a000000 + number),
			      .port = 8080,
			      .family = XLB_IPV4 },
		.weight = 1,
		.state = XLB_BACKEND_ACTIVE,
	};
}

static struct service *service_with(struct model *model, uint32_t number, uint32_t backends)
{
	struct endpoint vip = vip_of(number);
	struct service *service;

	assert_int_equal(model_ensure(model, &vip, &service), 0);
	for (uint32_t i = 0; i < backends; i++) {
		struct backend backend = backend_of(i);

		assert_int_equal(service_set_backend(service, &backend), 0);
	}
	return service;
}

static void services_are_found_by_vip(void **state)
{
	struct model *model = model_new();
	struct endpoint other = vip_of(1);

	(void)state;
	for (uint32_t i = 0; i < MANY; i++)
		service_with(model, i, 0)->id = i;
	assert_int_equal(model_count(model), MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		struct endpoint vip = vip_of(i);

		assert_int_equal(model_find(model, &vip)->id, i);
	}
	other.protocol = XLB_UDP;
	assert_null(model_find(model, &other));
	other = vip_of(1);
	other.port = 81;
	assert_null(model_find(model, &other));
	assert_ptr_equal(service_with(model, 7, 0), service_with(model, 7, 0));
	assert_int_equal(model_count(model), MANY);
	model_free(model);
}

static void removing_while_walking_visits_all(void **state)
{
	struct model *model = model_new();
	bool seen[MANY] = { false };
	struct service *service;
	size_t cursor = 0;

	(void)state;
	for (uint32_t i = 0; i < MANY; i++)
		service_with(model, i, 0)->id = i;
	while ((service = model_next(model, &cursor))) {
		struct endpoint vip = service->vip;
		uint32_t id = service->id;

		assert_false(seen[id]);
		seen[id] = true;
		if (id % 3)
			model_remove(model, &vip);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		struct endpoint vip = vip_of(i);

		assert_true(seen[i]);
		assert_int_equal(!!model_find(model, &vip), i % 3 == 0);
	}
	model_free(model);
}

static void churn_does_not_wear_the_table_out(void **state)
{
	struct model *model = model_new();

	(void)state;
	for (uint32_t i = 0; i < 20 * MANY; i++) {
		struct endpoint old = vip_of(i - 3);

		service_with(model, i, 0);
		model_remove(model, &old);
		model_remove(model, &old);
	}
	assert_int_equal(model_count(model), 3);
	model_free(model);
}

static void an_empty_model_has_nothing(void **state)
{
	struct model *model = model_new();
	struct endpoint vip = vip_of(1);
	size_t cursor = 0;

	(void)state;
	assert_null(model_find(model, &vip));
	assert_null(model_next(model, &cursor));
	model_remove(model, &vip);
	model_free(model);
	model_free(NULL);
}

static void backends_are_found_in_small_and_large_services(void **state)
{
	struct model *model = model_new();
	struct service *service = service_with(model, 1, 0);

	(void)state;
	for (uint32_t i = 0; i < MANY; i++) {
		struct backend backend = backend_of(i), unknown = backend_of(i + 1);

		assert_int_equal(service_set_backend(service, &backend), 0);
		assert_non_null(service_find_backend(service, &backend.endpoint));
		assert_null(service_find_backend(service, &unknown.endpoint));
	}
	for (uint32_t i = 0; i < MANY; i += 2) {
		struct backend backend = backend_of(i);

		service_remove_backend(service, &backend.endpoint);
		service_remove_backend(service, &backend.endpoint);
	}
	assert_int_equal(service->n_backends, MANY / 2);
	service_sort_backends(service);
	for (uint32_t i = 0; i < MANY; i++) {
		struct backend backend = backend_of(i);

		assert_int_equal(!!service_find_backend(service, &backend.endpoint), i % 2);
	}
	model_free(model);
}

static void a_backend_is_set_once(void **state)
{
	struct model *model = model_new();
	struct service *service = service_with(model, 1, 2);
	struct backend backend = backend_of(1);

	(void)state;
	backend.weight = 5;
	backend.state = XLB_BACKEND_DRAINING;
	assert_int_equal(service_set_backend(service, &backend), 0);
	assert_int_equal(service->n_backends, 2);
	assert_int_equal(service_find_backend(service, &backend.endpoint)->weight, 5);
	assert_int_equal(service_find_backend(service, &backend.endpoint)->state,
			 XLB_BACKEND_DRAINING);
	assert_int_equal(service->backends[0].endpoint.protocol, XLB_TCP);
	model_free(model);
}

static void backends_have_to_fit_the_service(void **state)
{
	struct model *model = model_new();
	struct service *service = service_with(model, 1, 0);
	struct backend backend = backend_of(1);

	(void)state;
	service->forward = XLB_FORWARD_DNAT;
	backend.endpoint.family = XLB_IPV6;
	assert_int_equal(service_set_backend(service, &backend), -EINVAL);
	backend = backend_of(1);
	backend.endpoint.protocol = XLB_UDP;
	assert_int_equal(service_set_backend(service, &backend), -EINVAL);
	assert_int_equal(service->n_backends, 0);
	model_free(model);
}

static void nat_and_tunnels_cross_families(void **state)
{
	static const bool crosses[XLB_FORWARDS] = { [XLB_FORWARD_NAT] = true,
						    [XLB_FORWARD_IPIP] = true,
						    [XLB_FORWARD_GUE] = true };
	static const bool keeps[XLB_FORWARDS] = { [XLB_FORWARD_L2] = true,
						  [XLB_FORWARD_IPIP] = true,
						  [XLB_FORWARD_GUE] = true };
	struct backend backend = backend_of(1);

	(void)state;
	backend.endpoint.family = XLB_IPV6;
	for (uint8_t forward = 0; forward < XLB_FORWARDS; forward++) {
		struct model *model = model_new();
		struct service *service = service_with(model, 1, 1);

		service->forward = forward;
		assert_int_equal(service_set_backend(service, &backend),
				 crosses[forward] ? 0 : -EINVAL);
		assert_int_equal(forward_crosses_families(forward), crosses[forward]);
		assert_int_equal(forward_keeps_port(forward), keeps[forward]);
		/* The same bits in another family are another backend. */
		assert_int_equal(service->n_backends, crosses[forward] ? 2 : 1);
		model_free(model);
	}
}

static struct prefix range_of(uint8_t family, uint32_t number, uint8_t length)
{
	return (struct prefix){ .address.word[0] = htonl(number << 8),
				.family = family,
				.length = length };
}

static void range_put(struct service *service, uint8_t family, uint32_t number, uint8_t length)
{
	struct prefix range = range_of(family, number, length);

	assert_int_equal(service_add_range(service, &range), 0);
}

static void a_copy_is_its_own(void **state)
{
	struct model *model = model_new();
	struct service *service = service_with(model, 1, 100);
	struct backend backend = backend_of(50);
	struct service *copy;

	(void)state;
	range_put(service, XLB_IPV4, 7, 24);
	copy = service_copy(service);
	service_clear_ranges(service);
	assert_int_equal(service->n_ranges, 0);
	assert_int_equal(copy->n_ranges, 1);
	assert_int_equal(copy->ranges[0].length, 24);
	service_remove_backend(service, &backend.endpoint);
	assert_int_equal(copy->n_backends, 100);
	assert_non_null(service_find_backend(copy, &backend.endpoint));
	service_free(copy);
	service_free(NULL);
	model_free(model);
}

static void two_equal_services_do_not_differ(void **state)
{
	struct model *model = model_new();
	struct service *service = service_with(model, 1, 50);
	struct service *other = service_copy(service);
	struct service_change change;

	(void)state;
	/* Another order. */
	for (size_t i = 0; i < other->n_backends; i++)
		other->backends[i] = service->backends[(i * 7 + 3) % service->n_backends];
	assert_false(service_diff(service, other, &change));
	assert_int_equal(change.added + change.removed + change.changed, 0);
	assert_false(change.attributes);
	service_free(other);
	model_free(model);
}

static void differences_are_counted(void **state)
{
	struct model *model = model_new();
	struct service *before = service_with(model, 1, 10);
	struct service *after = service_copy(before);
	struct backend gone = backend_of(0), weighed = backend_of(9), drained = backend_of(5);
	struct service_change change;

	(void)state;
	service_remove_backend(after, &gone.endpoint);
	weighed.weight = 9;
	drained.state = XLB_BACKEND_DRAINING;
	service_set_backend(after, &weighed);
	service_set_backend(after, &drained);
	for (uint32_t i = 20; i < 23; i++) {
		struct backend backend = backend_of(i);

		service_set_backend(after, &backend);
	}
	assert_true(service_diff(before, after, &change));
	assert_int_equal(change.added, 3);
	assert_int_equal(change.removed, 1);
	assert_int_equal(change.changed, 2);
	assert_false(change.attributes);
	service_free(after);
	model_free(model);
}

static void change_attribute(struct service *service, int which)
{
	switch (which) {
	case 0:
		service->forward = XLB_FORWARD_DNAT;
		break;
	case 1:
		service->scheduler = XLB_SCHEDULER_RR;
		break;
	case 2:
		service->owner = XLB_OWNER_FILE;
		break;
	case 3:
		strcpy(service->name, "default/hello:http");
		break;
	case 4:
		service->affinity_s = 1;
		break;
	case 5:
		service->mss = 1200;
		break;
	case 6:
		service->gue_port = 6081;
		break;
	case 7:
		service->no_echo = true;
		break;
	case 8:
		service->encap_source = range_of(XLB_IPV4, 0x0a0000, 32);
		break;
	case 9:
		service->encap_source.length = 31;
		break;
	case 10:
		service->encap_source.address.word[3] = 1;
		break;
	case 11:
		service->encap_source = (struct prefix){};
		break;
	case 12:
		range_put(service, XLB_IPV4, 1, 24);
		break;
	case 13:
		range_put(service, XLB_IPV4, 1, 25);
		break;
	case 14:
		service_clear_ranges(service);
		break;
	case 15:
		range_put(service, XLB_IPV6, 1, 24);
		break;
	case 16:
		service->gue_checksum = true;
		break;
	}
}

/* Each change on top of the one before. */
static void attributes_differ_one_by_one(void **state)
{
	struct model *model = model_new();
	struct service *before = service_copy(service_with(model, 1, 3));
	struct service_change change;

	(void)state;
	for (int i = 0; i < 17; i++) {
		struct service *after = service_copy(before);

		change_attribute(after, i);
		assert_true(service_diff(before, after, &change));
		assert_true(change.attributes);
		assert_int_equal(change.added + change.removed + change.changed, 0);
		service_free(before);
		before = service_copy(after);
		assert_false(service_diff(before, after, &change));
		service_free(after);
	}
	service_free(before);
	model_free(model);
}

static void what_means_the_same_does_not_differ(void **state)
{
	struct model *model = model_new();
	struct service *one = service_copy(service_with(model, 1, 3)), *two = service_copy(one);
	struct service_change change;

	(void)state;
	one->gue_port = GUE_PORT;
	/* Not asked for: what stands beside it does not count. */
	one->encap_source.length = 24;
	/* Another order, and one twice. */
	range_put(one, XLB_IPV4, 1, 24);
	range_put(one, XLB_IPV4, 2, 24);
	range_put(one, XLB_IPV4, 1, 24);
	range_put(two, XLB_IPV4, 2, 24);
	range_put(two, XLB_IPV4, 1, 24);
	/* Ranges of the other family are alike: nobody comes from there. */
	range_put(two, XLB_IPV6, 3, 24);
	assert_false(service_diff(one, two, &change));
	assert_int_equal(one->n_ranges, 2);
	service_clear_ranges(one);
	range_put(one, XLB_IPV6, 9, 24);
	assert_true(service_diff(one, two, &change));
	service_clear_ranges(two);
	range_put(two, XLB_IPV6, 0, 0);
	assert_false(service_diff(one, two, &change));
	service_clear_ranges(two);
	assert_true(service_diff(one, two, &change));
	assert_true(service_diff(two, one, &change));
	service_free(one);
	service_free(two);
	model_free(model);
}

static void coming_and_going_differ(void **state)
{
	struct model *model = model_new();
	struct service *service = service_with(model, 1, 3);
	struct service_change change;

	(void)state;
	assert_true(service_diff(NULL, service, &change));
	assert_int_equal(change.added, 3);
	assert_true(service_diff(service, NULL, &change));
	assert_int_equal(change.removed, 3);
	assert_false(service_diff(NULL, NULL, &change));
	model_free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(services_are_found_by_vip),
		cmocka_unit_test(removing_while_walking_visits_all),
		cmocka_unit_test(churn_does_not_wear_the_table_out),
		cmocka_unit_test(an_empty_model_has_nothing),
		cmocka_unit_test(backends_are_found_in_small_and_large_services),
		cmocka_unit_test(a_backend_is_set_once),
		cmocka_unit_test(backends_have_to_fit_the_service),
		cmocka_unit_test(nat_and_tunnels_cross_families),
		cmocka_unit_test(a_copy_is_its_own),
		cmocka_unit_test(two_equal_services_do_not_differ),
		cmocka_unit_test(differences_are_counted),
		cmocka_unit_test(attributes_differ_one_by_one),
		cmocka_unit_test(what_means_the_same_does_not_differ),
		cmocka_unit_test(coming_and_going_differ),
	};

	return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
