/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to the daemon, by the command's socket and by the port for peers: what each does, what is refused
 * and in which words, and what is left when the client, the peer or the replicator is gone in the middle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/disk/disk_setup.h"
#include "daemon/events.h"
#include "daemon/trust/trust.h"
#include "proto/epoch_wire.h"
#include "proto/term.h"
#include "tests/daemon/glue.h"
#include "tests/daemon/plain_door.h"

#define PRIMARY   UNDERSTUDY__ROLE__ROLE_PRIMARY
#define SECONDARY UNDERSTUDY__ROLE__ROLE_SECONDARY
#define STATE(x)  UNDERSTUDY__STATE__STATE_##x
#define BODY(x)   UNDERSTUDY__ENVELOPE__BODY_##x

/* ---- where the test can hold a request: at its begin, and where it prepares disks ---- */

void __real_vm_table_enter(void);
void __wrap_vm_table_enter(void);
bool __real_disks_prepare_standby(const Understudy__PrepareStandby *request, const char *vm_dir,
                                  GError **error);
bool __wrap_disks_prepare_standby(const Understudy__PrepareStandby *request, const char *vm_dir,
                                  GError **error);

GPtrArray *__wrap_pair_network_faults(const Understudy__Protection *protection, const char *host,
                                      uint16_t port, bool probe, bool moves_only);

static gint hold_requests, hold_disks; /* while they are 1 */
static gint nrequests, ndisks;         /* that came there */

void __wrap_vm_table_enter(void)
{
    __real_vm_table_enter();
    g_atomic_int_inc(&nrequests);
    while (g_atomic_int_get(&hold_requests))
        g_usleep(500);
}

bool __wrap_disks_prepare_standby(const Understudy__PrepareStandby *request, const char *vm_dir,
                                  GError **error)
{
    g_atomic_int_inc(&ndisks);
    while (g_atomic_int_get(&hold_disks))
        g_usleep(500);
    return __real_disks_prepare_standby(request, vm_dir, error);
}

/* A host without taps has no faults. Those of this VM's network are the test's. */
static struct {
    const char *unfit_vm; /* or NULL */
    char host[64];
    uint16_t port; /* of the peer that the VM was looked at with */
} network;

GPtrArray *__wrap_pair_network_faults(const Understudy__Protection *protection, const char *host,
                                      uint16_t port, bool probe, bool moves_only)
{
    GPtrArray *faults = g_ptr_array_new_with_free_func(g_free);
    assert_true(probe && moves_only);
    g_strlcpy(network.host, host, sizeof network.host);
    network.port = port;
    if (g_strcmp0(protection->vm, network.unfit_vm) == 0)
        g_ptr_array_add(faults, g_strdup("the other host has no bridge br0"));
    return faults;
}

static bool has_come(void *counter)
{
    return g_atomic_int_get((gint *)counter) > 0;
}

/* Whether no request has a thread any more. */
static bool none_is_served(void *opaque)
{
    GDir *dir = g_dir_open("/proc/self/task", 0, NULL);
    const char *task;
    unsigned n = 0;
    (void)opaque;
    while ((task = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename("/proc/self/task", task, "comm", NULL), *name = NULL;
        n += g_file_get_contents(path, &name, NULL, NULL) && strcmp(name, "request\n") == 0;
    }
    g_dir_close(dir);
    return n == 0;
}

/* ---- requests ---- */

static int ask_run(const char *vm, const char *peer)
{
    Understudy__RunRequest run = UNDERSTUDY__RUN_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(RUN_REQUEST, run_request, &run);
    char *argv[] = {glue_config.qemu[0], (char *)"memory:64"};
    run.vm = (char *)vm;
    run.peer = (char *)peer;
    run.argv = argv;
    run.n_argv = G_N_ELEMENTS(argv);
    run.cwd = (char *)"/";
    return glue_ask(&request);
}

static int ask_prepare(Understudy__PrepareStandby *prepare)
{
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PREPARE_STANDBY, prepare_standby, prepare);
    return glue_ask_as_peer(&request);
}

static int ask_stop(const char *vm, uint32_t wait_ms)
{
    Understudy__StopRequest stop = UNDERSTUDY__STOP_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(STOP_REQUEST, stop_request, &stop);
    stop.vm = (char *)vm;
    stop.wait_ms = wait_ms;
    return glue_ask(&request);
}

static int ask_power(const char *vm, uint32_t wait_ms)
{
    Understudy__PowerRequest power = UNDERSTUDY__POWER_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(POWER_REQUEST, power_request, &power);
    power.vm = (char *)vm;
    power.wait_ms = wait_ms;
    return glue_ask(&request);
}

static int ask_failover(const char *vm, bool force, bool unchecked)
{
    Understudy__FailoverRequest failover = UNDERSTUDY__FAILOVER_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(FAILOVER_REQUEST, failover_request, &failover);
    failover.vm = (char *)vm;
    failover.force = force;
    failover.unchecked = unchecked;
    return glue_ask(&request);
}

static int ask_drain(bool off)
{
    Understudy__DrainRequest drain = UNDERSTUDY__DRAIN_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(DRAIN_REQUEST, drain_request, &drain);
    drain.off = off;
    return glue_ask(&request);
}

static int ask_cancel(const char *vm, uint8_t token, size_t len)
{
    Understudy__CancelStandby cancel = UNDERSTUDY__CANCEL_STANDBY__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(CANCEL_STANDBY, cancel_standby, &cancel);
    uint8_t bytes[32];
    memset(bytes, token, sizeof bytes);
    cancel.vm = (char *)vm;
    cancel.token.data = bytes;
    cancel.token.len = len;
    return glue_ask_as_peer(&request);
}

/* The answer (free_unpacked). */
static Understudy__Envelope *ask_status(const char *vm, bool reset, bool ended)
{
    Understudy__StatusRequest status = UNDERSTUDY__STATUS_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(STATUS_REQUEST, status_request, &status);
    status.vm = (char *)vm;
    status.reset = reset;
    status.ended = ended;
    Understudy__Envelope *answer = glue_answer_of(glue_ask(&request));
    assert_int_equal(answer->body_case, BODY(STATUS_LIST));
    return answer;
}

/* The VM runs here, in that state. Its replicator. */
static int run(const char *vm, Understudy__State state)
{
    int client = ask_run(vm, glue_peer());
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    glue_say_prepared(call);
    close(call);
    int fd = glue_replicator();
    glue_skip(fd, BODY(START));
    glue_say_listening(fd);
    glue_expect(client, true, "");
    glue_say_status(fd, PRIMARY, state);
    glue_await_state(vm, state);
    return fd;
}

/* A standby of it is here, in that state. Its replicator. */
static int stand_by(const char *vm, uint8_t token, Understudy__State state)
{
    int client = ask_prepare(glue_prepare(glue_protection(vm, token)));
    int fd = glue_replicator();
    glue_skip(fd, BODY(START));
    glue_say_listening(fd);
    glue_skip(client, BODY(PREPARED));
    close(client);
    glue_say_status(fd, SECONDARY, state);
    glue_await_state(vm, state);
    return fd;
}

static void end(int fd, const char *vm)
{
    glue_say_ended(fd, "stopped", "");
    close(fd);
    glue_await_gone(vm);
}

