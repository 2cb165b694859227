/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * understudy-replicator: the data plane of one VM on one host. Started by understudyd with a socket;
 * everything else comes over it. In order: Start -> QEMU -> hook ready -> links, heartbeats, session -> ...
 * -> session ends -> exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/hide.h"
#include "common/log.h"
#include "common/priority.h"
#include "replicator/control/replicator.h"
#include "replicator/note.h"

#define NOTES_A_ROUND   256
#define DESCRIPTORS_MIN 24 /* GLib ends the process where it gets none for itself */

static gboolean on_notes(gint fd, GIOCondition condition, gpointer opaque)
{
    struct replicator *r = opaque;
    (void)fd;
    (void)condition;
    mailbox_clear_wake(&r->box);
    for (int i = 0; i < NOTES_A_ROUND; i++) {
        struct note *note = note_take(&r->box);
        if (!note)
            return G_SOURCE_CONTINUE;
        notes_take(r, note);
    }
    mailbox_wake(&r->box); /* more to do, but others are waiting too */
    return G_SOURCE_CONTINUE;
}

/*
 * The host goes down, or somebody ends this process or its QEMU (whose hook passes signals on): not the
 * user's stop. A second signal says nothing new.
 */
static gboolean on_terminate(gpointer opaque)
{
    struct replicator *r = opaque;
    if (r->session_begun && !r->ended)
        sink_event_simple(&r->sink, SESSION_EVENT_LEAVE);
    else
        sink_give_up(&r->sink);
    return G_SOURCE_CONTINUE;
}

#ifdef UNDERSTUDY_CHAOS
/* The planted fault's moment, at a test's request: no epoch is cut any more, and output goes on leaving. */
static gboolean on_moment(gpointer opaque)
{
    struct replicator *r = opaque;
    capture_thread_stop(r->capture);
    g_message("%s: no epoch is cut any more", r->config.vm_name);
    return G_SOURCE_CONTINUE;
}
#endif

/*
 * What came by the link is read after the heartbeats that wait: a side that stood still must hear that its
 * peer went on alone before it reads an older order to take over (docs/session.md, "The model").
 */
#define NOTES_PRIORITY (G_PRIORITY_HIGH - 40)
_Static_assert(PATHS_PRIORITY < NOTES_PRIORITY, "heartbeats are read before what came by the link");

int main(int argc, char **argv)
{
    struct replicator r = {.detect_ms = -1, .promote_ms = -1, .sync_ms = -1};
    if (argc != 3 || strcmp(argv[1], "--control-fd") != 0) {
        fprintf(stderr, "understudy-replicator is started by understudyd; see understudyd(8)\n");
        return 2;
    }
    process_hide(); /* its memory has the VM's secret */
    log_open("understudy-replicator");
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < DESCRIPTORS_MIN) {
        fprintf(stderr,
                "understudy-replicator: %u open files are too few: raise LimitNOFILE= of understudyd\n",
                (unsigned)limit.rlim_cur);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    setsid(); /* it outlives the daemon, and whatever terminal that was started from */
    if (mailbox_open(&r.box) < 0) {
        fprintf(stderr, "understudy-replicator: no descriptor for its control thread: %s\n",
                g_strerror(errno));
        return 1;
    }
    priority_take_real_time();
    /* Not for QEMU and nbdkit: while they had it, the daemon would not hear of this process's end. */
    if (fcntl(atoi(argv[2]), F_SETFD, FD_CLOEXEC) < 0)
        return 2;
    r.loop = g_main_loop_new(NULL, FALSE);
    control_open(&r);
    daemon_orders_open(&r, atoi(argv[2]));
    g_unix_fd_add_full(NOTES_PRIORITY, r.box.event_fd, G_IO_IN, on_notes, &r, NULL);
    g_unix_signal_add(SIGTERM, on_terminate, &r);
    g_unix_signal_add(SIGHUP, on_terminate, &r);
    g_unix_signal_add(SIGINT, on_terminate, &r);
#ifdef UNDERSTUDY_CHAOS
    g_unix_signal_add(SIGUSR1, on_moment, &r);
#endif
    g_main_loop_run(r.loop);
    parts_close(&r);
    g_main_loop_unref(r.loop);
    return r.exit_status;
}
