/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See glue.h. The hypervisor is the one of tests/fakevm/fake_line.h, whose programs are not run. */
#include "tests/daemon/glue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/endings.h"
#include "daemon/trust/trust.h"
#include "proto/epoch_wire.h"
#include "proto/term.h"
#include "tests/daemon/entries.h"
#include "tests/daemon/plain_door.h"
#include "tests/fakevm/fake_line.h"

#define PORT 7070

struct daemon_config glue_config;
char *glue_dir;

static char *top, *host, *peer, *replicators_path;
static uint16_t peer_port;
static int peer_fd = -1, replicators_fd = -1;
static bool serves;
static unsigned ndescriptors_before;
static char *programs[2];

/* ---- set-up ---- */

char *glue_path(const char *name)
{
    return g_build_filename(glue_dir, name, NULL);
}

bool glue_exists(const char *name)
{
    g_autofree char *path = glue_path(name);
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

void glue_write(const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args), *path = glue_path(name),
                    *folder = g_path_get_dirname(path);
    va_end(args);
    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static int listen_at(const char *path, int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(g_strlcpy(address.sun_path, path, sizeof address.sun_path) < sizeof address.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static struct sockaddr_in address_at(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    return address;
}

static void open_peer(void)
{
    struct sockaddr_in address = address_at(0);
    socklen_t len = sizeof address;
    peer_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer_fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(peer_fd, 16), 0);
    assert_int_equal(getsockname(peer_fd, (struct sockaddr *)&address, &len), 0);
    peer_port = ntohs(address.sin_port);
    peer = g_strdup_printf("%s:%u", host, peer_port);
}

static void remove_all(const char *what)
{
    g_autofree char *command = g_strdup_printf("rm -rf %s", what);
    const char *argv[] = {"sh", "-c", command, NULL};
    assert_true(
        g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
}

/* GLib opens some of its own for its first process, and keeps them. */
static void warm_up(void)
{
    g_autoptr(GSubprocess) process = g_subprocess_new(G_SUBPROCESS_FLAGS_NONE, NULL, "true", NULL);
    assert_true(process && g_subprocess_wait(process, NULL, NULL));
}

int glue_group_set_up(void **state)
{
    (void)state;
    warm_up();
    g_autofree char *made = g_dir_make_tmp("us-glue-XXXXXX", NULL);
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL), *here = g_path_get_dirname(self);
    if (!made)
        return -1;
    top = realpath(made, NULL);
    glue_dir = g_build_filename(top, "run", NULL);
    assert_int_equal(g_mkdir(glue_dir, 0700), 0);
    host =
        g_strdup_printf("127.%u.%u.%u", 1 + (getpid() >> 16) % 250u, getpid() >> 8 & 255u, getpid() & 255u);
    replicators_path = glue_path("replicators");
    programs[0] = glue_path("fakevm");
    glue_config = (struct daemon_config){.run_dir = glue_dir,
                                         .state_dir = g_build_filename(top, "state", NULL),
                                         .listen_address = host,
                                         .port = PORT,
                                         .replicator = g_build_filename(here, "fake_replicator", NULL),
                                         .hook = (char *)"hook",
                                         .disk_plugin = (char *)"plugin",
                                         .hooks_dir = glue_dir,
                                         .door = &plain_door,
                                         .qemu = programs};
    g_autofree char *etc = g_build_filename(top, "etc", NULL);
    glue_config.trust = trust_open(etc, NULL);
    assert_non_null(glue_config.trust);
    g_setenv("UNDERSTUDY_TEST_SOCKET", replicators_path, TRUE);
    drain_init(&glue_config); /* this thread reads the table from here on */
    return 0;
}

int glue_group_tear_down(void **state)
{
    (void)state;
    remove_all(top);
    vm_table_leave();
    free(top);
    g_free(glue_dir);
    g_free(host);
    g_free(replicators_path);
    g_free(programs[0]);
    g_free(glue_config.state_dir);
    trust_free(glue_config.trust);
    g_free(glue_config.replicator);
    return 0;
}

int glue_open_vms(void **state)
{
    (void)state;
    g_main_context_iteration(NULL, FALSE);
    ndescriptors_before = entries_of("/proc/self/fd");
    replicators_fd = listen_at(replicators_path, 16);
    open_peer();
    glue_write("fakevm", "#!/bin/sh\nexit 1\n");
    assert_int_equal(g_chmod(programs[0], 0700), 0);
    serves = false;
    peer_use_door(&plain_door);
    vms_init(&glue_config);
    return 0;
}

int glue_open(void **state)
{
    g_autoptr(GError) error = NULL;
    glue_open_vms(state);
    serves = server_start(&glue_config, &error);
    if (!serves)
        fail_msg("%s", error->message);
    return 0;
}

static bool no_descriptor_is_left(void *opaque)
{
    (void)opaque;
    return entries_of("/proc/self/fd") <= ndescriptors_before;
}

int glue_close(void **state)
{
    (void)state;
    if (serves)
        server_stop();
    vms_shutdown();
    close(peer_fd);
    close(replicators_fd);
    g_clear_pointer(&peer, g_free);
    glue_until(no_descriptor_is_left, NULL, "every descriptor is closed");
    g_autofree char *content = g_strdup_printf("%s/* %s", glue_dir, glue_config.state_dir);
    remove_all(content);
    return 0;
}

/* ---- the main loop ---- */

void glue_settle(void)
{
    while (g_main_context_iteration(NULL, FALSE))
        ;
}

void glue_until(glue_condition done, void *opaque, const char *what)
{
    gint64 until = g_get_monotonic_time() + GLUE_WAIT_MS * 1000;
    while (!done(opaque)) {
        if (g_get_monotonic_time() > until)
            fail_msg("it did not happen: %s", what);
        if (!g_main_context_iteration(NULL, FALSE))
            g_usleep(500);
    }
}

static bool is_readable(void *opaque)
{
    struct pollfd pfd = {.fd = *(int *)opaque, .events = POLLIN};
    return poll(&pfd, 1, 0) == 1;
}

static void await_readable(int fd, const char *what)
{
    glue_until(is_readable, &fd, what);
}

/* ---- messages ---- */

void glue_say(int fd, const Understudy__Envelope *message)
{
    g_autoptr(GError) error = NULL;
    if (!framing_write(STREAM_FD(fd), message, GLUE_WAIT_MS, &error))
        fail_msg("%s", error->message);
}

void glue_answer(int fd, bool ok, const char *text)
{
    Understudy__Answer answer = UNDERSTUDY__ANSWER__INIT;
    answer.ok = ok;
    answer.message = (char *)text;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ANSWER, answer, &answer);
    glue_say(fd, &envelope);
}

Understudy__Envelope *glue_hear(int fd)
{
    await_readable(fd, "a message, or the connection's end");
    return framing_read(STREAM_FD(fd), GLUE_WAIT_MS, NULL);
}

Understudy__Envelope *glue_hear_a(int fd, Understudy__Envelope__BodyCase kind)
{
    Understudy__Envelope *message = glue_hear(fd);
    assert_non_null(message);
    if (message->body_case != kind)
        fail_msg("message %d came instead of %d: %s", (int)message->body_case, (int)kind,
                 message->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER ? message->answer->message : "");
    return message;
}

void glue_skip(int fd, Understudy__Envelope__BodyCase kind)
{
    understudy__envelope__free_unpacked(glue_hear_a(fd, kind), NULL);
}

bool glue_has_closed(int fd)
{
    Understudy__Envelope *message = glue_hear(fd);
    bool closed = !message;
    if (message)
        understudy__envelope__free_unpacked(message, NULL);
    return closed;
}

bool glue_is_silent(int fd)
{
    glue_settle();
    return !is_readable(&fd);
}

/* ---- replicators ---- */

int glue_replicator(void)
{
    int control = -1;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof control)];
    } ancillary;
    struct iovec byte = {.iov_base = (char[1]){0}, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    await_readable(replicators_fd, "a replicator is started");
    int fd = accept4(replicators_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    await_readable(fd, "the replicator passes its descriptor on");
    assert_int_equal(recvmsg(fd, &message, MSG_CMSG_CLOEXEC), 1);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    assert_non_null(header);
    memcpy(&control, CMSG_DATA(header), sizeof control);
    close(fd);
    return control;
}

int glue_left_vm(const char *name, int backlog)
{
    g_autofree char *folder = glue_path(name), *path = g_build_filename(folder, "us-replicator", NULL);
    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    return listen_at(path, backlog);
}

void glue_say_listening(int fd)
{
    Understudy__Listening listening = UNDERSTUDY__LISTENING__INIT;
    listening.data_port = GLUE_DATA_PORT;
    listening.udp_port = GLUE_UDP_PORT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(LISTENING, listening, &listening);
    glue_say(fd, &envelope);
}

void glue_say_status(int fd, Understudy__Role role, Understudy__State state)
{
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    status.role = role;
    status.state = state;
    status.term = TERM_FIRST;
    status.guest_here = role == UNDERSTUDY__ROLE__ROLE_PRIMARY;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &status);
    glue_say(fd, &envelope);
}