/* ---- run ---- */

static void test_run_starts_both_hosts_in_turn(void **state)
{
    (void)state;
    int client = ask_run("web", glue_peer());
    glue_peer_is_well();
    Understudy__Envelope *request;
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), &request);
    const Understudy__Protection *asked = request->prepare_standby->protection;
    assert_string_equal(asked->vm, "web");
    assert_int_equal(asked->term, TERM_FIRST);
    assert_int_equal(asked->token.len, 16);
    assert_int_equal(asked->link_security, UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_SEALED);
    assert_int_equal(asked->secret.len, 32);
    assert_memory_not_equal(asked->secret.data, asked->token.data, 16);
    assert_int_equal(asked->ram_bytes, 64 << 20);
    assert_int_equal(asked->epoch_ms, 20);
    assert_string_equal(request->prepare_standby->primary_daemon, "7070");
    assert_true(glue_is_silent(client));
    glue_say_prepared(call);
    close(call);
    int fd = glue_replicator();
    Understudy__Envelope *start = glue_hear_a(fd, BODY(START));
    assert_int_equal(start->start->role, PRIMARY);
    assert_string_equal(start->start->peer_host, glue_config.listen_address);
    assert_int_equal(start->start->peer_data_port, GLUE_DATA_PORT);
    assert_int_equal(start->start->peer_udp_port, GLUE_UDP_PORT);
    assert_int_equal(start->start->peer_daemon_port, glue_peer_port());
    assert_string_equal(start->start->protection->standby_qemu, "1");
    assert_memory_equal(start->start->protection->token.data, asked->token.data, 16);
    assert_int_equal(start->start->protection->secret.len, 32);
    assert_memory_equal(start->start->protection->secret.data, glue_standbys_secret, 32);
    understudy__envelope__free_unpacked(request, NULL);
    understudy__envelope__free_unpacked(start, NULL);
    glue_say_listening(fd);
    glue_expect(client, true, "");
    assert_true(vm_is_here("web"));
    end(fd, "web");
}

static void test_run_is_refused_before_anybody_is_asked(void **state)
{
    static const struct {
        const char *vm, *peer, *word, *says;
    } cases[] = {
        {"web", "[", "memory:64", "is not HOST or HOST:PORT"},
        {"web", "", "memory:64", "is not HOST or HOST:PORT"},
        {"web", NULL, "memory", "this means nothing"},
        {"web", NULL, "memory:999999999", "MiB of memory are free"},
        {"web", NULL, "firmware:/nowhere/a.fw", "cannot be read here"},
        {"web", NULL, "tracker", "this means nothing"},
        {"no name", NULL, "memory:64", "is no name for a VM"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Understudy__RunRequest body = UNDERSTUDY__RUN_REQUEST__INIT;
        Understudy__Envelope request = UNDERSTUDY_ENVELOPE(RUN_REQUEST, run_request, &body);
        char *argv[] = {glue_config.qemu[0], (char *)"memory:64", (char *)cases[i].word};
        body.vm = (char *)cases[i].vm;
        body.peer = (char *)(cases[i].peer ? cases[i].peer : glue_peer());
        body.argv = argv;
        body.n_argv = G_N_ELEMENTS(argv);
        body.cwd = (char *)"/";
        glue_expect(glue_ask(&request), false, cases[i].says);
    }
    Understudy__RunRequest empty = UNDERSTUDY__RUN_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(RUN_REQUEST, run_request, &empty);
    empty.vm = (char *)"web";
    empty.peer = (char *)glue_peer();
    glue_expect(glue_ask(&request), false, "");
    empty.argv = (char *[]){glue_config.qemu[0], (char *)"memory:64"};
    empty.n_argv = 2;
    empty.silence_ms = 1;
    glue_expect(glue_ask(&request), false, "--silence-ms");
    empty.silence_ms = 0;
    char *paths[] = {(char *)"127.0.0.1"};
    empty.heartbeat_path = paths;
    empty.n_heartbeat_path = 1;
    glue_expect(glue_ask(&request), false, "--heartbeat-path 127.0.0.1");
}

enum fault {
    GONE,
    REFUSES,
    NONSENSE,
    TOO_LONG,
    OTHER_KIND,
    OTHER_VERSION,
    ITSELF,
    NO_PORT,
    BAD_PORT,
    NO_SECRET,
    CUT
};

static void say_host(int fd, uint32_t wire_version, const uint8_t *instance)
{
    Understudy__Host body = UNDERSTUDY__HOST__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(HOST, host, &body);
    body.wire_version = wire_version;
    body.instance.data = (uint8_t *)instance;
    body.instance.len = instance ? PEER_INSTANCE_LEN : 0;
    glue_say(fd, &envelope);
}

static void say_ports(int fd, uint32_t data_port, uint32_t udp_port)
{
    Understudy__Prepared body = UNDERSTUDY__PREPARED__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PREPARED, prepared, &body);
    body.data_port = data_port;
    body.udp_port = udp_port;
    glue_say(fd, &envelope);
}

static void go_wrong(int fd, enum fault fault)
{
    static const uint8_t nonsense[] = {3, 0, 0, 0, 0xff, 0xff, 0xff}, too_long[] = {0, 0, 0, 0x7f};
    if (fault == REFUSES)
        glue_answer(fd, false, "there is no\nroom");
    else if (fault == NONSENSE)
        assert_int_equal(send(fd, nonsense, sizeof nonsense, MSG_NOSIGNAL), sizeof nonsense);
    else if (fault == CUT)
        assert_int_equal(send(fd, nonsense, 5, MSG_NOSIGNAL), 5);
    else if (fault == TOO_LONG)
        assert_int_equal(send(fd, too_long, sizeof too_long, MSG_NOSIGNAL), sizeof too_long);
    else if (fault == OTHER_KIND)
        glue_say_status(fd, PRIMARY, STATE(PROTECTED));
    else if (fault == OTHER_VERSION)
        say_host(fd, WIRE_VERSION + 1, NULL);
    else if (fault == ITSELF)
        say_host(fd, WIRE_VERSION, peer_own_instance());
    else if (fault == NO_PORT)
        say_ports(fd, 0, GLUE_UDP_PORT);
    else if (fault == BAD_PORT)
        say_ports(fd, GLUE_DATA_PORT, 65536 + GLUE_UDP_PORT);
    else if (fault == NO_SECRET)
        say_ports(fd, GLUE_DATA_PORT, GLUE_UDP_PORT);
    close(fd);
}

