/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What comes in at a listening socket of the daemon: connections that bring one request each.
 *
 * A connection waits here, on the main loop and without a thread, until its whole request has come; it has
 * request_ms for that. Only then does it get a thread, which calls serve. Both are bounded: of the waiting
 * ones the oldest goes when there is no room for another, from the address that has the most of them, so that
 * no host can push another host's out. When too many requests are being served, the next is told so.
 *
 * Each socket has an intake, and so a budget, of its own: peers cannot keep the command out.
 */
#ifndef UNDERSTUDY_DAEMON_INTAKE_H
#define UNDERSTUDY_DAEMON_INTAKE_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"

struct intake;

struct intake_rules {
    const char *what;     /* of the socket, in log lines: "port 7070" */
    unsigned max_waiting; /* for their request to come */
    unsigned max_served;  /* at a time, each by a thread */
    unsigned request_ms;  /* from accept until the whole request is here */
    /* May the other end of fd use this socket? NULL: anybody may. */
    bool (*admit)(int fd);
    /* On a thread of its own. address: the other end's, or "" on a Unix socket. Leaves fd open. */
    void (*serve)(int fd, const char *address, const Understudy__Envelope *request);
};

/* Main thread. Takes over listen_fd. rules stay the caller's, and must outlive the intake. */
struct intake *intake_new(int listen_fd, const struct intake_rules *rules);
/* Closes the socket and what waits. What is being served goes on. */
void intake_free(struct intake *intake);

#endif