void glue_say_ended(int fd, const char *reason, const char *text)
{
    Understudy__Ended ended = UNDERSTUDY__ENDED__INIT;
    ended.reason = (char *)reason;
    ended.message = (char *)text;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ENDED, ended, &ended);
    glue_say(fd, &envelope);
}

/* ---- clients ---- */

int glue_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = glue_path("control.sock");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    glue_settle();
    return fd;
}

int glue_connect_as_peer(void)
{
    struct sockaddr_in address = address_at(PORT);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    glue_settle();
    return fd;
}

int glue_ask(const Understudy__Envelope *request)
{
    int fd = glue_connect();
    glue_say(fd, request);
    return fd;
}

int glue_ask_as_peer(const Understudy__Envelope *request)
{
    int fd = glue_connect_as_peer();
    glue_say(fd, request);
    return fd;
}

Understudy__Envelope *glue_answer_of(int fd)
{
    Understudy__Envelope *answer = glue_hear(fd);
    close(fd);
    assert_non_null(answer);
    return answer;
}

void glue_expect(int fd, bool ok, const char *text)
{
    Understudy__Envelope *answer = glue_answer_of(fd);
    assert_int_equal(answer->body_case, UNDERSTUDY__ENVELOPE__BODY_ANSWER);
    if (answer->answer->ok != ok || !strstr(answer->answer->message, text))
        fail_msg("%s: %s; wanted %s: %s", answer->answer->ok ? "yes" : "no", answer->answer->message,
                 ok ? "yes" : "no", text);
    understudy__envelope__free_unpacked(answer, NULL);
}

