/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may ask what: every message has a row, and no peer gets more than its role. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "daemon/trust/roles.h"

#define BODY(x) UNDERSTUDY__ENVELOPE__BODY_##x

/* A new message without a row fails here: decide who may send it. */
static void test_every_message_has_a_row(void **state)
{
    const ProtobufCMessageDescriptor *envelope = &understudy__envelope__descriptor;
    (void)state;
    assert_true(envelope->n_fields > 30);
    for (unsigned i = 0; i < envelope->n_fields; i++) {
        if (!request_rule((Understudy__Envelope__BodyCase)envelope->fields[i].id))
            fail_msg("message %s has no row in daemon/trust/roles.c", envelope->fields[i].name);
    }
    assert_null(request_rule(UNDERSTUDY__ENVELOPE__BODY__NOT_SET));
    assert_null(request_rule((Understudy__Envelope__BodyCase)100000));
}

static unsigned count(unsigned may)
{
    unsigned n = 0;
    for (unsigned i = 0; i < understudy__envelope__descriptor.n_fields; i++)
        n += request_is_allowed((Understudy__Envelope__BodyCase)understudy__envelope__descriptor.fields[i].id,
                                may, "b", NULL);
    return n;
}

/* The numbers are written out, so that a row that opens a door shows here. */
static void test_a_peer_may_ask_for_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(count(0), 0);
    assert_int_equal(count(MAY_PRIMARY), 5);
    assert_int_equal(count(MAY_STANDBY), 1);
    assert_int_equal(count(MAY_WITNESS), 1);
    assert_int_equal(count(MAY_ALL), 5);
    const Understudy__Envelope__BodyCase open[] = {BODY(HOST_REQUEST), BODY(NETWORK_REQUEST),
                                                   BODY(FILES_REQUEST), BODY(PREPARE_STANDBY),
                                                   BODY(CANCEL_STANDBY)};
    for (size_t i = 0; i < G_N_ELEMENTS(open); i++)
        assert_true(request_is_allowed(open[i], MAY_PRIMARY, "b", NULL));
    assert_true(request_is_allowed(BODY(HOST_REQUEST), MAY_STANDBY, "b", NULL));
}

static void test_a_command_is_never_a_peer_s(void **state)
{
    const Understudy__Envelope__BodyCase commands[] = {
        BODY(RUN_REQUEST),   BODY(STOP_REQUEST),  BODY(FAILOVER_REQUEST), BODY(STATUS_REQUEST),
        BODY(POWER_REQUEST), BODY(DRAIN_REQUEST), BODY(EVENTS_REQUEST),   BODY(PAIR_REQUEST),
        BODY(KEY_REQUEST),   BODY(TRUST_REQUEST), BODY(INVITE_REQUEST),   BODY(JOIN_REQUEST)};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        assert_true(request_rule(commands[i])->is_command);
        assert_false(request_is_allowed(commands[i], MAY_ALL, "b", NULL));
        assert_false(request_rule(commands[i])->is_pairing);
    }
    assert_false(request_rule(BODY(PREPARE_STANDBY))->is_command);
}

static void test_a_stranger_may_send_one_message_only(void **state)
{
    unsigned n = 0;
    (void)state;
    for (unsigned i = 0; i < understudy__envelope__descriptor.n_fields; i++)
        n += request_rule((Understudy__Envelope__BodyCase)understudy__envelope__descriptor.fields[i].id)
                 ->is_pairing;
    assert_int_equal(n, 1);
    assert_true(request_rule(BODY(PAIR_JOIN))->is_pairing);
}

static void test_a_refusal_names_the_role(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    assert_false(request_is_allowed(BODY(PREPARE_STANDBY), MAY_STANDBY | MAY_WITNESS, "b", &error));
    assert_non_null(strstr(error->message, "role primary"));
    g_clear_error(&error);
    assert_false(request_may_be_sent(BODY(PREPARE_STANDBY), MAY_PRIMARY, "b", &error));
    assert_non_null(strstr(error->message, "role standby"));
    assert_true(request_may_be_sent(BODY(PREPARE_STANDBY), MAY_STANDBY, "b", NULL));
    assert_false(request_may_be_sent(BODY(RUN_REQUEST), MAY_ALL, "b", NULL));
}

static void test_roles_as_text_come_back(void **state)
{
    (void)state;
    for (unsigned may = 1; may <= MAY_ALL; may++) {
        g_autofree char *text = roles_text(may);
        assert_int_equal(roles_parse(text, NULL), may);
    }
    assert_int_equal(roles_parse("primary,standby,primary", NULL), MAY_USUAL);
    const char *bad[] = {"", ",", "standby,", "all", "Standby", "standby primary", " standby"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        assert_int_equal(roles_parse(bad[i], &error), 0);
        assert_non_null(error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_has_a_row),
        cmocka_unit_test(test_a_peer_may_ask_for_nothing_else),
        cmocka_unit_test(test_a_command_is_never_a_peer_s),
        cmocka_unit_test(test_a_stranger_may_send_one_message_only),
        cmocka_unit_test(test_a_refusal_names_the_role),
        cmocka_unit_test(test_roles_as_text_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
