/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seals one new connection where that is wanted, and exchanges HELLO on it, on a thread of its own, so that a
 * silent peer delays nobody else. The side that dialled speaks first; the side that accepted answers only a
 * peer that has proved that it knows the VM's secret (proto/seal_keys.h), or on a link that is not sealed has
 * shown the session's token. Until then no message may be longer than a proof or a HELLO. The maker of the
 * connection decides how long this may take, and ends what takes longer.
 */
#ifndef UNDERSTUDY_REPLICATOR_INTRODUCTION_H
#define UNDERSTUDY_REPLICATOR_INTRODUCTION_H

#include <glib.h>
#include <stdbool.h>

#include "proto/epoch_wire.h"
#include "proto/seal_keys.h"
#include "replicator/transport/connection.h"

struct introduction;

/* How links are protected. */
struct link_security {
    bool sealed;                     /* else secret says nothing */
    uint8_t secret[SEAL_SECRET_LEN]; /* the VM's; both hosts have it from their daemons */
};

/*
 * Starts the exchange. The connection is the introduction's from here on; ours and security are copied.
 * dialled: this side speaks first. wake_fd: an eventfd that is written at the end, or -1. NULL if there is no
 * thread to be had: the connection is closed.
 */
struct introduction *introduction_new(struct connection *connection, const struct wire_hello *ours,
                                      const struct link_security *security, bool dialled, int wake_fd);
/* Whether the exchange has ended, with or without success. Any thread. */
bool introduction_is_over(const struct introduction *introduction);
gint64 introduction_age_us(const struct introduction *introduction);
/* Valid once it is over. 0, or -errno and, where the user should hear of it, *why (static). */
int introduction_status(const struct introduction *introduction, const char **why);
/* The peer's HELLO. Valid once it is over with status 0. */
const struct wire_hello *introduction_hello(const struct introduction *introduction);
/*
 * Ends and frees it. With keep, which needs status 0, returns the connection; otherwise closes the
 * connection and returns NULL.
 */
struct connection *introduction_end(struct introduction *introduction, bool keep);

#endif
