/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See plain_door.h. Roles are checked by the daemon's own table. */
#include "tests/daemon/plain_door.h"

#include "daemon/trust/roles.h"

const uint8_t plain_door_key[STREAM_KEY_LEN] = {77, 1, 2, 3};

static struct stream *open_plain(int fd)
{
    struct stream *stream = stream_new_plain(fd);
    stream->key = plain_door_key;
    return stream;
}

static struct stream *door_accept(void *opaque, int fd)
{
    (void)opaque;
    return open_plain(fd);
}

static bool knows(void *opaque, const struct stream *stream)
{
    (void)opaque;
    (void)stream;
    return true;
}

static struct stream *dial(void *opaque, int fd, const char *host, int64_t until_us, GError **error)
{
    (void)opaque;
    (void)host;
    (void)until_us;
    (void)error;
    return open_plain(fd);
}

static bool may_ask(void *opaque, const struct stream *stream, Understudy__Envelope__BodyCase request,
                    GError **error)
{
    (void)opaque;
    (void)stream;
    return request_is_allowed(request, MAY_USUAL, "peer", error);
}

static bool may_be_asked(void *opaque, const struct stream *stream, Understudy__Envelope__BodyCase request,
                         GError **error)
{
    (void)opaque;
    (void)stream;
    return request_may_be_sent(request, MAY_USUAL, "peer", error);
}

const struct door plain_door = {
    .accept = door_accept, .knows = knows, .dial = dial, .may_ask = may_ask, .may_be_asked = may_be_asked};
