/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kubernetes objects in JSON -> kube_service and kube_set.
 *
 * Strict about types and ranges, since a wrong table is worse than an old one; generous about what
 * is missing or null, as the API is. Errors (-EINVAL) name the object and the field.
 */
#ifndef XLB_KUBERNETES_DECODE_H
#define XLB_KUBERNETES_DECODE_H

#include <jansson.h>

#include "kubernetes/objects.h"

struct kube_place;

int decode_service(const json_t *object, struct kube_service **ret_service, struct error *err);
/*
 * What an endpoint is to this node depends on where that is: place, borrowed for the call.
 *
 * An EndpointSlice of discovery.k8s.io v1 or v1beta1. *ret_set is NULL where it is of no use: FQDN,
 * or no label that names a Service.
 */
int decode_slice(const json_t *object, const struct kube_place *place, struct kube_set **ret_set,
		 struct error *err);
/* Endpoints of core/v1. */
int decode_endpoints(const json_t *object, const struct kube_place *place,
		     struct kube_set **ret_set, struct error *err);
/* "namespace/name" of any object, checked; the caller frees. */
int decode_key(const json_t *object, char **ret_key, struct error *err);

#endif
