/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leaves a standby whose host is not trusted any more. The link to it ends, at once or, if its daemon was
 * asked to stop it, when it has had DROP_GOODBYE_MS to say goodbye. Its address is forgotten, so nothing is
 * dialled until there is another standby (parts_peer_moved).
 *
 * Heartbeats go on a little longer: by them the session asks the standby to let go of its image, so that it
 * does not take the guest over (failover/peer_loss.c). They end once the guest runs alone, and after
 * DROP_HEARD_MS in any case: a host that is not trusted gets no longer to say that it has a newer term.
 *
 * Control thread.
 */
#include "replicator/control/replicator.h"

#define DROP_GOODBYE_MS 1000
#define DROP_HEARD_MS   5000
#define DROP_LOOK_MS    20

void drop_peer_end(struct replicator *r)
{
    g_clear_handle_id(&r->drop.source, g_source_remove);
}

static gboolean look(gpointer opaque)
{
    struct replicator *r = opaque;
    gint64 now_us = g_get_monotonic_time();
    bool is_late = now_us >= r->drop.deaf_us;
    bool is_alone = !r->connection && r->session.state == SESSION_CONNECTING;
    if (r->connection && now_us >= r->drop.cut_us)
        connection_shutdown(r->connection);
    if (!is_alone && !is_late)
        return G_SOURCE_CONTINUE;
    paths_drop_peer(r->paths);
    r->drop.source = 0;
    return G_SOURCE_REMOVE;
}

void drop_peer_begin(struct replicator *r, bool told)
{
    gint64 now_us = g_get_monotonic_time();
    g_clear_pointer(&r->config.peer_host, g_free);
    r->config.peer_data_port = r->config.peer_udp_port = 0;
    if (!r->link)
        return; /* it is not known to anything else yet */
    link_set_peer(r->link, NULL, NULL);
    drop_peer_end(r);
    r->drop.cut_us = now_us + (told ? DROP_GOODBYE_MS * 1000 : 0);
    r->drop.deaf_us = now_us + DROP_HEARD_MS * 1000;
    if (look(r))
        r->drop.source = g_timeout_add(DROP_LOOK_MS, look, r);
}
