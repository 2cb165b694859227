/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two hosts at the door: strangers, trusted hosts with their roles, pairing by a code, a man in the middle,
 * and a host that is removed. One thread is the caller's host, the test's is the one that is called.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/trust/roles.h"
#include "daemon/trust/trust.h"
#include "proto/answer.h"
#include "proto/framing.h"
#include "tests/daemon/entries.h"
#include "tests/trust/folder.h"

#define WAIT_US   (20 * G_USEC_PER_SEC)
#define BODY(x)   UNDERSTUDY__ENVELOPE__BODY_##x
#define ANSWER_MS 10000

enum { A, B, M, NHOSTS }; /* M: in the middle, when there is somebody */

static char *dir;
static struct trust *hosts[NHOSTS];
static unsigned ndescriptors_before;

static int set_up(void **state)
{
    (void)state;
    ndescriptors_before = entries_of("/proc/self/fd");
    dir = folder_new();
    for (int i = 0; i < NHOSTS; i++) {
        g_autofree char *own = g_strdup_printf("%s/%d", dir, i);
        hosts[i] = trust_open(own, NULL);
        if (!hosts[i])
            return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < NHOSTS; i++)
        trust_free(hosts[i]);
    folder_free(dir);
    assert_int_equal(entries_of("/proc/self/fd"), ndescriptors_before);
    return 0;
}

static void let(int host, const char *name, int other, unsigned may)
{
    g_autoptr(GError) error = NULL;
    struct trusted one = {.may = may};
    g_strlcpy(one.name, name, sizeof one.name);
    memcpy(one.key, trust_own_key(hosts[other]), KEY_LEN);
    if (!store_add(trust_store(hosts[host]), &one, &error))
        fail_msg("%s", error->message);
}

static bool knows(int host, int other, struct trusted *found)
{
    return store_find_key(trust_store(hosts[host]), trust_own_key(hosts[other]), found);
}

/* ---- a call ---- */

/* Two ends of a TCP connection: what is in the way is still read after the other end has closed it. */
static void connect_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, sizeof address), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listener);
}

struct call {
    int caller, fd;
    const char *host, *code; /* code: to be paired by; NULL: an ordinary call */
    Understudy__Envelope__BodyCase request;
    bool ok;
    struct trusted kept;
    GError *error;
};

static gpointer run_call(gpointer opaque)
{
    struct call *call = opaque;
    struct trust *trust = hosts[call->caller];
    const struct door *door = trust_door(trust);
    gint64 until_us = g_get_monotonic_time() + WAIT_US;
    char code[CODE_LEN + 1];
    if (call->code) {
        call->ok = code_read(call->code, code) && trust_join(trust, call->fd, code, "joiner", MAY_USUAL,
                                                             until_us, &call->kept, &call->error);
        return NULL;
    }
    struct stream *stream = door->dial(door->opaque, call->fd, call->host, until_us, &call->error);
    Understudy__HostRequest body = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &body);
    if (stream && door->may_be_asked(door->opaque, stream, call->request, &call->error)) {
        Understudy__Envelope *answer = framing_call(stream, &request, ANSWER_MS, &call->error);
        call->ok = answer && answer->answer->ok;
        if (answer)
            understudy__envelope__free_unpacked(answer, NULL);
        else if (stream->why) {
            g_clear_error(&call->error);
            call->error = g_error_new_literal(g_quark_from_static_string("test"), 1, stream->why);
        }
    }
    stream_close(stream);
    return NULL;
}

static GThread *begin(struct call *call, int caller, int *fd)
{
    int fds[2];
    connect_pair(fds);
    call->caller = caller;
    call->fd = fds[0];
    if (!call->request)
        call->request = BODY(HOST_REQUEST);
    if (!call->host)
        call->host = "10.0.0.1";
    *fd = fds[1];
    return g_thread_new("call", run_call, call);
}

/* The called host's side of it: as the daemon, with the same order of checks. Why it was refused (GLib
 * string), or NULL. */