/* Whatever goes wrong there is said, and this host has nothing of the VM afterwards. */
static void test_a_peer_that_fails_at_any_step_is_a_sentence_and_frees_the_name(void **state)
{
    static const struct {
        bool prepares; /* it said what it is before */
        enum fault fault;
        const char *says;
    } cases[] = {
        {false, GONE, "closed the connection"},
        {false, REFUSES, "does not say what it is"},
        {false, NONSENSE, "was not understood"},
        {false, CUT, "broke in the middle"},
        {false, TOO_LONG, "was not understood"},
        {false, OTHER_KIND, "does not say what it is"},
        {false, OTHER_VERSION, "install one version"},
        {false, ITSELF, "is this host itself"},
        {true, GONE, "closed the connection"},
        {true, REFUSES, "refused: there is no room"},
        {true, NONSENSE, "was not understood"},
        {true, CUT, "broke in the middle"},
        {true, NO_SECRET, "which secret its standby has"},
        {true, TOO_LONG, "was not understood"},
        {true, OTHER_KIND, "no reason given"},
        {true, NO_PORT, "names no ports"},
        {true, BAD_PORT, "names no ports"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        int client = ask_run("web", glue_peer());
        if (cases[i].prepares)
            glue_peer_is_well();
        go_wrong(glue_peer_expect(cases[i].prepares ? BODY(PREPARE_STANDBY) : BODY(HOST_REQUEST), NULL),
                 cases[i].fault);
        glue_expect(client, false, cases[i].says);
        assert_true(vm_reserve("web", NULL));
        vm_forget("web");
        assert_int_equal(glue_state("web"), STATE(UNKNOWN));
    }
}

static void test_a_peer_that_is_not_there_is_named(void **state)
{
    (void)state;
    g_autofree char *nobody = g_strdup_printf("%s:1", glue_config.listen_address);
    glue_expect(ask_run("web", nobody), false, "is it running there?");
}

/* The standby that was prepared is called off, by its token. */
static void test_a_primary_that_cannot_be_started_calls_its_standby_off(void **state)
{
    char *good = glue_config.replicator;
    (void)state;
    for (int dies = 0; dies < 2; dies++) {
        Understudy__Envelope *request, *cancel;
        int client = ask_run("web", glue_peer());
        glue_peer_is_well();
        int call = glue_peer_expect(BODY(PREPARE_STANDBY), &request);
        glue_config.replicator = dies ? good : (char *)"/nowhere/replicator";
        glue_say_prepared(call);
        close(call);
        if (dies)
            close(glue_replicator());
        call = glue_peer_expect(BODY(CANCEL_STANDBY), &cancel);
        glue_config.replicator = good;
        assert_string_equal(cancel->cancel_standby->vm, "web");
        assert_int_equal(cancel->cancel_standby->token.len, 16);
        assert_memory_equal(cancel->cancel_standby->token.data,
                            request->prepare_standby->protection->token.data, 16);
        close(call); /* it has not even to answer */
        understudy__envelope__free_unpacked(request, NULL);
        understudy__envelope__free_unpacked(cancel, NULL);
        glue_expect(client, false, dies ? "the replicator died" : "/nowhere/replicator");
        assert_false(vm_is_here("web"));
        assert_true(vm_reserve("web", NULL));
        vm_forget("web");
    }
}

static void test_of_two_runs_of_one_name_the_first_wins(void **state)
{
    (void)state;
    int first = ask_run("web", glue_peer());
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    glue_expect(ask_run("web", glue_peer()), false, "being started");
    assert_true(glue_is_silent(first));
    glue_say_prepared(call);
    close(call);
    int fd = glue_replicator();
    glue_skip(fd, BODY(START));
    glue_expect(ask_run("web", glue_peer()), false, "already here (starting)");
    glue_say_listening(fd);
    glue_expect(first, true, "");
    end(fd, "web");
}

/* Two VMs are started side by side. */
static void test_a_peer_that_is_slow_for_one_vm_holds_up_no_other(void **state)
{
    (void)state;
    int slow = ask_run("slow", glue_peer());
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    int fd = run("web", STATE(CONNECTING));
    Understudy__Envelope *answer = ask_status("", false, false);
    assert_int_equal(answer->status_list->n_vms, 1);
    understudy__envelope__free_unpacked(answer, NULL);
    close(call);
    glue_expect(slow, false, "closed the connection");
    end(fd, "web");
}

static void test_a_client_that_vanishes_does_not_stop_what_it_began(void **state)
{
    (void)state;
    int client = ask_run("web", glue_peer());
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    close(client);
    glue_say_prepared(call);
    close(call);
    int fd = glue_replicator();
    glue_skip(fd, BODY(START));
    glue_say_listening(fd);
    glue_until(none_is_served, NULL, "the request's thread ends");
    assert_true(vm_is_here("web"));
    end(fd, "web");
}

/* ---- prepare ---- */

static void test_a_standby_is_started_for_a_peer(void **state)
{
    (void)state;
    int client = ask_prepare(glue_prepare(glue_protection("web", 1)));
    int fd = glue_replicator();
    Understudy__Envelope *start = glue_hear_a(fd, BODY(START));
    assert_int_equal(start->start->role, SECONDARY);
    assert_int_equal(start->start->peer_daemon_port, 7070);
    assert_string_equal(start->start->argv[start->start->n_argv - 1], "wait:");
    assert_int_equal(start->start->protection->term, TERM_FIRST);
    assert_int_equal(start->start->protection->secret.data[31], 101);
    understudy__envelope__free_unpacked(start, NULL);
    assert_true(glue_is_silent(client));
    glue_say_listening(fd);
    Understudy__Envelope *answer = glue_answer_of(client);
    assert_int_equal(answer->body_case, BODY(PREPARED));
    assert_int_equal(answer->prepared->secret.len, SEAL_SECRET_LEN);
    assert_int_equal(answer->prepared->secret.data[31], 101);
    assert_int_equal(answer->prepared->data_port, GLUE_DATA_PORT);
    assert_int_equal(answer->prepared->udp_port, GLUE_UDP_PORT);
    assert_string_equal(answer->prepared->qemu_version, "1");
    understudy__envelope__free_unpacked(answer, NULL);
    end(fd, "web");
}

/* Its primary has not heard of it, or not come to it, and asks again, with another secret. */
static void test_a_standby_that_waits_is_named_with_the_secret_that_it_has(void **state)
{
    (void)state;
    int fd = stand_by("web", 1, STATE(LISTENING));
    Understudy__Protection *again = glue_protection("web", 1);
    memset(again->secret.data, 9, again->secret.len);
    Understudy__Envelope *answer = glue_answer_of(ask_prepare(glue_prepare(again)));
    assert_int_equal(answer->body_case, BODY(PREPARED));
    assert_int_equal(answer->prepared->secret.len, SEAL_SECRET_LEN);
    assert_int_equal(answer->prepared->secret.data[0], 101);
    assert_int_equal(answer->prepared->secret.data[31], 101);
    understudy__envelope__free_unpacked(answer, NULL);
    end(fd, "web");
}

static void test_an_unfit_wish_for_a_standby_is_refused(void **state)
{
    static char *const other_program[] = {(char *)"/bin/sh", (char *)"-m", (char *)"64"};
    Understudy__Protection *p = glue_protection("web", 1);
    Understudy__PrepareStandby *prepare = glue_prepare(p);
    (void)state;
    prepare->protection = NULL;
    glue_expect(ask_prepare(prepare), false, "was not understood");
    prepare->protection = p;
    p->token.len = 15;
    glue_expect(ask_prepare(prepare), false, "was not understood");
    p->token.len = 0;
    glue_expect(ask_prepare(prepare), false, "was not understood");
    p = glue_protection("web", 1);
    p->secret.len = 31;
    glue_expect(ask_prepare(prepare), false, "was not understood");
    p = glue_protection("web", 1);
    p->n_qemu_argv = 0;
    glue_expect(ask_prepare(prepare), false, "was not understood");
    p = glue_protection("web", 1);
    p->term = TERM_FIRST - 1;
    glue_expect(ask_prepare(prepare), false, "a term that no pair has");
    p->term = UINT64_MAX;
    glue_expect(ask_prepare(prepare), false, "a term that no pair has");
    p = glue_protection("web", 1);
    p->epoch_ms = 0;
    glue_expect(ask_prepare(prepare), false, "--epoch-ms 0");
    p = glue_protection("web", 1);
    p->nnics = 1000;
    glue_expect(ask_prepare(prepare), false, "network devices");
    p = glue_protection("../web", 1);
    glue_expect(ask_prepare(prepare), false, "is no name");
    p = glue_protection("web", 1);
    p->qemu_argv = (char **)other_program;
    p->n_qemu_argv = G_N_ELEMENTS(other_program);
    glue_expect(ask_prepare(prepare), false, "with --qemu for each of them");
    p = glue_protection("web", 1);
    p->qemu_version = (char *)"2";
    glue_expect(ask_prepare(prepare), false, "only equal versions exchange guests");
    p = glue_protection("web", 1);
    p->cpu_must_match = true;
    p->cpu_model = (char *)"another";
    glue_expect(ask_prepare(prepare), false, "needs equal processors");
    assert_false(glue_exists("web"));
    assert_int_equal(glue_state("web"), STATE(UNKNOWN));
    assert_true(vm_reserve("web", NULL)); /* each of them has given the name back */
    vm_forget("web");
}

static void test_a_port_of_the_primary_that_is_none_is_not_called(void **state)
{
    static const char *const ports[] = {"", "0", "99999", "7070x", "-1"};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(ports); i++) {
        /* Another run each time: one that failed is not started again at once. */
        Understudy__PrepareStandby *prepare = glue_prepare(glue_protection("web", (uint8_t)(i + 1)));
        prepare->primary_daemon = (char *)ports[i];
        int client = ask_prepare(prepare);
        int fd = glue_replicator();
        Understudy__Envelope *start = glue_hear_a(fd, BODY(START));
        assert_int_equal(start->start->peer_daemon_port, 0);
        understudy__envelope__free_unpacked(start, NULL);
        close(fd);
        glue_expect(client, false, "the replicator died");
        glue_await_gone("web");
    }
}

