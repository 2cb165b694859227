/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of figures against the messages that it reads, and the names of states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <glib.h>

#include "proto/figures.h"
#include "proto/states.h"

static const ProtobufCMessageDescriptor *const messages[FIGURES_NSCOPES] = {
    &understudy__status__descriptor,
    &understudy__disk_status__descriptor,
    &understudy__heartbeat_status__descriptor,
    &understudy__ending__descriptor,
};

static void test_each_row_has_a_name_of_its_own_and_a_help(void **state)
{
    (void)state;
    for (int scope = 0; scope < FIGURES_NSCOPES; scope++) {
        size_t n;
        const struct figure *figures = figures_of((enum figure_scope)scope, &n);
        g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
        for (size_t i = 0; i < n; i++) {
            assert_true(g_hash_table_add(seen, (gpointer)figures[i].name));
            assert_true(figures[i].help[0]);
            assert_non_null(figures[i].unit);
            assert_true(figures[i].field || figures[i].read);
        }
    }
}

static void test_each_row_can_be_read_from_an_empty_message(void **state)
{
    (void)state;
    for (int scope = 0; scope < FIGURES_NSCOPES; scope++) {
        size_t n;
        const struct figure *figures = figures_of((enum figure_scope)scope, &n);
        g_autofree ProtobufCMessage *message = g_malloc0(messages[scope]->sizeof_message);
        messages[scope]->message_init(message);
        for (size_t i = 0; i < n; i++) {
            struct figure_value value;
            if (figures[i].field)
                assert_non_null(
                    protobuf_c_message_descriptor_get_field_by_name(messages[scope], figures[i].field));
            figure_read(&figures[i], message, &value);
            g_autofree char *text = figure_text(&value);
            assert_non_null(text);
            assert_int_equal(value.type == VALUE_PERCENTILES, figures[i].kind == FIGURE_DISTRIBUTION);
            assert_int_equal(value.type == VALUE_NUMBER || value.type == VALUE_REAL,
                             figures[i].kind == FIGURE_COUNTER || figures[i].kind == FIGURE_GAUGE);
        }
    }
}

/* What the messages say and no row with that field shows: rows read it, or it is another array of the
 * document, or it is of old replicators. */
static bool is_shown_otherwise(const char *field)
{
    static const char *const fields[] = {
        "role",  "state",      "term", "guest_state", "on_peer_loss",     "durability",
        "disks", "heartbeats", "at_s", "state_name",  "guest_state_name", "link_security"};
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
        if (strcmp(fields[i], field) == 0)
            return true;
    return false;
}

static void test_no_field_of_a_message_is_forgotten(void **state)
{
    (void)state;
    for (int scope = 0; scope < FIGURES_NSCOPES; scope++) {
        size_t n;
        const struct figure *figures = figures_of((enum figure_scope)scope, &n);
        for (unsigned f = 0; f < messages[scope]->n_fields; f++) {
            const char *field = messages[scope]->fields[f].name;
            bool found = is_shown_otherwise(field);
            for (size_t i = 0; i < n && !found; i++)
                found = figures[i].field && strcmp(figures[i].field, field) == 0;
            if (!found)
                fail_msg("%s.%s has no row in the table of figures", messages[scope]->short_name, field);
        }
    }
}

static const struct figure *find(enum figure_scope scope, const char *name)
{
    size_t n;
    const struct figure *figures = figures_of(scope, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(figures[i].name, name) == 0)
            return &figures[i];
    fail_msg("there is no figure %s", name);
    return NULL;
}