/* ---- the peer ---- */

const char *glue_peer(void)
{
    return peer;
}

uint16_t glue_peer_port(void)
{
    return peer_port;
}

int glue_peer_call(Understudy__Envelope **request)
{
    await_readable(peer_fd, "the daemon calls the peer");
    int fd = accept4(peer_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    *request = glue_hear(fd);
    assert_non_null(*request);
    return fd;
}

int glue_peer_expect(Understudy__Envelope__BodyCase kind, Understudy__Envelope **request)
{
    Understudy__Envelope *message;
    int fd = glue_peer_call(&message);
    if (message->body_case != kind)
        fail_msg("the peer was asked %d instead of %d", (int)message->body_case, (int)kind);
    if (request)
        *request = message;
    else
        understudy__envelope__free_unpacked(message, NULL);
    return fd;
}

bool glue_peer_is_silent(void)
{
    return glue_is_silent(peer_fd);
}

void glue_peer_says_what_it_is(bool brief)
{
    uint8_t instance[PEER_INSTANCE_LEN] = {0};
    Understudy__Host body = UNDERSTUDY__HOST__INIT;
    Understudy__Envelope *request;
    int fd = glue_peer_expect(UNDERSTUDY__ENVELOPE__BODY_HOST_REQUEST, &request);
    assert_int_equal(request->host_request->brief, brief);
    understudy__envelope__free_unpacked(request, NULL);
    body.wire_version = WIRE_VERSION;
    body.instance.data = instance;
    body.instance.len = sizeof instance;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(HOST, host, &body);
    glue_say(fd, &envelope);
    close(fd);
}

void glue_peer_is_well(void)
{
    glue_peer_says_what_it_is(true);
}

const uint8_t glue_standbys_secret[SEAL_SECRET_LEN] = {77, 1, 2, 3};

void glue_say_prepared(int fd)
{
    Understudy__Prepared body = UNDERSTUDY__PREPARED__INIT;
    body.data_port = GLUE_DATA_PORT;
    body.udp_port = GLUE_UDP_PORT;
    body.qemu_version = (char *)"1";
    body.secret.data = (uint8_t *)glue_standbys_secret;
    body.secret.len = sizeof glue_standbys_secret;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PREPARED, prepared, &body);
    glue_say(fd, &envelope);
}

