/* SPDX-License-Identifier: GPL-2.0 */
/* What the parsers of this folder share. */
#ifndef XLB_MODEL_TEXT_H
#define XLB_MODEL_TEXT_H

#include "model/model.h"

/* A number of least..most in decimal digits, and nothing else. False: it is none. */
bool text_parse_number(const char *text, uint32_t least, uint32_t most, uint32_t *ret_number);
/* Why an address can be no VIP, no backend and no source of packets; NULL: it can. */
const char *address_objection(const struct xlb_address *address, uint8_t family);

#endif