static void test_values_are_those_of_the_message(void **state)
{
    Understudy__Status s = UNDERSTUDY__STATUS__INIT;
    Understudy__Percentiles pause = UNDERSTUDY__PERCENTILES__INIT;
    char *warnings[] = {(char *)"one", (char *)"two"};
    struct figure_value value;
    (void)state;
    pause.p50 = 1, pause.p99 = 2, pause.max = 3;
    s.state = UNDERSTUDY__STATE__STATE_PEER_LOST;
    s.pause_us = &pause;
    s.qemu_pid = -1;
    s.term = 7; /* the third, of host 1 */
    s.warnings = warnings;
    s.n_warnings = 2;
    figure_read(find(FIGURES_OF_VM, "state"), &s, &value);
    assert_string_equal(value.words, "peer-lost");
    figure_read(find(FIGURES_OF_VM, "pause_us"), &s, &value);
    g_autofree char *text = figure_text(&value);
    assert_string_equal(text, "p50 1  p99 2  max 3");
    figure_read(find(FIGURES_OF_VM, "qemu_pid"), &s, &value);
    assert_int_equal(value.number, -1);
    figure_read(find(FIGURES_OF_VM, "term"), &s, &value);
    assert_int_equal(value.number, 3);
    figure_read(find(FIGURES_OF_VM, "term_host"), &s, &value);
    assert_int_equal(value.number, 1);
    figure_read(find(FIGURES_OF_VM, "warnings"), &s, &value);
    g_autofree char *list = figure_text(&value);
    assert_string_equal(list, "one; two");
}

/* PEER_LOST is "peer-lost". */
static void check_names(const ProtobufCEnumDescriptor *descriptor, const char *prefix, int first,
                        const char *(*name_of)(int))
{
    for (unsigned i = 0; i < descriptor->n_values; i++) {
        if (descriptor->values[i].value < first)
            continue;
        g_autofree char *wanted = g_ascii_strdown(descriptor->values[i].name + strlen(prefix), -1);
        g_strdelimit(wanted, "_", '-');
        assert_string_equal(name_of(descriptor->values[i].value), wanted);
    }
    assert_string_equal(name_of(1000), "unknown");
    assert_string_equal(name_of(-1), "unknown");
}

static const char *of_state(int value)
{
    return state_name((Understudy__State)value);
}

static const char *of_disk_state(int value)
{
    return disk_state_name((Understudy__DiskState)value);
}

static const char *of_guest_state(int value)
{
    return guest_state_name((Understudy__GuestState)value);
}

static void test_each_state_is_named_as_in_the_protocol(void **state)
{
    (void)state;
    check_names(&understudy__state__descriptor, "STATE_", 0, of_state);
    check_names(&understudy__disk_state__descriptor, "DISK_STATE_", 0, of_disk_state);
    check_names(&understudy__guest_state__descriptor, "GUEST_STATE_", 1, of_guest_state);
    assert_string_equal(of_guest_state(0), "");
    assert_int_equal(state_from_name("peer-lost"), UNDERSTUDY__STATE__STATE_PEER_LOST);
    assert_int_equal(state_from_name("nonsense"), UNDERSTUDY__STATE__STATE_UNKNOWN);
}

/* A VM goes on through an upgrade of the daemon: its replicator is of the old age. */
static void test_a_replicator_of_old_that_sends_names_is_understood(void **state)
{
    Understudy__Status s = UNDERSTUDY__STATUS__INIT;
    Understudy__DiskStatus disk = UNDERSTUDY__DISK_STATUS__INIT, *disks[] = {&disk};
    (void)state;
    s.state_name = (char *)"handover-unsure";
    s.guest_state_name = (char *)"paused";
    disk.state_name = (char *)"unprotected";
    s.disks = disks;
    s.n_disks = 1;
    status_read_names(&s);
    assert_int_equal(s.state, UNDERSTUDY__STATE__STATE_HANDOVER_UNSURE);
    assert_int_equal(s.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED);
    assert_int_equal(disk.state, UNDERSTUDY__DISK_STATE__DISK_STATE_UNPROTECTED);
    s.state_name = (char *)"protected";
    status_read_names(&s);
    assert_int_equal(s.state, UNDERSTUDY__STATE__STATE_HANDOVER_UNSURE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_row_has_a_name_of_its_own_and_a_help),
        cmocka_unit_test(test_each_row_can_be_read_from_an_empty_message),
        cmocka_unit_test(test_no_field_of_a_message_is_forgotten),
        cmocka_unit_test(test_values_are_those_of_the_message),
        cmocka_unit_test(test_each_state_is_named_as_in_the_protocol),
        cmocka_unit_test(test_a_replicator_of_old_that_sends_names_is_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
