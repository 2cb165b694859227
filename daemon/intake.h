/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accepts the connections of a listening socket of the daemon. Each connection brings one request.
 *
 * A connection waits on the main loop, without a thread, until its whole request has come, at most for
 * request_ms. Then it gets a thread, which calls serve. Both are bounded. When max_waiting connections wait
 * and another one comes, the oldest connection of the address that has the most is closed, so that no host
 * can push out another host's connections. When max_served requests are being served, the next one is
 * refused.
 *
 * Each socket has its own intake, and so its own budget: peers cannot keep commands out.
 */
#ifndef UNDERSTUDY_DAEMON_INTAKE_H
#define UNDERSTUDY_DAEMON_INTAKE_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"

struct intake;

struct intake_rules {
    const char *what;     /* name of the socket in log lines: "port 7070" */
    unsigned max_waiting; /* connections that wait for their request */
    unsigned max_served;  /* requests at a time, each on a thread */
    unsigned request_ms;  /* from accept until the whole request is here */
    /* Returns whether the other end of fd may use this socket. NULL: everyone may. */
    bool (*admit)(int fd);
    /* Serves a request, on a thread of its own. address: that of the other end, or "" on a Unix socket.
     * Leaves fd open. */
    void (*serve)(int fd, const char *address, const Understudy__Envelope *request);
};

/* Starts to accept. Takes over listen_fd. rules stay the caller's, and must outlive the intake. Main thread.
 */
struct intake *intake_new(int listen_fd, const struct intake_rules *rules);
/* Closes the socket and the waiting connections. Requests that are being served go on. Main thread. */
void intake_free(struct intake *intake);

#endif