static char *serve(int host, int fd, struct trusted *kept)
{
    struct trust *trust = hosts[host];
    const struct door *door = trust_door(trust);
    g_autoptr(GError) error = NULL;
    struct stream *stream = door->accept(door->opaque, fd);
    int status = stream_handshake_until(stream, g_get_monotonic_time() + WAIT_US);
    if (status < 0) {
        char *why = g_strdup(stream->why ? stream->why : "cut");
        stream_close(stream);
        return why;
    }
    Understudy__Envelope *request = framing_read(stream, ANSWER_MS, &error);
    if (request && request->body_case == BODY(PAIR_JOIN)) {
        Understudy__PairWelcome welcome = UNDERSTUDY__PAIR_WELCOME__INIT;
        uint8_t proof[PAIRING_PROOF_LEN];
        if (trust_welcome(trust, stream, request->pair_join, "inviter", kept, proof, &error)) {
            welcome.name = (char *)"inviter";
            welcome.proof.data = proof;
            welcome.proof.len = sizeof proof;
            Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PAIR_WELCOME, pair_welcome, &welcome);
            assert_true(framing_write(stream, &envelope, ANSWER_MS, NULL));
        } else {
            answer_write(stream, false, error->message, ANSWER_MS);
        }
    } else if (request) {
        bool may = door->knows(door->opaque, stream) &&
                   door->may_ask(door->opaque, stream, request->body_case, &error);
        answer_write(stream, may, error ? error->message : "", ANSWER_MS);
    }
    if (request)
        understudy__envelope__free_unpacked(request, NULL);
    stream_close(stream);
    return error ? g_strdup(error->message) : NULL;
}

/* B calls A. What A says against it; call has what B says. */
static char *make_call(struct call *call)
{
    int fd;
    struct trusted kept;
    g_clear_error(&call->error);
    GThread *thread = begin(call, B, &fd);
    char *why = serve(A, fd, &kept);
    g_thread_join(thread);
    return why;
}

static void expect(const struct call *call, const char *why, const char *a_says, const char *b_says)
{
    const char *said = call->error ? call->error->message : "";
    if (call->ok || !why || !strstr(why, a_says) || !strstr(said, b_says))
        fail_msg("%d; A: %s, wanted %s; B: %s, wanted %s", call->ok, why ? why : "", a_says, said, b_says);
}

/* ---- who gets in ---- */

static void test_hosts_that_trust_each_other_talk(void **state)
{
    struct call call = {.request = 0};
    (void)state;
    let(A, "b", B, MAY_USUAL);
    let(B, "a", A, MAY_USUAL);
    g_autofree char *why = make_call(&call);
    assert_null(why);
    assert_true(call.ok);
}

static void test_a_stranger_is_told_so_and_the_key_is_named(void **state)
{
    struct call call = {.request = 0};
    g_autofree char *key = key_text(trust_own_key(hosts[B]));
    (void)state;
    let(B, "a", A, MAY_USUAL);
    g_autofree char *why = make_call(&call);
    expect(&call, why, key, "does not trust this host");
    g_clear_error(&call.error);
}

static void test_a_host_that_is_not_trusted_is_not_called(void **state)
{
    struct call call = {.request = 0};
    g_autofree char *key = key_text(trust_own_key(hosts[A]));
    (void)state;
    let(A, "b", B, MAY_USUAL);
    g_autofree char *why = make_call(&call);
    expect(&call, why, "does not trust this host", key);
    g_clear_error(&call.error);
}

static void test_a_host_that_calls_itself_is_told_so(void **state)
{
    struct call call = {.request = 0};
    struct trusted kept;
    int fd;
    (void)state;
    GThread *thread = begin(&call, A, &fd);
    g_autofree char *why = serve(A, fd, &kept);
    g_thread_join(thread);
    expect(&call, why, "", "is this host itself");
    g_clear_error(&call.error);
}

static void test_another_host_does_not_pass_for_the_one_that_was_named(void **state)
{
    struct call call = {.host = "c"};
    (void)state;
    let(A, "b", B, MAY_USUAL);
    let(B, "a", A, MAY_USUAL);
    let(B, "c", M, MAY_USUAL);
    g_autofree char *why = make_call(&call);
    assert_false(call.ok);
    assert_non_null(strstr(call.error->message, "is a, not c"));
    g_clear_error(&call.error);
    call.host = "a";
    g_free(g_steal_pointer(&why));
    why = make_call(&call);
    assert_true(call.ok);
}

static void test_a_role_is_checked_on_both_sides_and_now(void **state)
{
    struct call call = {.request = BODY(PREPARE_STANDBY)};
    (void)state;
    let(A, "b", B, MAY_WITNESS);
    let(B, "a", A, MAY_PRIMARY);
    g_autofree char *why = make_call(&call);
    assert_non_null(strstr(call.error->message, "needs the role standby"));
    g_clear_error(&call.error);
    let(B, "a", A, MAY_STANDBY);
    g_free(g_steal_pointer(&why));
    why = make_call(&call); /* asks for the host's facts in the end, which every role may */
    assert_true(call.ok);
}

