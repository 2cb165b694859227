/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's order to start, checked and copied. Untrusted. Control thread; allocates. */
#ifndef UNDERSTUDY_REPLICATOR_START_ORDER_H
#define UNDERSTUDY_REPLICATOR_START_ORDER_H

#include "proto/control.pb-c.h"
#include "replicator/control/replicator.h"

/*
 * Fills in config, whose strings are copies, and what the user's line says of the guest's end. False and
 * error: the order is out of bounds or not the first one; nothing is changed.
 */
bool start_order_take(const Understudy__Start *start, struct replicator_config *config,
                      struct run_actions *actions, GError **error);

#endif
