/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program that is run once for what it prints (users[].user.exec), without stopping the event
 * loop.
 */
#ifndef XLB_KUBERNETES_PLUGIN_H
#define XLB_KUBERNETES_PLUGIN_H

#include <stddef.h>

#include "base/error.h"

struct event_base;
struct plugin;

/*
 * Called once, from the event loop: with what it printed, NUL-terminated, or with text NULL and
 * what went wrong.
 */
typedef void (*plugin_done)(void *arg, const char *text, size_t size, const struct error *err);

/*
 * argv[0] is searched in PATH. `environment` (NULL at the end) goes before our own. It gets no
 * input, a process group of its own, and timeout_s seconds, after which the group is killed. The
 * plugin frees itself after done().
 */
int plugin_start(struct event_base *base, char *const *argv, char *const *environment,
		 unsigned int timeout_s, plugin_done done, void *arg, struct plugin **ret_plugin,
		 struct error *err);
/* Kills it without calling done(). NULL is fine. */
void plugin_cancel(struct plugin *plugin);

#endif