static void test_a_standby_that_fails_at_its_start_is_a_sentence_for_the_peer(void **state)
{
    char *good = glue_config.replicator;
    (void)state;
    glue_config.replicator = (char *)"/nowhere/replicator";
    glue_expect(ask_prepare(glue_prepare(glue_protection("web", 1))), false, "/nowhere/replicator");
    glue_config.replicator = good;
    int client = ask_prepare(glue_prepare(glue_protection("web", 1)));
    int fd = glue_replicator();
    glue_say_ended(fd, "image-failed", "no memory for the image");
    close(fd);
    glue_expect(client, false, "no memory for the image");
    glue_await_gone("web");
}

/* The answer was lost on its way: the peer asks again, and gets the same standby. */
static void test_a_standby_that_waits_is_not_started_twice(void **state)
{
    (void)state;
    int fd = stand_by("web", 1, STATE(LISTENING));
    Understudy__Envelope *answer = glue_answer_of(ask_prepare(glue_prepare(glue_protection("web", 1))));
    assert_int_equal(answer->body_case, BODY(PREPARED));
    assert_int_equal(answer->prepared->data_port, GLUE_DATA_PORT);
    understudy__envelope__free_unpacked(answer, NULL);
    assert_true(glue_is_silent(fd));
    glue_say_status(fd, SECONDARY, STATE(FOLLOWING));
    glue_await_state("web", STATE(FOLLOWING));
    glue_expect(ask_prepare(glue_prepare(glue_protection("web", 1))), false, "busy on this host");
    end(fd, "web");
}

/* Two of them would write the same new image. */
static void test_of_two_wishes_at_once_one_prepares_the_disks_and_both_get_the_standby(void **state)
{
    (void)state;
    g_atomic_int_set(&ndisks, 0);
    g_atomic_int_set(&nrequests, 0);
    g_atomic_int_set(&hold_disks, 1);
    int first = ask_prepare(glue_prepare(glue_protection("web", 1)));
    glue_until(has_come, &ndisks, "the disks are being prepared");
    g_atomic_int_set(&nrequests, 0);
    int second = ask_prepare(glue_prepare(glue_protection("web", 1)));
    glue_until(has_come, &nrequests, "the second request comes");
    for (int i = 0; i < 10; i++) { /* it asks every 20 ms whether it is its turn */
        glue_settle();
        g_usleep(10000);
    }
    assert_int_equal(g_atomic_int_get(&ndisks), 1);
    g_atomic_int_set(&hold_disks, 0);
    int fd = glue_replicator();
    glue_skip(fd, BODY(START));
    glue_say_listening(fd);
    Understudy__Envelope *answer = glue_answer_of(first);
    assert_int_equal(answer->body_case, BODY(PREPARED));
    understudy__envelope__free_unpacked(answer, NULL);
    answer = glue_answer_of(second);
    assert_int_equal(g_atomic_int_get(&ndisks), 1);
    if (answer->body_case == BODY(ANSWER)) /* between the start and the word that it listens */
        assert_non_null(strstr(answer->answer->message, "busy"));
    else
        assert_int_equal(answer->prepared->data_port, GLUE_DATA_PORT);
    understudy__envelope__free_unpacked(answer, NULL);
    end(fd, "web");
}

/* Each host names the other one as its peer, at the same time. */
static void test_a_vm_that_is_being_started_here_gets_no_standby_here(void **state)
{
    (void)state;
    g_atomic_int_set(&ndisks, 0);
    int client = ask_run("web", glue_peer());
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    glue_expect(ask_prepare(glue_prepare(glue_protection("web", 1))), false, "being started");
    assert_int_equal(g_atomic_int_get(&ndisks), 0);
    glue_answer(call, false, "being started there");
    close(call);
    glue_expect(client, false, "being started there");
}

static void test_a_standby_is_called_off_by_its_own_run(void **state)
{
    (void)state;
    int fd = stand_by("web", 1, STATE(LISTENING));
    glue_expect(ask_cancel("web", 1, 15), false, "was not understood");
    glue_expect(ask_cancel("web", 1, 17), false, "was not understood");
    glue_expect(ask_cancel("web", 2, 16), true, "");
    glue_expect(ask_cancel("nobody", 1, 16), true, "");
    assert_true(glue_is_silent(fd));
    glue_expect(ask_cancel("web", 1, 16), true, "");
    glue_skip(fd, BODY(STOP));
    end(fd, "web");
}

/* ---- orders ---- */

static void test_stop_waits_until_the_vm_is_gone_and_says_how_it_ended(void **state)
{
    (void)state;
    int fd = run("web", STATE(PROTECTED));
    int client = ask_stop("web", 60000), other = ask_stop("web", 60000);
    glue_skip(fd, BODY(STOP));
    glue_skip(fd, BODY(STOP));
    assert_true(glue_is_silent(client) && glue_is_silent(other));
    glue_say_ended(fd, "handed-over", "");
    assert_true(glue_is_silent(client)); /* it is not gone yet */
    close(fd);
    glue_expect(client, true, "handed-over");
    glue_expect(other, true, "handed-over");
    glue_expect(ask_stop("web", 60000), false, "there is no VM web");
}

