/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The session's states are the protocol's, by the same names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/states.h"
#include "replicator/control/session_state.h"

static void test_each_state_of_the_session_has_its_name_in_the_protocol(void **state)
{
    (void)state;
    for (int i = 0; i < SESSION_NSTATES; i++)
        assert_string_equal(state_name(state_of_session((enum session_state)i)),
                            session_state_name((enum session_state)i));
}

static void test_a_state_that_is_none_is_unknown(void **state)
{
    (void)state;
    assert_int_equal(state_of_session(SESSION_NSTATES), UNDERSTUDY__STATE__STATE_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_state_of_the_session_has_its_name_in_the_protocol),
        cmocka_unit_test(test_a_state_that_is_none_is_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
