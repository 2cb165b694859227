/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accepts the connections of a listening socket of the daemon. Each connection brings one request.
 *
 * A connection waits on the main loop, without a thread, in two stages: until its handshake is done (at most
 * handshake_ms), and until its whole request has come (at most request_ms). Then it gets a thread, which
 * calls serve. All three numbers are bounded, each by itself, so connections that have not shown who they are
 * cannot keep out those that have. When a stage is full and another connection comes, the oldest connection
 * of the address that has the most is closed, so that no host can push out another host's connections. When
 * max_served requests are being served, the next one is refused.
 *
 * A stranger, whose handshake has shown a key that is not known here, stays in the first stage with its
 * request, which must be small, and gets no thread: serve_stranger answers it on the main thread.
 *
 * Each socket has its own intake, and so its own budget: peers cannot keep commands out.
 */
#ifndef UNDERSTUDY_DAEMON_INTAKE_H
#define UNDERSTUDY_DAEMON_INTAKE_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"

struct intake;
struct stream;

#define INTAKE_STRANGER_LEN 512u /* longest request of a stranger, with its head */

struct intake_rules {
    const char *what;      /* name of the socket in log lines: "port 7070" */
    unsigned max_waiting;  /* connections in the first stage */
    unsigned max_known;    /* connections in the second stage; 0: max_waiting */
    unsigned max_served;   /* requests at a time, each on a thread */
    unsigned handshake_ms; /* from accept until the handshake is done; 0: request_ms */
    unsigned request_ms;   /* from there until the whole request is here */
    /* Returns whether the other end of fd may use this socket. NULL: everyone may. */
    bool (*admit)(int fd);
    /* Makes the stream of a connection, and takes over fd. NULL: plain streams, which have no first stage. */
    struct stream *(*open)(int fd);
    /* Returns whether the key that the other end has shown is known here. Not called for plain streams. */
    bool (*knows)(const struct stream *stream);
    /* Serves a request, on a thread of its own. address: that of the other end, or "" on a Unix socket.
     * Leaves the stream open. */
    void (*serve)(struct stream *stream, const char *address, const Understudy__Envelope *request);
    /* Serves a stranger's request, on the main thread: must not block. */
    void (*serve_stranger)(struct stream *stream, const char *address, const Understudy__Envelope *request);
};

/* Starts to accept. Takes over listen_fd. rules stay the caller's, and must outlive the intake. Main thread.
 */
struct intake *intake_new(int listen_fd, const struct intake_rules *rules);
/* Closes the socket and the waiting connections. Requests that are being served go on. Main thread. */
void intake_free(struct intake *intake);

#endif
