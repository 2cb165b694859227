/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM that runs alone here: the peer is asked for a standby, and may refuse, go away, or answer when the VM
 * is another one, or none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/events.h"
#include "proto/term.h"
#include "tests/daemon/glue.h"

#define PRIMARY  UNDERSTUDY__ROLE__ROLE_PRIMARY
#define STATE(x) UNDERSTUDY__STATE__STATE_##x
#define BODY(x)  UNDERSTUDY__ENVELOPE__BODY_##x

/* It runs here, and its peer is the test's. Its replicator. */
static int start(const char *vm, uint16_t peer_port)
{
    const struct peer_standby standby = {.at.address = (char *)"192.0.2.7", .data_port = 1, .udp_port = 1};
    assert_true(vm_reserve(vm, NULL));
    assert_true(vm_start(PRIMARY, glue_protection(vm, 1), glue_config.listen_address, peer_port, NULL,
                         &standby, NULL, NULL, NULL));
    int fd = glue_replicator();
    glue_skip(fd, BODY(START));
    return fd;
}

static int start_alone(const char *vm)
{
    int fd = start(vm, glue_peer_port());
    glue_say_status(fd, PRIMARY, STATE(PEER_LOST));
    glue_await_state(vm, STATE(PEER_LOST));
    return fd;
}

static char *unprotected_why(const char *vm)
{
    Understudy__Status *status = glue_status(vm);
    char *why = g_strdup(status ? status->unprotected_why : "");
    if (status)
        understudy__status__free_unpacked(status, NULL);
    return why;
}

struct shown {
    int fd;
    const char *why;
};

/* The reason is shown with the replicator's next report. */
static bool is_shown(void *opaque)
{
    const struct shown *shown = opaque;
    glue_say_status(shown->fd, PRIMARY, STATE(PEER_LOST));
    glue_settle();
    g_autofree char *why = unprotected_why("web");
    return strstr(why, shown->why) != NULL;
}

static void end(int fd)
{
    close(fd);
    glue_await_state("web", STATE(FAILED));
}

static void test_the_peer_is_asked_with_the_present_term_and_the_replicator_is_told(void **state)
{
    Understudy__Status said = UNDERSTUDY__STATUS__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &said), *message;
    (void)state;
    int fd = start("web", glue_peer_port());
    said.role = PRIMARY;
    said.state = STATE(PEER_LOST);
    said.term = TERM_FIRST + 5;
    glue_say(fd, &envelope);
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), &message);
    assert_string_equal(message->prepare_standby->protection->vm, "web");
    assert_int_equal(message->prepare_standby->protection->term, TERM_FIRST + 5);
    assert_int_equal(message->prepare_standby->protection->token.data[0], 1);
    understudy__envelope__free_unpacked(message, NULL);
    glue_say_prepared(call);
    close(call);
    message = glue_hear_a(fd, BODY(PEER_MOVED));
    assert_string_equal(message->peer_moved->host, glue_config.listen_address);
    assert_int_equal(message->peer_moved->data_port, GLUE_DATA_PORT);
    assert_int_equal(message->peer_moved->udp_port, GLUE_UDP_PORT);
    understudy__envelope__free_unpacked(message, NULL);
    end(fd);
}

/* The one that the peer answers with is used: its standby may be one of an earlier request. */
static void test_each_standby_has_a_secret_of_its_own(void **state)
{
    Understudy__Envelope *message;
    uint8_t secrets[2][SEAL_SECRET_LEN];
    (void)state;
    int fd = start_alone("web");
    struct shown shown = {fd, "no room"};
    for (unsigned i = 0; i < 2; i++) {
        glue_peer_is_well();
        int call = glue_peer_expect(BODY(PREPARE_STANDBY), &message);
        const ProtobufCBinaryData *secret = &message->prepare_standby->protection->secret;
        assert_int_equal(secret->len, SEAL_SECRET_LEN);
        assert_memory_not_equal(secret->data, glue_protection("web", 1)->secret.data, SEAL_SECRET_LEN);
        memcpy(secrets[i], secret->data, SEAL_SECRET_LEN);
        understudy__envelope__free_unpacked(message, NULL);
        if (i == 0)
            glue_answer(call, false, "no room");
        else
            glue_say_prepared(call);
        close(call);
        if (i == 0)
            glue_until(is_shown, &shown, "the refusal is shown");
    }
    assert_memory_not_equal(secrets[0], secrets[1], SEAL_SECRET_LEN);
    message = glue_hear_a(fd, BODY(PEER_MOVED));
    assert_int_equal(message->peer_moved->secret.len, SEAL_SECRET_LEN);
    assert_memory_equal(message->peer_moved->secret.data, glue_standbys_secret, SEAL_SECRET_LEN);
    understudy__envelope__free_unpacked(message, NULL);
    end(fd);
}

static unsigned refusals(void)
{
    g_autoptr(GPtrArray) all = events_read("web", 0);
    unsigned n = 0;
    for (guint i = 0; i < all->len; i++)
        n += strstr(((Understudy__Event *)g_ptr_array_index(all, i))->message, "MiB") != NULL;
    return n;
}