static void test_an_order_without_a_wait_is_answered_at_once(void **state)
{
    (void)state;
    int fd = run("web", STATE(PROTECTED));
    glue_expect(ask_stop("web", 0), true, "");
    glue_skip(fd, BODY(STOP));
    glue_expect(ask_power("web", 0), true, "");
    glue_skip(fd, BODY(POWER));
    end(fd, "web");
}

static void test_a_wait_that_is_over_is_a_sentence(void **state)
{
    (void)state;
    int fd = run("web", STATE(PROTECTED));
    glue_expect(ask_power("web", 50), false, "VM web is still here after 0 s");
    glue_skip(fd, BODY(POWER));
    glue_expect(ask_stop("web", 86400001), false, "a wait of 86400001 ms");
    glue_expect(ask_power("web", UINT32_MAX), false, "give a number from 0 to 86400000");
    assert_true(glue_is_silent(fd));
    int client = ask_power("web", 60000);
    glue_skip(fd, BODY(POWER));
    close(fd); /* the replicator dies */
    glue_expect(client, true, "replicator-died");
    glue_expect(ask_stop("web", 60000), true, "");
}

/* More of them than the daemon serves at a time: `timeout 5 understudy shutdown --timeout-s 86400`. */
static void test_clients_that_vanish_while_they_wait_keep_nobody_out(void **state)
{
    (void)state;
    int fd = run("web", STATE(PROTECTED));
    for (int i = 0; i < 70; i++) {
        int client = ask_power("web", 86400000);
        glue_skip(fd, BODY(POWER));
        close(client);
        glue_until(none_is_served, NULL, "the request's thread ends");
    }
    int stays = ask_power("web", 86400000);
    glue_skip(fd, BODY(POWER));
    end(fd, "web");
    glue_expect(stays, true, "stopped");
}

static void test_a_failover_is_ordered_where_it_makes_sense(void **state)
{
    (void)state;
    int fd = run("web", STATE(CONNECTING));
    glue_expect(ask_failover("web", false, false), false, "a planned failover starts on the host");
    glue_expect(ask_failover("web", true, false), false, "a forced failover is ordered on the host");
    glue_say_status(fd, PRIMARY, STATE(PROTECTED));
    glue_await_state("web", STATE(PROTECTED));
    for (int unchecked = 0; unchecked < 2; unchecked++) {
        glue_expect(ask_failover("web", false, unchecked), true, "");
        Understudy__Envelope *order = glue_hear_a(fd, BODY(FAILOVER));
        assert_false(order->failover->force);
        understudy__envelope__free_unpacked(order, NULL);
    }
    glue_expect(ask_failover("nobody", false, false), false, "there is no VM nobody");
    end(fd, "web");
}

/* Another VM's network is no reason, and a VM without a standby cannot move anyway. */
static void test_a_move_is_refused_for_the_network_of_that_vm_alone(void **state)
{
    (void)state;
    int web = run("web", STATE(PROTECTED)), db = run("db", STATE(PROTECTED));
    network.unfit_vm = "web";
    glue_expect(ask_failover("web", false, false), false,
                "VM web stays here: the other host has no bridge br0; or move it nevertheless");
    assert_string_equal(network.host, glue_config.listen_address);
    assert_int_equal(network.port, glue_peer_port());
    assert_true(glue_is_silent(web));
    glue_expect(ask_failover("db", false, false), true, "");
    glue_skip(db, BODY(FAILOVER));
    glue_expect(ask_failover("web", false, true), true, "");
    glue_skip(web, BODY(FAILOVER));
    glue_say_status(web, PRIMARY, STATE(PEER_LOST));
    glue_await_state("web", STATE(PEER_LOST));
    glue_expect(ask_failover("web", false, false), false, "a planned failover starts on the host");
    network.unfit_vm = NULL;
    end(db, "db");
    end(web, "web");
}

/* ---- status, events, host, pair ---- */

static void test_status_shows_what_is_asked_for(void **state)
{
    (void)state;
    int web = run("web", STATE(PROTECTED)), db = stand_by("db", 2, STATE(STANDBY));
    Understudy__Envelope *answer = ask_status("", false, true);
    assert_int_equal(answer->status_list->n_vms, 2);
    assert_int_equal(answer->status_list->n_endings, 0);
    assert_false(answer->status_list->drained);
    understudy__envelope__free_unpacked(answer, NULL);
    answer = ask_status("db", true, false);
    assert_int_equal(answer->status_list->n_vms, 1);
    assert_string_equal(answer->status_list->vms[0]->vm, "db");
    understudy__envelope__free_unpacked(answer, NULL);
    glue_skip(db, BODY(RESET_FIGURES));
    assert_true(glue_is_silent(web));
    end(db, "db");
    end(web, "web");
    answer = ask_status("web", false, true);
    assert_int_equal(answer->status_list->n_vms, 0);
    assert_int_equal(answer->status_list->n_endings, 1);
    assert_string_equal(answer->status_list->endings[0]->vm, "web");
    understudy__envelope__free_unpacked(answer, NULL);
    answer = ask_status("", false, false);
    assert_int_equal(answer->status_list->n_endings, 0);
    understudy__envelope__free_unpacked(answer, NULL);
}

static Understudy__Envelope *next_events(int fd, size_t *n)
{
    Understudy__Envelope *answer = glue_hear_a(fd, BODY(EVENT_LIST));
    *n += answer->event_list->n_events;
    return answer;
}

/* A thread of its own writes the journal. */
static bool are_written(void *opaque)
{
    const guint *n = opaque;
    g_autoptr(GPtrArray) all = events_read("", 0);
    return all->len == *n;
}

static void test_events_come_in_as_many_messages_as_they_take(void **state)
{
    Understudy__EventsRequest body = UNDERSTUDY__EVENTS_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(EVENTS_REQUEST, events_request, &body);
    (void)state;
    Understudy__Envelope *answer = glue_answer_of(glue_ask(&request)); /* there is no journal */
    assert_int_equal(answer->body_case, BODY(EVENT_LIST));
    assert_int_equal(answer->event_list->n_events, 0);
    assert_false(answer->event_list->more);
    understudy__envelope__free_unpacked(answer, NULL);

    g_autofree char *words = g_strnfill(2000, 'x');
    events_open(glue_config.state_dir, NULL);
    for (int i = 0; i < 300; i++)
        events_emit(EVENT_GUEST, i % 2 ? "web" : "db", NULL, "%s", words);
    glue_until(are_written, (guint[]){300}, "all events are in the journal");
    size_t n = 0;
    unsigned messages = 0;
    bool more = true;
    int fd = glue_ask(&request);
    while (more) {
        answer = next_events(fd, &n);
        more = answer->event_list->more;
        messages++;
        understudy__envelope__free_unpacked(answer, NULL);
    }
    close(fd);
    assert_int_equal(n, 300);
    assert_true(messages > 1);
    body.vm = (char *)"web";
    n = 0;
    fd = glue_ask(&request);
    for (more = true; more;) {
        answer = next_events(fd, &n);
        more = answer->event_list->more;
        understudy__envelope__free_unpacked(answer, NULL);
    }
    close(fd);
    assert_int_equal(n, 150);
    events_close();
}

