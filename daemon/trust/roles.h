/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may send which request. One table has a row for every message; nothing else in the daemon decides this.
 *
 *   door              who comes in there
 *   control.sock      root and the daemon's own user: commands
 *   the peers' port   hosts that this one trusts, each with its roles; and, while an invitation is open,
 *                     strangers, who may send PairJoin and nothing else
 *
 * Pure; any thread.
 */
#ifndef UNDERSTUDY_DAEMON_TRUST_ROLES_H
#define UNDERSTUDY_DAEMON_TRUST_ROLES_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"

/* What a trusted host may be to this one. */
enum {
    MAY_STANDBY = 1, /* stand by for VMs that run here */
    MAY_PRIMARY = 2, /* run VMs for which this host stands by: ask for a standby here */
    MAY_WITNESS = 4, /* be asked which of two hosts goes on */
    MAY_ALL = 7,
    MAY_USUAL = MAY_STANDBY | MAY_PRIMARY,
};

/* Parses "standby,primary,witness". 0 and a sentence: there is another word, or none. */
unsigned roles_parse(const char *text, GError **error);
/* Returns the roles as such a text. GLib string. */
char *roles_text(unsigned may);

struct request_rule {
    Understudy__Envelope__BodyCase request;
    bool is_command; /* control.sock takes it */
    bool is_pairing; /* the peers' port takes it from strangers, too */
    unsigned asks;   /* the peers' port takes it from a host that has one of these roles; 0: from nobody */
    unsigned asked;  /* this host sends it to a host that has one of these roles only */
};

/* Returns the row of a message; NULL: there is none. */
const struct request_rule *request_rule(Understudy__Envelope__BodyCase request);
/* Checks whether a host with these roles may send the request to this one. False with a sentence. name: the
 * host's, as this one calls it. */
bool request_is_allowed(Understudy__Envelope__BodyCase request, unsigned may, const char *name,
                        GError **error);
/* Checks whether this host may send the request to a host with these roles. False with a sentence. */
bool request_may_be_sent(Understudy__Envelope__BodyCase request, unsigned may, const char *name,
                         GError **error);

#endif
