/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Codes, proofs and invitations, with the time given: what opens the door, and what does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <string.h>

#include "daemon/trust/pairing.h"

#define NOW 1000000ll

static const uint8_t exporter[PAIRING_EXPORTER_LEN] = {1, 2, 3};
static const uint8_t inviter[KEY_LEN] = {10, 20}, joiner[KEY_LEN] = {30, 40};
static const struct pairing_facts facts = {exporter, inviter, joiner};

static struct invitation invitation;
static uint8_t proof[PAIRING_PROOF_LEN];

static int set_up(void **state)
{
    (void)state;
    assert_true(invitation_open(&invitation, 3, NOW));
    assert_true(pairing_proof(invitation.code, PAIRING_JOINER, &facts, "b", proof));
    return 0;
}

static bool check(int64_t now_us)
{
    return invitation_check(&invitation, &facts, "b", proof, sizeof proof, now_us);
}

/* ---- codes ---- */

static void test_codes_differ_and_hold_130_random_bits(void **state)
{
    char code[CODE_LEN + 1], text[CODE_TEXT_LEN + 1];
    uint32_t seen[CODE_RANDOM] = {0};
    g_autoptr(GHashTable) codes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    (void)state;
    for (int i = 0; i < 2000; i++) {
        assert_true(code_new(code));
        code_show(code, text);
        assert_int_equal(strlen(text), CODE_TEXT_LEN);
        for (unsigned k = 0; k < CODE_RANDOM; k++)
            seen[k] |= 1u << (strchr(alphabet, code[k]) - alphabet);
        assert_true(g_hash_table_add(codes, g_strdup(code)));
    }
    for (unsigned k = 0; k < CODE_RANDOM; k++)
        assert_int_equal(seen[k], UINT32_MAX); /* each place takes all 32 values */
}

static void test_a_code_is_read_as_people_type_it(void **state)
{
    char code[CODE_LEN + 1], text[CODE_TEXT_LEN + 1], read[CODE_LEN + 1];
    (void)state;
    for (int i = 0; i < 200; i++) {
        assert_true(code_new(code));
        code_show(code, text);
        g_autofree char *lower = g_ascii_strdown(text, -1), *spaced = g_strdelimit(g_strdup(text), "-", ' ');
        g_autofree char *line = g_strdup_printf("  %s\r\n", code), *alike = g_strdup(lower);
        g_strdelimit(alike, "0", 'o');
        g_strdelimit(alike, "1", 'l');
        const char *forms[] = {text, lower, spaced, line, alike};
        for (size_t k = 0; k < G_N_ELEMENTS(forms); k++) {
            assert_true(code_read(forms[k], read));
            assert_string_equal(read, code);
        }
    }
}