static void test_a_host_says_what_it_is_to_both(void **state)
{
    Understudy__HostRequest body = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &body);
    (void)state;
    for (int peer = 0; peer < 2; peer++) {
        Understudy__Envelope *answer = glue_answer_of(peer ? glue_ask_as_peer(&request) : glue_ask(&request));
        assert_int_equal(answer->body_case, BODY(HOST));
        assert_string_equal(answer->host->version, UNDERSTUDY_VERSION);
        assert_int_equal(answer->host->wire_version, WIRE_VERSION);
        assert_int_equal(answer->host->instance.len, PEER_INSTANCE_LEN);
        assert_memory_equal(answer->host->instance.data, peer_own_instance(), PEER_INSTANCE_LEN);
        assert_true(answer->host->memory_available_mib > 0);
        assert_non_null(strstr(answer->host->cpu_model, "(features "));
        assert_true(answer->host->n_disk + answer->host->n_disk_faults >= 3);
        understudy__envelope__free_unpacked(answer, NULL);
    }
}

/* A host that is busy starts a program late, and its peer must not take it for one that does not answer. */
static void test_a_brief_answer_starts_no_program(void **state)
{
    Understudy__HostRequest body = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &body);
    (void)state;
    body.brief = true;
    Understudy__Envelope *answer = glue_answer_of(glue_ask_as_peer(&request));
    assert_int_equal(answer->body_case, BODY(HOST));
    assert_string_equal(answer->host->version, UNDERSTUDY_VERSION);
    assert_int_equal(answer->host->wire_version, WIRE_VERSION);
    assert_memory_equal(answer->host->instance.data, peer_own_instance(), PEER_INSTANCE_LEN);
    assert_string_equal(answer->host->qemu_version, "");
    assert_int_equal(answer->host->n_disk + answer->host->n_disk_faults, 0);
    understudy__envelope__free_unpacked(answer, NULL);
}

/* How many findings of the pair of this host and the peer name the VM. */
static unsigned findings_of(const char *vm, const char *peer)
{
    Understudy__PairRequest body = UNDERSTUDY__PAIR_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PAIR_REQUEST, pair_request, &body);
    body.peer = (char *)peer;
    g_autofree char *suffix = g_strconcat(" of ", vm, NULL);
    Understudy__Envelope *answer = glue_answer_of(glue_ask(&request));
    assert_int_equal(answer->body_case, BODY(FINDINGS));
    unsigned n = 0;
    for (size_t i = 0; i < answer->findings->n_findings; i++)
        n += g_str_has_suffix(answer->findings->findings[i]->what, suffix);
    understudy__envelope__free_unpacked(answer, NULL);
    return n;
}

static void test_what_a_pair_lacks_is_told_of_the_vms_with_that_peer(void **state)
{
    Understudy__PairRequest body = UNDERSTUDY__PAIR_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PAIR_REQUEST, pair_request, &body);
    (void)state;
    int web = run("web", STATE(PROTECTED)), db = stand_by("db", 2, STATE(STANDBY));
    body.peer = (char *)"[";
    glue_expect(glue_ask(&request), false, "is not HOST or HOST:PORT");
    assert_int_equal(findings_of("web", glue_peer()), 1); /* its files */
    assert_int_equal(findings_of("db", glue_peer()), 0);  /* it runs there */
    g_autofree char *other = g_strdup_printf("127.0.0.9:%u", glue_peer_port());
    assert_int_equal(findings_of("web", other), 0);
    glue_say_status(web, PRIMARY, STATE(PEER_LOST)); /* it has no standby that could lack anything */
    glue_await_state("web", STATE(PEER_LOST));
    assert_int_equal(findings_of("web", glue_peer()), 0);
    end(web, "web");
    end(db, "db");
}

/* ---- drain ---- */

static void test_a_drained_host_hands_over_what_it_can_and_takes_nothing(void **state)
{
    (void)state;
    int web = run("web", STATE(CONNECTING)), db = stand_by("db", 2, STATE(STANDBY));
    glue_expect(ask_drain(false), true, "");
    assert_true(glue_exists("drained"));
    glue_skip(db, BODY(STOP));
    assert_true(glue_is_silent(web)); /* nobody could take it */
    glue_say_status(web, PRIMARY, STATE(PROTECTED));
    Understudy__Envelope *order = glue_hear_a(web, BODY(FAILOVER));
    assert_false(order->failover->force);
    understudy__envelope__free_unpacked(order, NULL);
    glue_expect(ask_drain(false), true, ""); /* again */
    glue_expect(ask_run("new", glue_peer()), false, "understudy undrain");
    glue_expect(ask_prepare(glue_prepare(glue_protection("new", 3))), false, "it stands by for no VM");
    Understudy__Envelope *answer = ask_status("", false, false);
    assert_true(answer->status_list->drained);
    understudy__envelope__free_unpacked(answer, NULL);
    assert_true(glue_is_silent(web) && glue_is_silent(db)); /* each is asked once, and not at each step */
    glue_expect(ask_drain(true), true, "");
    assert_false(glue_exists("drained"));
    glue_expect(ask_drain(true), true, "");
    int new = stand_by("new", 3, STATE(LISTENING));
    assert_true(glue_is_silent(new));
    end(new, "new");
    end(web, "web");
    end(db, "db");
}

static void test_a_drain_that_cannot_be_remembered_is_refused(void **state)
{
    (void)state;
    g_autofree char *path = glue_path("drained"), *inside = glue_path("drained/file");
    assert_int_equal(g_mkdir(path, 0700), 0);
    glue_write("drained/file", "words");
    glue_expect(ask_drain(false), false, "cannot be remembered");
    assert_false(drain_is_on());
    glue_expect(ask_drain(true), false, "cannot be removed");
    g_unlink(inside);
    g_rmdir(path);
}

/* ---- what is not a request ---- */