static void test_a_refusal_is_shown_told_once_and_asked_again(void **state)
{
    static const char *const words[] = {"there are 10 MiB free", "there are 9 MiB free", "no room, 9 MiB"};
    (void)state;
    events_open(glue_config.state_dir, NULL);
    int fd = start_alone("web");
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        struct shown shown = {fd, words[i]};
        glue_peer_is_well();
        int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
        glue_answer(call, false, words[i]);
        close(call);
        glue_until(is_shown, &shown, "the refusal is shown");
        assert_int_equal(refusals(), i == 2 ? 2 : 1); /* other figures are no other reason */
    }
    glue_say_status(fd, PRIMARY, STATE(PROTECTED));
    glue_await_state("web", STATE(PROTECTED));
    g_autofree char *why = unprotected_why("web");
    assert_string_equal(why, "");
    events_close();
    end(fd);
}

static void test_a_peer_that_goes_away_in_the_middle_is_asked_again(void **state)
{
    struct shown shown = {.why = "closed the connection"};
    (void)state;
    int fd = shown.fd = start_alone("web");
    glue_peer_is_well();
    close(glue_peer_expect(BODY(PREPARE_STANDBY), NULL));
    glue_until(is_shown, &shown, "it is shown");
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    glue_say_prepared(call);
    close(call);
    glue_skip(fd, BODY(PEER_MOVED));
    end(fd);
}

static void test_ports_that_are_none_are_not_passed_on(void **state)
{
    Understudy__Prepared body = UNDERSTUDY__PREPARED__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PREPARED, prepared, &body);
    struct shown shown = {.why = "names no ports"};
    (void)state;
    int fd = shown.fd = start_alone("web");
    glue_peer_is_well();
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    body.data_port = 65536; /* it would be 0 */
    body.udp_port = GLUE_UDP_PORT;
    glue_say(call, &envelope);
    close(call);
    glue_until(is_shown, &shown, "it is shown");
    assert_true(glue_is_silent(fd));
    end(fd);
}

/* An answer that comes when nobody waits for it: the VM is gone, failed, or another one has its name. */
static void test_an_answer_that_comes_too_late_is_nobody_s(void **state)
{
    (void)state;
    int fd = start_alone("web"), call;
    glue_peer_is_well();
    call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    glue_say_ended(fd, "guest-shutdown", "");
    close(fd);
    glue_await_gone("web");
    fd = start("web", glue_peer_port()); /* another one, which waits for its own standby */
    glue_say_prepared(call);
    close(call);
    glue_say_status(fd, PRIMARY, STATE(PEER_LOST));
    glue_peer_is_well();
    call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    assert_true(glue_is_silent(fd));
    end(fd); /* its replicator dies while the peer thinks */
    glue_say_prepared(call);
    close(call);
    fd = start_alone("web");
    glue_peer_is_well();
    call = glue_peer_expect(BODY(PREPARE_STANDBY), NULL);
    assert_true(glue_is_silent(fd));
    struct shown shown = {fd, "there is no room"};
    glue_answer(call, false, "there is no room");
    close(call);
    glue_until(is_shown, &shown, "its own answer is shown");
    end(fd);
}

static gboolean set(gpointer flag)
{
    *(bool *)flag = true;
    return G_SOURCE_REMOVE;
}

static bool is_set(void *flag)
{
    return *(bool *)flag;
}

/* A VM that is protected, one without a peer's daemon, and one whose peer thinks. */
static void test_the_peer_is_asked_only_where_that_helps_and_once_at_a_time(void **state)
{
    bool over = false;
    (void)state;
    int safe = start("safe", glue_peer_port()), alone = start("alone", 0), fd = start_alone("web");
    glue_say_status(safe, PRIMARY, STATE(PROTECTED));
    glue_say_status(alone, PRIMARY, STATE(PEER_LOST));
    glue_peer_is_well();
    Understudy__Envelope *request;
    int call = glue_peer_expect(BODY(PREPARE_STANDBY), &request);
    assert_string_equal(request->prepare_standby->protection->vm, "web");
    understudy__envelope__free_unpacked(request, NULL);
    g_timeout_add(3000, set, &over); /* longer than it takes to ask */
    glue_until(is_set, &over, "the time is over");
    glue_say_prepared(call);
    close(call);
    glue_skip(fd, BODY(PEER_MOVED)); /* and no other call came before: the next is a new one */
    assert_true(glue_is_silent(safe) && glue_is_silent(alone));
    assert_true(glue_peer_is_silent());
    close(safe);
    close(alone);
    end(fd);
    glue_await_state("safe", STATE(FAILED));
    glue_await_state("alone", STATE(FAILED));
}

#define WITH_VMS(test) cmocka_unit_test_setup_teardown(test, glue_open_vms, glue_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_VMS(test_the_peer_is_asked_with_the_present_term_and_the_replicator_is_told),
        WITH_VMS(test_each_standby_has_a_secret_of_its_own),
        WITH_VMS(test_a_refusal_is_shown_told_once_and_asked_again),
        WITH_VMS(test_a_peer_that_goes_away_in_the_middle_is_asked_again),
        WITH_VMS(test_ports_that_are_none_are_not_passed_on),
        WITH_VMS(test_an_answer_that_comes_too_late_is_nobody_s),
        WITH_VMS(test_the_peer_is_asked_only_where_that_helps_and_once_at_a_time),
    };
    return cmocka_run_group_tests(tests, glue_group_set_up, glue_group_tear_down);
}