/* The caller waits for an answer when it is removed. */
static void test_a_removed_host_s_sessions_end_at_once(void **state)
{
    struct call call = {.request = 0};
    const struct door *door = trust_door(hosts[A]);
    struct trusted gone;
    g_autoptr(GError) error = NULL;
    int fd;
    (void)state;
    let(A, "b", B, MAY_USUAL);
    let(A, "m", M, MAY_USUAL);
    let(B, "a", A, MAY_USUAL);
    GThread *thread = begin(&call, B, &fd);
    struct stream *stream = door->accept(door->opaque, fd);
    assert_int_equal(stream_handshake_until(stream, g_get_monotonic_time() + WAIT_US), 0);
    Understudy__Envelope *request = framing_read(stream, ANSWER_MS, NULL);
    assert_non_null(request);
    trust_end_sessions(hosts[A], trust_own_key(hosts[M])); /* another host's */
    assert_true(door->may_ask(door->opaque, stream, request->body_case, NULL));
    assert_int_equal(stream_read(stream, (char[1]){0}, 1), -EAGAIN);
    assert_true(store_remove(trust_store(hosts[A]), "b", &gone, NULL));
    trust_end_sessions(hosts[A], gone.key);
    g_thread_join(thread);
    assert_false(call.ok);
    assert_non_null(call.error);
    assert_null(strstr(call.error->message, "no answer within")); /* it did not wait for its time limit */
    assert_false(door->may_ask(door->opaque, stream, request->body_case, &error));
    assert_false(door->knows(door->opaque, stream));
    assert_true(stream_read(stream, (char[1]){0}, 1) <= 0);
    understudy__envelope__free_unpacked(request, NULL);
    stream_close(stream);
    g_clear_error(&call.error);
}

/* ---- pairing ---- */

static void invite(char code[CODE_TEXT_LEN + 1])
{
    assert_true(trust_invite(hosts[A], MAY_USUAL, code, NULL));
}

static void test_two_hosts_pair_by_a_code_and_then_talk(void **state)
{
    char code[CODE_TEXT_LEN + 1];
    struct trusted found;
    (void)state;
    invite(code);
    struct call join = {.code = code};
    g_autofree char *why = make_call(&join);
    assert_null(why);
    if (!join.ok)
        fail_msg("%s", join.error->message);
    assert_string_equal(join.kept.name, "inviter");
    assert_true(knows(A, B, &found));
    assert_string_equal(found.name, "joiner");
    assert_int_equal(found.may, MAY_USUAL);
    assert_true(knows(B, A, &found));
    struct call call = {.request = 0};
    g_free(g_steal_pointer(&why));
    why = make_call(&call);
    assert_true(call.ok);
    struct call again = {.code = code};
    g_free(g_steal_pointer(&why));
    why = make_call(&again);
    expect(&again, why, "the code is wrong, or it was used", "the code is wrong, or it was used");
    g_clear_error(&again.error);
}

static void test_a_used_code_lets_no_other_host_in(void **state)
{
    char code[CODE_TEXT_LEN + 1];
    struct trusted kept, found;
    struct call first = {.request = 0}, second = {.request = 0};
    int fd;
    (void)state;
    invite(code);
    first.code = second.code = code;
    g_autofree char *why = make_call(&first);
    assert_true(first.ok);
    GThread *thread = begin(&second, M, &fd);
    g_free(g_steal_pointer(&why));
    why = serve(A, fd, &kept);
    g_thread_join(thread);
    expect(&second, why, "is not trusted here", "does not trust this host");
    assert_false(knows(A, M, &found));
    g_clear_error(&second.error);
}

static void test_a_wrong_code_pairs_nobody_and_is_limited(void **state)
{
    char right[CODE_TEXT_LEN + 1], code[CODE_LEN + 1], wrong[CODE_TEXT_LEN + 1];
    struct trusted found;
    (void)state;
    invite(right);
    assert_true(code_new(code));
    code_show(code, wrong);
    for (unsigned i = 0; i < PAIRING_TRIES; i++) {
        struct call join = {.code = wrong};
        g_autofree char *why = make_call(&join);
        expect(&join, why, "the code is wrong", "the code is wrong");
        g_clear_error(&join.error);
    }
    struct call join = {.code = right};
    g_autofree char *why = make_call(&join);
    expect(&join, why, "is not trusted here", "does not trust this host");
    assert_false(knows(A, B, &found));
    assert_false(knows(B, A, &found));
    g_clear_error(&join.error);
}

