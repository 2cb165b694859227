/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An event told once: in the log with its fields, in the journal, to a hook. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <glib/gstdio.h>

#include "daemon/events.h"

static GHashTable *fields_logged; /* of the last message: key -> value */
static GLogLevelFlags level_logged;

static GLogWriterOutput collect(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer opaque)
{
    (void)opaque;
    g_hash_table_remove_all(fields_logged);
    level_logged = level;
    for (gsize i = 0; i < n; i++)
        g_hash_table_insert(fields_logged, g_strdup(fields[i].key), g_strdup(fields[i].value));
    return G_LOG_WRITER_HANDLED;
}

static void assert_logged(const char *key, const char *value)
{
    assert_string_equal(g_hash_table_lookup(fields_logged, key), value);
}

static void test_the_table_has_each_event_once(void **state)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    (void)state;
    for (int i = 0; i < EVENTS_N; i++) {
        assert_non_null(event_kinds[i].name);
        assert_true(event_kinds[i].help[0]);
        assert_in_range(event_kinds[i].severity, SEVERITY_CRITICAL, SEVERITY_INFO);
        assert_true(g_hash_table_add(seen, (gpointer)event_kinds[i].name));
    }
}

static void test_an_event_is_logged_with_its_severity_and_fields(void **state)
{
    (void)state;
    events_emit(EVENT_UNPROTECTED, "web",
                (const char *const[]){"state", "peer-lost", "left_out", NULL, "reason", "gone", NULL},
                "VM %s is alone", "web");
    assert_int_equal(level_logged, G_LOG_LEVEL_WARNING);
    assert_logged("MESSAGE", "VM web is alone");
    assert_logged("PRIORITY", "4");
    assert_logged("UNDERSTUDY_EVENT", "unprotected");
    assert_logged("UNDERSTUDY_VM", "web");
    assert_logged("UNDERSTUDY_STATE", "peer-lost");
    assert_logged("UNDERSTUDY_REASON", "gone");
    assert_false(g_hash_table_contains(fields_logged, "UNDERSTUDY_LEFT_OUT"));
    events_emit(EVENT_SPLIT, "web", NULL, "both");
    assert_int_equal(level_logged, G_LOG_LEVEL_CRITICAL);
    assert_logged("PRIORITY", "2");
}

static void test_an_event_is_kept_and_read_again(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("understudy-events-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, ".events", NULL);
    (void)state;
    events_open(dir, NULL);
    events_emit(EVENT_DRAINED, NULL, NULL, "drained");
    events_emit(EVENT_TAKEOVER, "web", (const char *const[]){"peer", "b", NULL}, "said\nin \033 lines");
    GPtrArray *all = events_read("", 0), *of_web = events_read("web", 0);
    assert_int_equal(all->len, 2);
    assert_int_equal(of_web->len, 1);
    const Understudy__Event *event = g_ptr_array_index(of_web, 0);
    assert_string_equal(event->name, "takeover");
    assert_string_equal(event->message, "said in ? lines");
    assert_string_equal(event->fields[0]->value, "b");
    g_ptr_array_unref(all);
    g_ptr_array_unref(of_web);
    events_close();
    g_unlink(file);
    g_rmdir(dir);
}

static void test_more_fields_than_there_is_room_for_are_left_out(void **state)
{
    const char *fields[2 * EVENT_FIELDS_MAX + 5] = {NULL};
    (void)state;
    for (size_t i = 0; i + 1 < G_N_ELEMENTS(fields); i += 2)
        fields[i] = "key", fields[i + 1] = "value";
    events_emit(EVENT_GUEST, "web", fields, "many");
    assert_logged("MESSAGE", "many");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table_has_each_event_once),
        cmocka_unit_test(test_an_event_is_logged_with_its_severity_and_fields),
        cmocka_unit_test(test_an_event_is_kept_and_read_again),
        cmocka_unit_test(test_more_fields_than_there_is_room_for_are_left_out),
    };
    fields_logged = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_log_set_writer_func(collect, NULL, NULL);
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    g_hash_table_unref(fields_logged);
    return result;
}