static void test_each_socket_serves_its_own_requests(void **state)
{
    Understudy__StopRequest stop = UNDERSTUDY__STOP_REQUEST__INIT;
    Understudy__StatusRequest status = UNDERSTUDY__STATUS_REQUEST__INIT;
    Understudy__DrainRequest drain = UNDERSTUDY__DRAIN_REQUEST__INIT;
    Understudy__FailoverRequest failover = UNDERSTUDY__FAILOVER_REQUEST__INIT;
    Understudy__RunRequest run_request = UNDERSTUDY__RUN_REQUEST__INIT;
    Understudy__PowerRequest power = UNDERSTUDY__POWER_REQUEST__INIT;
    Understudy__EventsRequest events = UNDERSTUDY__EVENTS_REQUEST__INIT;
    Understudy__PairRequest pair = UNDERSTUDY__PAIR_REQUEST__INIT;
    Understudy__CancelStandby cancel = UNDERSTUDY__CANCEL_STANDBY__INIT;
    Understudy__Answer answer = UNDERSTUDY__ANSWER__INIT;
    Understudy__Start start = UNDERSTUDY__START__INIT;
    const Understudy__Envelope not_for_peers[] = {
        UNDERSTUDY_ENVELOPE(STOP_REQUEST, stop_request, &stop),
        UNDERSTUDY_ENVELOPE(STATUS_REQUEST, status_request, &status),
        UNDERSTUDY_ENVELOPE(DRAIN_REQUEST, drain_request, &drain),
        UNDERSTUDY_ENVELOPE(FAILOVER_REQUEST, failover_request, &failover),
        UNDERSTUDY_ENVELOPE(RUN_REQUEST, run_request, &run_request),
        UNDERSTUDY_ENVELOPE(POWER_REQUEST, power_request, &power),
        UNDERSTUDY_ENVELOPE(EVENTS_REQUEST, events_request, &events),
        UNDERSTUDY_ENVELOPE(PAIR_REQUEST, pair_request, &pair),
        UNDERSTUDY_ENVELOPE(ANSWER, answer, &answer),
        UNDERSTUDY_ENVELOPE(START, start, &start),
    };
    const Understudy__Envelope not_for_commands[] = {
        UNDERSTUDY_ENVELOPE(CANCEL_STANDBY, cancel_standby, &cancel),
        UNDERSTUDY_ENVELOPE(PREPARE_STANDBY, prepare_standby, glue_prepare(glue_protection("web", 1))),
        UNDERSTUDY_ENVELOPE(ANSWER, answer, &answer),
        UNDERSTUDY_ENVELOPE(START, start, &start),
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(not_for_peers); i++)
        glue_expect(glue_ask_as_peer(&not_for_peers[i]), false, "not for peers");
    assert_false(drain_is_on());
    for (size_t i = 0; i < G_N_ELEMENTS(not_for_commands); i++)
        glue_expect(glue_ask(&not_for_commands[i]), false, "does not know the request");
}

/* ---- trust ---- */

static int ask_trust(Understudy__TrustAction action, const char *name, const char *key, const char *may)
{
    Understudy__TrustRequest trust = UNDERSTUDY__TRUST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(TRUST_REQUEST, trust_request, &trust);
    trust.action = action;
    trust.name = (char *)name;
    trust.key = (char *)key;
    trust.may = (char *)may;
    return glue_ask(&request);
}

#define TRUST(x) UNDERSTUDY__TRUST_ACTION__TRUST_##x

/* The list, as one text. GLib string. */
static char *trust_list(void)
{
    GString *text = g_string_new(NULL);
    Understudy__Envelope *answer = glue_answer_of(ask_trust(TRUST(LIST), "", "", ""));
    assert_int_equal(answer->body_case, BODY(TRUST_LIST));
    for (size_t i = 0; i < answer->trust_list->n_hosts; i++) {
        const Understudy__TrustedHost *host = answer->trust_list->hosts[i];
        g_string_append_printf(text, "%s %s %s;", host->name, host->key, host->may);
    }
    understudy__envelope__free_unpacked(answer, NULL);
    return g_string_free(text, FALSE);
}

static void test_commands_show_the_key_and_change_the_list(void **state)
{
    Understudy__KeyRequest body = UNDERSTUDY__KEY_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(KEY_REQUEST, key_request, &body);
    g_autofree char *own = key_text(trust_own_key(glue_config.trust)), *key = key_text(plain_door_key);
    (void)state;
    glue_expect(glue_ask(&request), true, own);
    glue_expect(ask_trust(TRUST(ADD), "b", own, ""), false, "the key of this host itself");
    glue_expect(ask_trust(TRUST(ADD), "b", "nonsense", ""), false, "is not a key");
    glue_expect(ask_trust(TRUST(ADD), "-b", key, ""), false, "is no name for a host");
    glue_expect(ask_trust(TRUST(ADD), "b", key, "captain"), false, "is not a role");
    glue_expect(ask_trust(TRUST(ADD), "b", key, ""), true, "");
    g_autofree char *list = trust_list(), *wanted = g_strdup_printf("b %s standby,primary;", key);
    assert_string_equal(list, wanted);
    glue_expect(ask_trust(TRUST(REMOVE), "c", "", ""), false, "no host c is trusted");
    glue_expect(ask_trust(TRUST(REMOVE), "b", "", ""), true, "");
    g_autofree char *empty = trust_list();
    assert_string_equal(empty, "");
}

/* Its standby of a VM that runs here is told to stop while it can still be told; then its VMs' standbys here.
 */
/* agrees: to stop its standby. */
static void remove_a_host(bool agrees)
{
    g_autofree char *key = key_text(plain_door_key);
    Understudy__Envelope *cancel;
    glue_expect(ask_trust(TRUST(ADD), "b", key, ""), true, "");
    int web = run("web", STATE(PROTECTED)), db = stand_by("db", 2, STATE(STANDBY));
    int client = ask_trust(TRUST(REMOVE), "b", "", "");
    int call = glue_peer_expect(BODY(CANCEL_STANDBY), &cancel);
    assert_string_equal(cancel->cancel_standby->vm, "web");
    assert_true(cancel->cancel_standby->in_use);
    assert_int_equal(cancel->cancel_standby->token.len, 16);
    g_autofree char *still = trust_list();
    assert_non_null(strstr(still, key));
    assert_true(glue_is_silent(db));
    glue_answer(call, agrees, "");
    close(call);
    glue_expect(client, true, "");
    glue_skip(db, BODY(STOP));
    Understudy__Envelope *drop = glue_hear_a(web, BODY(DROP_PEER));
    assert_int_equal(drop->drop_peer->told, agrees);
    understudy__envelope__free_unpacked(drop, NULL);
    g_autofree char *list = trust_list();
    assert_string_equal(list, "");
    understudy__envelope__free_unpacked(cancel, NULL);
    end(web, "web");
    end(db, "db");
}

static void test_a_host_that_is_removed_stands_by_no_longer(void **state)
{
    (void)state;
    remove_a_host(true);
}

static void test_a_host_that_is_removed_and_refuses_to_stop_loses_its_link(void **state)
{
    (void)state;
    remove_a_host(false);
}

static void test_a_standby_in_use_is_given_up_by_its_own_primary_alone(void **state)
{
    Understudy__CancelStandby cancel = UNDERSTUDY__CANCEL_STANDBY__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(CANCEL_STANDBY, cancel_standby, &cancel);
    uint8_t token[16];
    (void)state;
    int db = stand_by("db", 2, STATE(STANDBY));
    cancel.vm = (char *)"db";
    cancel.token.data = token;
    cancel.token.len = sizeof token;
    for (int right = 0; right < 2; right++) {
        memset(token, right ? 2 : 3, sizeof token);
        for (int in_use = 0; in_use < 2; in_use++) {
            cancel.in_use = in_use;
            glue_expect(glue_ask_as_peer(&request), true, "");
            if (right && in_use)
                glue_skip(db, BODY(STOP));
            else
                assert_true(glue_is_silent(db));
        }
    }
    end(db, "db");
}

static void test_facts_of_another_host_are_for_commands_alone(void **state)
{
    Understudy__HostRequest body = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &body);
    (void)state;
    body.peer = (char *)glue_peer();
    int client = glue_ask(&request);
    glue_peer_says_what_it_is(false);
    glue_skip(client, BODY(HOST));
    close(client);
    glue_expect(glue_ask_as_peer(&request), false, "this is not HOST");
    assert_true(glue_peer_is_silent());
}