static void test_without_an_invitation_nobody_gets_that_far(void **state)
{
    char code[CODE_LEN + 1];
    (void)state;
    assert_true(code_new(code));
    struct call join = {.code = code};
    g_autofree char *why = make_call(&join);
    expect(&join, why, "is not trusted here", "does not trust this host");
    g_clear_error(&join.error);
}

/* While an invitation is open, a stranger gets through the handshake, and may do nothing else. */
static void test_an_invited_stranger_may_ask_for_nothing(void **state)
{
    char code[CODE_TEXT_LEN + 1];
    struct call call = {.request = 0};
    (void)state;
    let(B, "a", A, MAY_USUAL);
    invite(code);
    g_autofree char *why = make_call(&call);
    assert_false(call.ok);
}

/*
 * M accepts the joiner's connection, makes one to the inviter, and passes every message on, as it can: it has
 * the plain text of both. Each of the two others sees M's key.
 */
static void test_a_man_in_the_middle_is_not_trusted_by_anybody(void **state)
{
    char code[CODE_TEXT_LEN + 1];
    struct trusted kept, found;
    const struct door *middle = trust_door(hosts[M]);
    int joiner_fd, fds[2];
    (void)state;
    /* M lets everybody in. */
    let(M, "b", B, MAY_ALL);
    let(M, "a", A, MAY_ALL);
    invite(code);
    struct call join = {.code = code};
    GThread *thread = begin(&join, B, &joiner_fd);
    struct stream *to_joiner = middle->accept(middle->opaque, joiner_fd);
    assert_int_equal(stream_handshake_until(to_joiner, g_get_monotonic_time() + WAIT_US), 0);
    Understudy__Envelope *said = framing_read(to_joiner, ANSWER_MS, NULL);
    assert_int_equal(said->body_case, BODY(PAIR_JOIN));
    /* Its other side: a call to A with the joiner's own message. */
    connect_pair(fds);
    const struct door *inviter = trust_door(hosts[A]);
    struct stream *at_a = inviter->accept(inviter->opaque, fds[0]);
    struct call his = {.caller = M, .fd = fds[1], .host = "a", .request = BODY(HOST_REQUEST)};
    GThread *his_thread = g_thread_new("middle", run_call, &his);
    assert_int_equal(stream_handshake_until(at_a, g_get_monotonic_time() + WAIT_US), 0);
    uint8_t proof[PAIRING_PROOF_LEN];
    g_autoptr(GError) error = NULL;
    assert_false(trust_welcome(hosts[A], at_a, said->pair_join, "inviter", &kept, proof, &error));
    assert_non_null(strstr(error->message, "the code is wrong"));
    /* He sends the joiner its own proof back, and another time one of his making. */
    Understudy__PairWelcome welcome = UNDERSTUDY__PAIR_WELCOME__INIT;
    welcome.name = (char *)"inviter";
    welcome.proof = said->pair_join->proof;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PAIR_WELCOME, pair_welcome, &welcome);
    assert_true(framing_write(to_joiner, &envelope, ANSWER_MS, NULL));
    g_thread_join(thread);
    assert_false(join.ok);
    assert_non_null(strstr(join.error->message, "does not know the code"));
    stream_close(at_a);
    g_thread_join(his_thread);
    assert_false(knows(A, M, &found));
    assert_false(knows(B, M, &found));
    assert_false(knows(B, A, &found));
    understudy__envelope__free_unpacked(said, NULL);
    stream_close(to_joiner);
    g_clear_error(&join.error);
    g_clear_error(&his.error);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_hosts_that_trust_each_other_talk),
        TEST(test_a_stranger_is_told_so_and_the_key_is_named),
        TEST(test_a_host_that_is_not_trusted_is_not_called),
        TEST(test_a_host_that_calls_itself_is_told_so),
        TEST(test_another_host_does_not_pass_for_the_one_that_was_named),
        TEST(test_a_role_is_checked_on_both_sides_and_now),
        TEST(test_a_removed_host_s_sessions_end_at_once),
        TEST(test_two_hosts_pair_by_a_code_and_then_talk),
        TEST(test_a_used_code_lets_no_other_host_in),
        TEST(test_a_wrong_code_pairs_nobody_and_is_limited),
        TEST(test_without_an_invitation_nobody_gets_that_far),
        TEST(test_an_invited_stranger_may_ask_for_nothing),
        TEST(test_a_man_in_the_middle_is_not_trusted_by_anybody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
