/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words that QEMU or the peer wrote, as a terminal and a JSON parser get them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/words.h"
#include "proto/framing.h"
#include "proto/readable.h"

static void assert_shown(const char *words, const char *expected)
{
    g_autofree char *line = words_make_readable(words, WORDS_MAX);
    assert_string_equal(line, expected);
    assert_true(words_are_readable(line, WORDS_MAX));
}

static void test_plain_words_stay_as_they_are(void **state)
{
    (void)state;
    assert_shown("disk root: no space left", "disk root: no space left");
    assert_shown("größe, 大きさ, \U0001f600", "größe, 大きさ, \U0001f600");
    assert_shown("", "");
    assert_shown(NULL, "");
}

static void test_a_terminal_is_not_steered(void **state)
{
    (void)state;
    assert_shown("\033[2J\033[31mred\a", "?[2J?[31mred?");
    assert_shown("\302\233"
                 "31mred",
                 "?31mred"); /* CSI as one C1 character */
    assert_shown("a\177b", "a?b");
    assert_shown("abc\342\200\256txt", "abc?txt"); /* right-to-left override */
}

static void test_one_line_stays_one(void **state)
{
    (void)state;
    assert_shown("bad\nok    memory there          1 MiB free\r\n", "bad ok memory there 1 MiB free");
    assert_shown("  one\342\200\250two\342\200\251three\t\v four  ", "one two three four");
}

static void test_bytes_that_are_no_text_are_replaced(void **state)
{
    (void)state;
    assert_shown("a\377b", "a\357\277\275b");
    assert_shown("\303", "\357\277\275");
    assert_shown("\355\240\200", "\357\277\275\357\277\275\357\277\275"); /* half of a surrogate pair */
}

static void test_what_is_long_is_cut_at_a_character(void **state)
{
    char long_words[5000];
    (void)state;
    memset(long_words, 'x', sizeof long_words - 1);
    long_words[sizeof long_words - 1] = 0;
    g_autofree char *line = words_make_readable(long_words, 100);
    assert_int_equal(strlen(line), 100);
    assert_string_equal(line + 97, "...");
    for (size_t max = 4; max < 20; max++) {
        g_autofree char *cut = words_make_readable("äöüäöüäöüäöüäöü", max);
        assert_true(strlen(cut) <= max && strlen(cut) + 2 > max);
        assert_true(g_utf8_validate(cut, -1, NULL));
    }
}

static void test_a_buffer_without_an_end_is_not_left(void **state)
{
    g_autofree char *buffer = g_malloc(8); /* exactly: a sanitizer sees the byte after */
    (void)state;
    memset(buffer, 'y', 8);
    g_autofree char *line = words_make_readable_len(buffer, 8, WORDS_MAX);
    assert_string_equal(line, "yyyyyyyy");
    buffer[3] = 0;
    g_autofree char *shorter = words_make_readable_len(buffer, 8, WORDS_MAX);
    assert_string_equal(shorter, "yyy");
}

/* Each text of each message, however deep; those that were not sent too. */
static void test_every_text_of_a_message_is_fit(void **state)
{
    char *lines[100];
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
        lines[i] = (char *)"device\nok    all";
    Understudy__DiskStatus disk = UNDERSTUDY__DISK_STATUS__INIT;
    Understudy__DiskStatus *disks[] = {&disk};
    disk.message = (char *)"\377\033[0m";
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    Understudy__Status *vms[] = {&status};
    status.vm = (char *)"web\n";
    status.disks = disks;
    status.n_disks = 1;
    Understudy__StatusList list = UNDERSTUDY__STATUS_LIST__INIT;
    list.vms = vms;
    list.n_vms = 1;
    Understudy__Host host = UNDERSTUDY__HOST__INIT;
    host.rdma = lines;
    host.n_rdma = G_N_ELEMENTS(lines);
    const Understudy__Envelope said[] = {UNDERSTUDY_ENVELOPE(STATUS_LIST, status_list, &list),
                                         UNDERSTUDY_ENVELOPE(HOST, host, &host)};
    Understudy__Envelope *heard[2];
    for (size_t i = 0; i < 2; i++) {
        size_t len = understudy__envelope__get_packed_size(&said[i]);
        g_autofree uint8_t *packed = g_malloc(len);
        understudy__envelope__pack(&said[i], packed);
        heard[i] = understudy__envelope__unpack(NULL, len, packed);
        envelope_make_readable(heard[i], WORDS_MAX);
    }
    const Understudy__Status *shown = heard[0]->status_list->vms[0];
    assert_string_equal(shown->vm, "web");
    assert_string_equal(shown->last_error, "");
    assert_string_equal(shown->disks[0]->message, "\357\277\275?[0m");
    json_t *json = json_string(shown->disks[0]->message);
    assert_non_null(json);
    json_decref(json);
    assert_int_equal(heard[1]->host->n_rdma, READABLE_LINES_MAX);
    assert_string_equal(heard[1]->host->rdma[READABLE_LINES_MAX - 1], "device ok all");
    for (size_t i = 0; i < 2; i++)
        understudy__envelope__free_unpacked(heard[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_words_stay_as_they_are),
        cmocka_unit_test(test_a_terminal_is_not_steered),
        cmocka_unit_test(test_one_line_stays_one),
        cmocka_unit_test(test_bytes_that_are_no_text_are_replaced),
        cmocka_unit_test(test_what_is_long_is_cut_at_a_character),
        cmocka_unit_test(test_a_buffer_without_an_end_is_not_left),
        cmocka_unit_test(test_every_text_of_a_message_is_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