/* Somebody who has no code is not paired, also if the door knows the key. */
static void test_a_peer_without_a_code_is_not_paired(void **state)
{
    Understudy__PairJoin join = UNDERSTUDY__PAIR_JOIN__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PAIR_JOIN, pair_join, &join);
    (void)state;
    join.name = (char *)"b";
    glue_expect(glue_ask_as_peer(&request), false, "");
    g_autofree char *list = trust_list();
    assert_string_equal(list, "");
}

static void test_what_is_no_message_ends_the_connection_and_nothing_else(void **state)
{
    static const uint8_t bytes[][8] = {
        {0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, {0, 0, 0, 0, 0, 0, 0, 0}, {4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}};
    (void)state;
    for (size_t i = 0; i < 2 * G_N_ELEMENTS(bytes); i++) {
        int fd = i % 2 ? glue_connect() : glue_connect_as_peer();
        assert_int_equal(send(fd, bytes[i / 2], sizeof bytes[0], MSG_NOSIGNAL), sizeof bytes[0]);
        assert_true(glue_has_closed(fd));
        close(fd);
    }
    /* One that goes in the middle of its request, and one that closes at once. */
    for (size_t i = 0; i < 2; i++) {
        int fd = i % 2 ? glue_connect() : glue_connect_as_peer();
        assert_int_equal(send(fd, bytes[2], 3, MSG_NOSIGNAL), 3);
        close(fd);
        close(i % 2 ? glue_connect() : glue_connect_as_peer());
    }
    glue_expect(ask_stop("nobody", 0), false, "there is no VM nobody");
}

/* ---- threads ---- */

/* Also where the main loop does not run, as at the daemon's end: the main thread frees the VMs there. */
static void test_what_concerns_vms_is_done_by_the_main_thread_alone(void **state)
{
    (void)state;
    g_atomic_int_set(&nrequests, 0);
    g_atomic_int_set(&hold_requests, 1);
    int client = ask_stop("nobody", 0);
    glue_until(has_come, &nrequests, "the request is being served");
    g_atomic_int_set(&hold_requests, 0);
    struct pollfd answered = {.fd = client, .events = POLLIN};
    while (poll(&answered, 1, 0) == 0 && !g_main_context_pending(NULL))
        g_usleep(500);
    assert_int_equal(poll(&answered, 1, 0), 0);
    glue_expect(client, false, "there is no VM nobody");
}

/* ---- the sockets ---- */

static bool start_server(const char *says)
{
    g_autoptr(GError) error = NULL;
    bool ok = server_start(&glue_config, &error);
    if (!ok && !strstr(error->message, says))
        fail_msg("%s; wanted %s", error->message, says);
    return ok;
}

static void test_a_daemon_that_runs_already_is_not_replaced(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = glue_path("control.sock");
    int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(other, 0), 0);
    assert_false(start_server("another understudyd already serves"));
    close(accept(other, NULL, NULL));
    /* It stands still, and its queue is full: who waited for it would wait as long. */
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    assert_false(start_server("another understudyd already serves"));
    close(client);
    close(other);
    assert_true(start_server("")); /* what is left of it is only a file */
    assert_true(glue_exists("control.sock"));
    server_stop();
    assert_false(glue_exists("control.sock"));
}

static void test_a_socket_that_cannot_be_made_is_a_sentence(void **state)
{
    char *good = glue_config.run_dir;
    g_autofree char *name = g_strnfill(100, 'x'), *longer = glue_path(name), *missing = glue_path("nowhere");
    (void)state;
    glue_config.run_dir = longer;
    bool too_long = start_server("--run-dir");
    glue_config.run_dir = missing;
    bool nowhere = start_server("cannot be made: No such file");
    glue_config.run_dir = good;
    assert_false(too_long || nowhere);
}

#define SERVED(test)   cmocka_unit_test_setup_teardown(test, glue_open, glue_close)
#define UNSERVED(test) cmocka_unit_test_setup_teardown(test, glue_open_vms, glue_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVED(test_run_starts_both_hosts_in_turn),
        SERVED(test_run_is_refused_before_anybody_is_asked),
        SERVED(test_a_peer_that_fails_at_any_step_is_a_sentence_and_frees_the_name),
        SERVED(test_a_peer_that_is_not_there_is_named),
        SERVED(test_a_primary_that_cannot_be_started_calls_its_standby_off),
        SERVED(test_of_two_runs_of_one_name_the_first_wins),
        SERVED(test_a_peer_that_is_slow_for_one_vm_holds_up_no_other),
        SERVED(test_a_client_that_vanishes_does_not_stop_what_it_began),
        SERVED(test_a_standby_is_started_for_a_peer),
        SERVED(test_a_standby_that_waits_is_named_with_the_secret_that_it_has),
        SERVED(test_an_unfit_wish_for_a_standby_is_refused),
        SERVED(test_a_port_of_the_primary_that_is_none_is_not_called),
        SERVED(test_a_standby_that_fails_at_its_start_is_a_sentence_for_the_peer),
        SERVED(test_a_standby_that_waits_is_not_started_twice),
        SERVED(test_of_two_wishes_at_once_one_prepares_the_disks_and_both_get_the_standby),
        SERVED(test_a_vm_that_is_being_started_here_gets_no_standby_here),
        SERVED(test_a_standby_is_called_off_by_its_own_run),
        SERVED(test_stop_waits_until_the_vm_is_gone_and_says_how_it_ended),
        SERVED(test_an_order_without_a_wait_is_answered_at_once),
        SERVED(test_a_wait_that_is_over_is_a_sentence),
        SERVED(test_clients_that_vanish_while_they_wait_keep_nobody_out),
        SERVED(test_a_failover_is_ordered_where_it_makes_sense),
        SERVED(test_a_move_is_refused_for_the_network_of_that_vm_alone),
        SERVED(test_status_shows_what_is_asked_for),
        SERVED(test_events_come_in_as_many_messages_as_they_take),
        SERVED(test_a_host_says_what_it_is_to_both),
        SERVED(test_a_brief_answer_starts_no_program),
        SERVED(test_what_a_pair_lacks_is_told_of_the_vms_with_that_peer),
        SERVED(test_a_drained_host_hands_over_what_it_can_and_takes_nothing),
        SERVED(test_a_drain_that_cannot_be_remembered_is_refused),
        SERVED(test_each_socket_serves_its_own_requests),
        SERVED(test_commands_show_the_key_and_change_the_list),
        SERVED(test_a_host_that_is_removed_stands_by_no_longer),
        SERVED(test_a_host_that_is_removed_and_refuses_to_stop_loses_its_link),
        SERVED(test_a_standby_in_use_is_given_up_by_its_own_primary_alone),
        SERVED(test_facts_of_another_host_are_for_commands_alone),
        SERVED(test_a_peer_without_a_code_is_not_paired),
        SERVED(test_what_is_no_message_ends_the_connection_and_nothing_else),
        SERVED(test_what_concerns_vms_is_done_by_the_main_thread_alone),
        UNSERVED(test_a_daemon_that_runs_already_is_not_replaced),
        UNSERVED(test_a_socket_that_cannot_be_made_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, glue_group_set_up, glue_group_tear_down);
}
