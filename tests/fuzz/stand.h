/* SPDX-License-Identifier: GPL-2.0 */
/* The program, loaded in a world of its own, with the model's configuration in its maps. */
#ifndef XLB_FUZZ_STAND_H
#define XLB_FUZZ_STAND_H

#include "model.h"

struct stand;

/* These end the process with a line when something fails. */
struct stand *stand_make(void);
/* Forgets what was, and fills the maps; chooses ids and hash of the model's services. */
void stand_configure(struct stand *stand, struct model *model);
/* Whether all packets from now on take the long walk, which is to do the same. */
void stand_walk_at_length(struct stand *stand, bool at_length);
void stand_run(struct stand *stand, const uint8_t *frame, unsigned int length,
	       struct frame_out *ret_out);
void stand_service_counts(struct stand *stand, const struct model_service *service,
			  struct model_counts *ret_counts);
void stand_backend_counts(struct stand *stand, unsigned int backend,
			  struct model_counts *ret_counts);
/*
 * Whether the program took the source of an error for a tunnel's end and believed it. There are none
 * here whose errors come, but the filter, which says who is one, now and then says yes to a stranger.
 */
bool stand_learned_paths(struct stand *stand);
uint64_t stand_drops(struct stand *stand, unsigned int reason);

#endif