/* ---- VMs ---- */

Understudy__Protection *glue_protection(const char *vm, uint8_t token)
{
    static Understudy__Protection protection;
    static uint8_t tokens[16], secret[SEAL_SECRET_LEN];
    static char *argv[2];
    argv[0] = programs[0];
    argv[1] = (char *)"memory:64";
    understudy__protection__init(&protection);
    memset(tokens, token, sizeof tokens);
    protection.vm = (char *)vm;
    protection.qemu_argv = argv;
    protection.n_qemu_argv = G_N_ELEMENTS(argv);
    protection.ram_bytes = 64 << 20;
    protection.token.data = tokens;
    protection.token.len = sizeof tokens;
    memset(secret, 100 + token, sizeof secret);
    protection.secret.data = secret;
    protection.secret.len = sizeof secret;
    protection.term = TERM_FIRST;
    protection.epoch_ms = protection.deadline_ms = 20;
    protection.silence_ms = 300;
    protection.heartbeat_ms = 30;
    protection.tracker = (char *)"auto";
    protection.transport = (char *)"tcp";
    protection.qemu_version = (char *)"1";
    return &protection;
}

Understudy__PrepareStandby *glue_prepare(Understudy__Protection *protection)
{
    static Understudy__PrepareStandby prepare;
    understudy__prepare_standby__init(&prepare);
    prepare.protection = protection;
    prepare.primary_daemon = (char *)"7070";
    return &prepare;
}

Understudy__Status *glue_status(const char *vm)
{
    g_autoptr(GPtrArray) all = vm_table_snapshot(vm);
    assert_true(all->len <= 1);
    return all->len ? g_ptr_array_index(all, 0) : NULL;
}

Understudy__State glue_state(const char *vm)
{
    Understudy__Status *status = glue_status(vm);
    Understudy__State state = status ? status->state : UNDERSTUDY__STATE__STATE_UNKNOWN;
    if (status)
        understudy__status__free_unpacked(status, NULL);
    return state;
}

struct wanted {
    const char *vm;
    Understudy__State state;
};

static bool has_state(void *opaque)
{
    const struct wanted *wanted = opaque;
    return glue_state(wanted->vm) == wanted->state;
}

void glue_await_state(const char *vm, Understudy__State state)
{
    struct wanted wanted = {vm, state};
    glue_until(has_state, &wanted, "the VM comes to that state");
}

static bool is_gone(void *opaque)
{
    return !vm_is_here(opaque) && glue_state(opaque) == UNDERSTUDY__STATE__STATE_UNKNOWN;
}

void glue_await_gone(const char *vm)
{
    glue_until(is_gone, (void *)vm, "the VM is gone");
}
