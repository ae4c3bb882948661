/* SPDX-License-Identifier: GPL-2.0 */
/* Random configurations and packets, all of which follow from a seed. */
#ifndef XLB_FUZZ_GENERATE_H
#define XLB_FUZZ_GENERATE_H

#include "model.h"

/* A configuration without a past; packets that are generated next follow from the seed as well. */
void generate_model(struct model *model, uint64_t seed);
/* Writes a frame of 14..FRAME_MAX bytes; returns its length. It may answer flows of the model. */
unsigned int generate_packet(const struct model *model, uint8_t *frame);
/* The same, of one that says something more on the flow of an earlier frame, if that is plain TCP: else just that. */
unsigned int generate_next(const uint8_t *earlier, unsigned int length, uint8_t *frame);
void generate_print(const struct model *model);

#endif
