/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The peers' port as the rest of the daemon sees it: connections in and out, and who may ask what. trust.c
 * makes the one that is used; tests put another one in its place.
 */
#ifndef UNDERSTUDY_DAEMON_TRUST_DOOR_H
#define UNDERSTUDY_DAEMON_TRUST_DOOR_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

struct stream;

struct door {
    void *opaque;
    /* Makes the stream of an accepted connection, and takes over fd. Main thread. */
    struct stream *(*accept)(void *opaque, int fd);
    /* Returns whether the stream's other end is trusted. Any thread. */
    bool (*knows)(void *opaque, const struct stream *stream);
    /*
     * Makes the stream of a connection that this host has made to `host`, and takes over fd. Does the
     * handshake, until the monotonic time until_us. NULL with a sentence: fd is closed. Any thread but the
     * main one.
     */
    struct stream *(*dial)(void *opaque, int fd, const char *host, int64_t until_us, GError **error);
    /* Checks whether the other end may send this request, and whether it may be sent to the other end. False
     * with a sentence. Any thread. */
    bool (*may_ask)(void *opaque, const struct stream *stream, Understudy__Envelope__BodyCase request,
                    GError **error);
    bool (*may_be_asked)(void *opaque, const struct stream *stream, Understudy__Envelope__BodyCase request,
                         GError **error);
};

#endif
