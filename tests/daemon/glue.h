/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's code in the test's own process, with a folder for what it keeps, and with the test in the
 * place of everything around it:
 *
 *   replicators   the program that the daemon starts passes its control descriptor to the test
 *   the peer      a listening socket; the test accepts each call, reads the request and answers it
 *   clients       connections to the daemon's socket for commands and to its port for peers
 *
 * The main loop runs only inside these functions, so that the test says what happens in which order. Each
 * wait has an end, after which the test fails. One thread: the test's.
 */
#ifndef UNDERSTUDY_TESTS_DAEMON_GLUE_H
#define UNDERSTUDY_TESTS_DAEMON_GLUE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "proto/control.pb-c.h"
#include "proto/framing.h"
#include "proto/seal_derive.h"

#define GLUE_WAIT_MS   20000
#define GLUE_DATA_PORT 4711
#define GLUE_UDP_PORT  4712

extern struct daemon_config glue_config; /* the daemon's */
extern char *glue_dir;                   /* its run folder, with its links resolved */

/* Of the group: the folder, and what a process sets up once. For cmocka. */
int glue_group_set_up(void **state);
int glue_group_tear_down(void **state);
/* Of a test: VMs without sockets, or with them. glue_close is for both, and checks that no descriptor is
 * left. */
int glue_open_vms(void **state);
int glue_open(void **state);
int glue_close(void **state);

/* A path in the run folder. GLib string. */
char *glue_path(const char *name);
bool glue_exists(const char *name);
G_GNUC_PRINTF(2, 3) void glue_write(const char *name, const char *format, ...);

/* ---- the main loop ---- */
/* Does what there is to do now. */
void glue_settle(void);
/* Goes on until done says so. */
typedef bool (*glue_condition)(void *opaque);
void glue_until(glue_condition done, void *opaque, const char *what);

/* ---- messages, on any of the sockets below ---- */
void glue_say(int fd, const Understudy__Envelope *message);
void glue_answer(int fd, bool ok, const char *text);
/* The next message (free_unpacked); NULL: the other end has closed the connection. */
Understudy__Envelope *glue_hear(int fd);
/* Fails unless the next message is of that kind. */
Understudy__Envelope *glue_hear_a(int fd, Understudy__Envelope__BodyCase kind);
/* The same for one whose content does not matter. */
void glue_skip(int fd, Understudy__Envelope__BodyCase kind);
bool glue_has_closed(int fd);
/* Whether there is nothing to be read once the main loop has nothing to do. */
bool glue_is_silent(int fd);

/* ---- replicators ---- */
/* The descriptor of the next one that was started: it has told nothing yet. The caller's. */
int glue_replicator(void);
/* The folder of a VM as an earlier daemon has left it, with a replicator that listens for this one (backlog:
 * of its socket). The listening descriptor. */
int glue_left_vm(const char *name, int backlog);
void glue_say_listening(int fd);
void glue_say_status(int fd, Understudy__Role role, Understudy__State state);
void glue_say_ended(int fd, const char *reason, const char *text);

/* ---- clients ---- */
/* Sends the request. The descriptor is the caller's. */
int glue_ask(const Understudy__Envelope *request);
int glue_ask_as_peer(const Understudy__Envelope *request);
int glue_connect(void);
int glue_connect_as_peer(void);
/* Takes the connection's one answer, and closes it. */
Understudy__Envelope *glue_answer_of(int fd);
/* Fails unless the answer is this one; text: a part of its message. */
void glue_expect(int fd, bool ok, const char *text);

/* ---- the peer ---- */
const char *glue_peer(void); /* HOST:PORT */
uint16_t glue_peer_port(void);
/* The next connection of the daemon to the peer, with its request (free_unpacked). The caller's. */
int glue_peer_call(Understudy__Envelope **request);
/* The next call is of that kind: the descriptor, to be answered and closed. request: NULL, or the caller's.
 */
int glue_peer_expect(Understudy__Envelope__BodyCase kind, Understudy__Envelope **request);
/* Whether nobody calls the peer now. */
bool glue_peer_is_silent(void);
/* Answers the call for what the peer is, as a good one does: that before a standby (brief), or another. */
void glue_peer_is_well(void);
void glue_peer_says_what_it_is(bool brief);
void glue_say_prepared(int fd);
/* That it names. */
extern const uint8_t glue_standbys_secret[SEAL_SECRET_LEN];

/* ---- VMs ---- */
/* A protection of a VM that needs nothing of the host. Its token is 16 times the number. Static memory. */
Understudy__Protection *glue_protection(const char *vm, uint8_t token);
/* A request for a standby of it, as a peer sends it. Static memory. */
Understudy__PrepareStandby *glue_prepare(Understudy__Protection *protection);
/* What the table shows of the VM (free_unpacked), or NULL. */
Understudy__Status *glue_status(const char *vm);
Understudy__State glue_state(const char *vm);
/* Waits for it. */
void glue_await_state(const char *vm, Understudy__State state);
void glue_await_gone(const char *vm);

#endif