static void test_a_misspelt_code_is_seen_before_it_is_sent(void **state)
{
    char code[CODE_LEN + 1], read[CODE_LEN + 1];
    unsigned missed = 0;
    (void)state;
    for (int i = 0; i < 200; i++) {
        assert_true(code_new(code));
        for (unsigned k = 0; k < CODE_LEN; k++) {
            char old = code[k];
            code[k] = old == '7' ? '8' : '7';
            missed += code_read(code, read);
            code[k] = old;
        }
    }
    assert_true(missed < 60); /* of 5600; one in 1024 is expected */
    const char *bad[] = {"", "ABCD", "U", "0000-0000-0000-0000-0000-0000-0000-0000", "\xff\xff", "*"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        assert_false(code_read(bad[i], read));
}

/* ---- proofs ---- */

static void test_a_proof_is_of_one_side_one_connection_two_keys_and_a_name(void **state)
{
    uint8_t other[PAIRING_PROOF_LEN], changed[32];
    struct pairing_facts wrong = facts;
    (void)state;
    assert_true(pairing_check(invitation.code, PAIRING_JOINER, &facts, "b", proof, sizeof proof));
    assert_false(pairing_check(invitation.code, PAIRING_INVITER, &facts, "b", proof, sizeof proof));
    assert_false(pairing_check(invitation.code, PAIRING_JOINER, &facts, "c", proof, sizeof proof));
    assert_false(pairing_check(invitation.code, PAIRING_JOINER, &facts, "b", proof, sizeof proof - 1));
    assert_false(pairing_check(invitation.code, PAIRING_JOINER, &facts, "b", proof, 0));
    const uint8_t **parts[] = {&wrong.exporter, &wrong.inviter_key, &wrong.joiner_key};
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        const uint8_t *right = *parts[i];
        memcpy(changed, right, sizeof changed);
        changed[31] ^= 1;
        *parts[i] = changed;
        assert_false(pairing_check(invitation.code, PAIRING_JOINER, &wrong, "b", proof, sizeof proof));
        *parts[i] = right;
    }
    const struct pairing_facts swapped = {exporter, joiner, inviter};
    assert_false(pairing_check(invitation.code, PAIRING_JOINER, &swapped, "b", proof, sizeof proof));
    assert_true(pairing_proof(invitation.code, PAIRING_INVITER, &facts, "b", other));
    assert_memory_not_equal(other, proof, sizeof proof);
    for (unsigned i = 0; i < 8 * sizeof proof; i++) {
        proof[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_false(pairing_check(invitation.code, PAIRING_JOINER, &facts, "b", proof, sizeof proof));
        proof[i / 8] ^= (uint8_t)(1u << i % 8);
    }
}

/*
 * The man in the middle has a connection to each host, and so two exporters, and his own key in each. He
 * passes on what he hears.
 */
static void test_a_man_in_the_middle_cannot_pass_proofs_on(void **state)
{
    static const uint8_t his[KEY_LEN] = {66}, to_joiner[PAIRING_EXPORTER_LEN] = {4};
    const struct pairing_facts seen_by_joiner = {to_joiner, his, joiner},
                               seen_by_inviter = {exporter, inviter, his};
    (void)state;
    assert_true(pairing_proof(invitation.code, PAIRING_JOINER, &seen_by_joiner, "b", proof));
    assert_false(invitation_check(&invitation, &seen_by_inviter, "b", proof, sizeof proof, NOW));
    /* He sends the joiner's own proof back to it. */
    assert_false(pairing_check(invitation.code, PAIRING_INVITER, &seen_by_joiner, "b", proof, sizeof proof));
}

/* ---- invitations ---- */

static void test_the_right_code_opens_once(void **state)
{
    (void)state;
    assert_true(invitation_is_open(&invitation, NOW));
    assert_true(check(NOW));
    invitation_close(&invitation); /* as its user does then */
    assert_false(check(NOW));
    assert_false(invitation_is_open(&invitation, NOW));
}

static void test_a_code_is_too_old_after_ten_minutes(void **state)
{
    (void)state;
    assert_int_equal(PAIRING_LIFE_US, 600000000);
    assert_true(check(NOW + PAIRING_LIFE_US - 1));
    assert_false(check(NOW + PAIRING_LIFE_US));
    assert_false(check(NOW)); /* and does not come back */
}

static void test_wrong_codes_are_counted(void **state)
{
    struct invitation other = {.open = false};
    uint8_t wrong[PAIRING_PROOF_LEN];
    (void)state;
    assert_true(invitation_open(&other, 3, NOW));
    assert_true(pairing_proof(other.code, PAIRING_JOINER, &facts, "b", wrong));
    for (unsigned i = 0; i + 1 < PAIRING_TRIES; i++)
        assert_false(invitation_check(&invitation, &facts, "b", wrong, sizeof wrong, NOW));
    assert_true(check(NOW)); /* there is one try left */
    assert_false(invitation_check(&invitation, &facts, "b", wrong, 0, NOW));
    assert_false(invitation_is_open(&invitation, NOW));
    assert_false(check(NOW));
}

static void test_a_new_invitation_ends_the_older_one(void **state)
{
    (void)state;
    assert_true(invitation_open(&invitation, 3, NOW));
    assert_false(check(NOW));
    assert_true(invitation_is_open(&invitation, NOW));
}

static void test_nothing_of_a_code_is_left_when_it_is_over(void **state)
{
    static const struct invitation none;
    (void)state;
    assert_false(invitation_is_open(&invitation, NOW + PAIRING_LIFE_US));
    assert_memory_equal(&invitation, &none, sizeof none);
}

static void test_without_an_invitation_no_proof_is_right(void **state)
{
    struct invitation none = {.open = false};
    (void)state;
    assert_true(pairing_proof(none.code, PAIRING_JOINER, &facts, "b", proof));
    assert_false(invitation_check(&none, &facts, "b", proof, sizeof proof, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_differ_and_hold_130_random_bits),
        cmocka_unit_test(test_a_code_is_read_as_people_type_it),
        cmocka_unit_test(test_a_misspelt_code_is_seen_before_it_is_sent),
        cmocka_unit_test_setup(test_a_proof_is_of_one_side_one_connection_two_keys_and_a_name, set_up),
        cmocka_unit_test_setup(test_a_man_in_the_middle_cannot_pass_proofs_on, set_up),
        cmocka_unit_test_setup(test_the_right_code_opens_once, set_up),
        cmocka_unit_test_setup(test_a_code_is_too_old_after_ten_minutes, set_up),
        cmocka_unit_test_setup(test_wrong_codes_are_counted, set_up),
        cmocka_unit_test_setup(test_a_new_invitation_ends_the_older_one, set_up),
        cmocka_unit_test_setup(test_nothing_of_a_code_is_left_when_it_is_over, set_up),
        cmocka_unit_test_setup(test_without_an_invitation_no_proof_is_right, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
