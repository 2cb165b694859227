/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The reasons for which a VM ends: each is one row, by number, name and meaning, and as a state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "proto/states.h"

/* What a GOODBYE says, and what an older host understands: numbers and names stay. */
static const struct {
    unsigned number;
    const char *name;
    bool is_failure;
    Understudy__State state;
} rows[] = {
    {0, "none", false, UNDERSTUDY__STATE__STATE_ENDED},
    {1, "guest-shutdown", false, UNDERSTUDY__STATE__STATE_ENDED},
    {2, "stopped", false, UNDERSTUDY__STATE__STATE_ENDED},
    {3, "handed-over", false, UNDERSTUDY__STATE__STATE_ENDED},
    {4, "fenced", false, UNDERSTUDY__STATE__STATE_FENCED},
    {5, "hypervisor-died", true, UNDERSTUDY__STATE__STATE_HYPERVISOR_DIED},
    {6, "promote-failed", true, UNDERSTUDY__STATE__STATE_PROMOTE_FAILED},
    {7, "abandoned", false, UNDERSTUDY__STATE__STATE_ENDED},
    {8, "image-failed", true, UNDERSTUDY__STATE__STATE_IMAGE_FAILED},
    {9, "guest-panicked", false, UNDERSTUDY__STATE__STATE_ENDED},
    {10, "left", false, UNDERSTUDY__STATE__STATE_ENDED},
    {11, "bug", true, UNDERSTUDY__STATE__STATE_FAILED},
    {12, "trial-failed", true, UNDERSTUDY__STATE__STATE_TRIAL_FAILED},
    {13, "unconfirmed", false, UNDERSTUDY__STATE__STATE_ENDED},
    {14, "replicator-died", true, UNDERSTUDY__STATE__STATE_FAILED},
    {15, "unattended", false, UNDERSTUDY__STATE__STATE_ENDED},
};

static void test_each_reason_is_one_row(void **state)
{
    (void)state;
    assert_int_equal(sizeof rows / sizeof *rows, SESSION_NEND_REASONS);
    for (unsigned i = 0; i < SESSION_NEND_REASONS; i++) {
        enum session_end_reason reason = (enum session_end_reason)rows[i].number;
        assert_int_equal(reason, i);
        assert_string_equal(session_end_reason_name(reason), rows[i].name);
        assert_int_equal(session_end_reason_from_name(rows[i].name), reason);
        assert_int_equal(session_end_reason_is_failure(reason), rows[i].is_failure);
        assert_int_equal(state_of_end(reason), rows[i].state);
    }
}

static void test_each_reason_has_a_meaning_of_its_own(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SESSION_NEND_REASONS; i++) {
        const char *words = session_end_reason_words((enum session_end_reason)i);
        assert_true(strlen(words) > 10);
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(words, session_end_reason_words((enum session_end_reason)k));
    }
    assert_string_equal(session_end_reason_words(SESSION_END_GUEST_SHUTDOWN), "the guest shut down");
    /* An administrator cannot mend that one, and needs to know where to look. */
    assert_non_null(strstr(session_end_reason_words(SESSION_END_BUG), "error in its own state"));
    assert_non_null(strstr(session_end_reason_words(SESSION_END_BUG), "the log of understudyd on this host"));
}

static void test_a_failure_is_a_state_of_its_own_where_there_is_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SESSION_NEND_REASONS; i++) {
        Understudy__State named = state_from_name(session_end_reason_name((enum session_end_reason)i));
        if (named != UNDERSTUDY__STATE__STATE_UNKNOWN)
            assert_int_equal(state_of_end((enum session_end_reason)i), named);
    }
}

/* From the wire, or of a later version. */
static void test_what_is_not_known_is_no_reason(void **state)
{
    static const enum session_end_reason strange[] = {SESSION_NEND_REASONS, (enum session_end_reason)4000,
                                                      (enum session_end_reason) - 1};
    (void)state;
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        assert_string_equal(session_end_reason_name(strange[i]), "unknown");
        assert_string_equal(session_end_reason_words(strange[i]), session_end_reason_words(SESSION_END_NONE));
        assert_false(session_end_reason_is_failure(strange[i]));
        assert_int_equal(state_of_end(strange[i]), UNDERSTUDY__STATE__STATE_ENDED);
    }
    assert_int_equal(session_end_reason_from_name(""), SESSION_END_NONE);
    assert_int_equal(session_end_reason_from_name("unknown"), SESSION_END_NONE);
    assert_int_equal(session_end_reason_from_name("meteorite"), SESSION_END_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_reason_is_one_row),
        cmocka_unit_test(test_each_reason_has_a_meaning_of_its_own),
        cmocka_unit_test(test_a_failure_is_a_state_of_its_own_where_there_is_one),
        cmocka_unit_test(test_what_is_not_known_is_no_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
