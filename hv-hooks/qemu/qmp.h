/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's monitor (QMP) over a Unix socket, without blocking. One struct qmp belongs to the thread that
 * iterates the GLib main context it was opened on; callbacks run there. A callback may call anything here,
 * qmp_close included.
 *
 * What comes over the socket is untrusted: a line is at most QMP_LINE_MAX bytes, anything that is not QMP
 * closes the connection, and every command outstanding then fails.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_QMP_H
#define UNDERSTUDY_HV_HOOKS_QEMU_QMP_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#define QMP_LINE_MAX (1u << 20)

#define QMP_ERROR qmp_error_quark()
GQuark qmp_error_quark(void);
enum qmp_error {
    QMP_ERROR_CONNECT,  /* no connection before the deadline */
    QMP_ERROR_CLOSED,   /* the connection ended: QEMU exited, or qmp_close */
    QMP_ERROR_PROTOCOL, /* the peer does not speak QMP */
    QMP_ERROR_COMMAND,  /* QEMU refused the command; the message is QEMU's */
    QMP_ERROR_TIMEOUT,
};

struct qmp;

/* data is the event's "data" object, borrowed, or NULL. */
typedef void (*qmp_event)(struct qmp *qmp, const char *name, json_t *data, void *opaque);
/* Once: the connection is gone, or never came about. error is borrowed. */
typedef void (*qmp_closed)(struct qmp *qmp, const GError *error, void *opaque);
/* Once for each command: either value (borrowed) or error (borrowed) is set. */
typedef void (*qmp_reply)(struct qmp *qmp, json_t *value, const GError *error, void *opaque);

/*
 * Connects to the socket at path, trying again until timeout_ms have passed (QEMU makes it some time after
 * its start). Never fails at once: closed tells. closed may be NULL. Commands may be given right away; they
 * wait their turn. context NULL is the default context.
 */
struct qmp *qmp_open(const char *path, unsigned timeout_ms, GMainContext *context, qmp_closed closed,
                     void *opaque);
/* Fails the outstanding commands (QMP_ERROR_CLOSED), then frees. closed is not called. */
void qmp_close(struct qmp *qmp);
bool qmp_is_ready(const struct qmp *qmp);

/*
 * Sends a command. args (may be NULL) is taken over. fd, or -1, is duplicated and goes along as ancillary
 * data (for getfd). reply may be NULL. Commands are answered in the order they were given, so one need not
 * wait for another's answer.
 */
void qmp_execute(struct qmp *qmp, const char *command, json_t *args, int fd, qmp_reply reply, void *opaque);

/*
 * The same, iterating the context until the answer has come: for tests and for tools without a main loop.
 * Returns a new reference, or NULL with error set.
 */
json_t *qmp_execute_wait(struct qmp *qmp, const char *command, json_t *args, int fd, unsigned timeout_ms,
                         GError **error);

/* Calls listener for each event from now on. Returns an id for qmp_unlisten. */
guint qmp_listen(struct qmp *qmp, qmp_event listener, void *opaque);
void qmp_unlisten(struct qmp *qmp, guint id);

#endif
