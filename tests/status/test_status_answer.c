/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The answer to `status`, through a socket: hosts with many VMs, and writers that are no daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <glib.h>

#include "common/stream.h"
#include "proto/status_answer.h"

#define TIMEOUT_MS 20000

struct writer {
    int fd;
    const Understudy__StatusList *list;
};

static gpointer write_list(gpointer opaque)
{
    const struct writer *writer = opaque;
    bool ok = status_answer_write(STREAM_FD(writer->fd), writer->list, TIMEOUT_MS, NULL);
    close(writer->fd);
    return GINT_TO_POINTER(ok);
}

static char *long_text(size_t len)
{
    char *text = g_malloc(len + 1);
    memset(text, 'x', len);
    text[len] = 0;
    return text;
}

/* A host's worst day: every VM has a long name, disks with paths, warnings and an error. */
static Understudy__StatusList *make_list(size_t nvms, size_t nendings, size_t text_len)
{
    Understudy__StatusList *list = g_new0(Understudy__StatusList, 1);
    understudy__status_list__init(list);
    list->drained = true;
    list->n_vms = nvms;
    list->vms = g_new0(Understudy__Status *, nvms + 1);
    for (size_t i = 0; i < nvms; i++) {
        Understudy__Status *vm = list->vms[i] = g_new0(Understudy__Status, 1);
        understudy__status__init(vm);
        vm->vm = g_strdup_printf("vm-with-a-long-name-%011zu", i);
        vm->state = UNDERSTUDY__STATE__STATE_PROTECTED;
        vm->last_error = long_text(text_len);
        vm->n_warnings = 8;
        vm->warnings = g_new0(char *, 8);
        for (int k = 0; k < 8; k++)
            vm->warnings[k] = long_text(text_len);
    }
    list->n_endings = nendings;
    list->endings = g_new0(Understudy__Ending *, nendings + 1);
    for (size_t i = 0; i < nendings; i++) {
        Understudy__Ending *ending = list->endings[i] = g_new0(Understudy__Ending, 1);
        understudy__ending__init(ending);
        ending->vm = g_strdup_printf("ended-%zu", i);
        ending->message = long_text(text_len);
    }
    return list;
}

/* What the reader has of it, whole; its first message was within the limit, or nothing would have come. */
static Understudy__Envelope *pass(const Understudy__StatusList *list)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct writer writer = {.fd = fds[0], .list = list};
    GThread *thread = g_thread_new("writer", write_list, &writer);
    g_autoptr(GError) error = NULL;
    Understudy__Envelope *answer = framing_read(STREAM_FD(fds[1]), TIMEOUT_MS, &error);
    assert_non_null(answer);
    assert_int_equal(answer->body_case, UNDERSTUDY__ENVELOPE__BODY_STATUS_LIST);
    assert_true(status_answer_read_rest(STREAM_FD(fds[1]), answer->status_list, TIMEOUT_MS, &error));
    assert_true(GPOINTER_TO_INT(g_thread_join(thread)));
    close(fds[1]);
    return answer;
}

static void test_two_hundred_vms_with_much_to_say_are_read_whole(void **state)
{
    (void)state;
    Understudy__StatusList *list = make_list(200, 20, 1000);
    assert_true(understudy__status_list__get_packed_size(list) > FRAMING_MAX_LEN);
    Understudy__Envelope *answer = pass(list);
    const Understudy__StatusList *got = answer->status_list;
    assert_int_equal(got->n_vms, 200);
    assert_int_equal(got->n_endings, 20);
    assert_true(got->drained);
    assert_false(got->more);
    for (size_t i = 0; i < 200; i++) {
        assert_string_equal(got->vms[i]->vm, list->vms[i]->vm);
        assert_int_equal(got->vms[i]->n_warnings, 8);
        assert_string_equal(got->vms[i]->warnings[7], list->vms[i]->warnings[7]);
    }
    for (size_t i = 0; i < 20; i++)
        assert_string_equal(got->endings[i]->vm, list->endings[i]->vm);
    understudy__envelope__free_unpacked(answer, NULL);
    understudy__status_list__free_unpacked(list, NULL);
}

static void test_a_host_without_vms_has_an_answer_too(void **state)
{
    (void)state;
    Understudy__StatusList *list = make_list(0, 0, 0);
    Understudy__Envelope *answer = pass(list);
    assert_int_equal(answer->status_list->n_vms, 0);
    assert_false(answer->status_list->more);
    understudy__envelope__free_unpacked(answer, NULL);
    understudy__status_list__free_unpacked(list, NULL);
}

/* One byte more in each round: a page that is full to the last byte is among them. */
static void test_pages_that_are_just_full_pass(void **state)
{
    (void)state;
    for (size_t len = 11600; len < 11700; len++) {
        Understudy__StatusList *list = make_list(10, 0, len);
        Understudy__Envelope *answer = pass(list);
        assert_int_equal(answer->status_list->n_vms, 10);
        understudy__envelope__free_unpacked(answer, NULL);
        understudy__status_list__free_unpacked(list, NULL);
    }
}

static void test_of_a_status_that_no_message_holds_the_vm_is_named(void **state)
{
    (void)state;
    Understudy__StatusList *list = make_list(3, 0, 10);
    free(list->vms[1]->last_error);
    list->vms[1]->last_error = long_text(FRAMING_MAX_LEN);
    Understudy__Envelope *answer = pass(list);
    assert_int_equal(answer->status_list->n_vms, 3);
    assert_string_equal(answer->status_list->vms[1]->vm, list->vms[1]->vm);
    assert_int_equal(answer->status_list->vms[1]->state, UNDERSTUDY__STATE__STATE_PROTECTED);
    assert_non_null(strstr(answer->status_list->vms[1]->last_error, "more to say"));
    understudy__envelope__free_unpacked(answer, NULL);
    understudy__status_list__free_unpacked(list, NULL);
}

/* ---- a writer that is no daemon ---- */

/* An endless answer is not read without end. */
static gpointer write_without_end(gpointer opaque)
{
    int fd = *(int *)opaque;
    Understudy__StatusList list = UNDERSTUDY__STATUS_LIST__INIT;
    list.more = true;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS_LIST, status_list, &list);
    while (framing_write(STREAM_FD(fd), &envelope, TIMEOUT_MS, NULL))
        continue;
    close(fd);
    return NULL;
}

static void test_an_answer_without_end_is_given_up(void **state)
{
    int fds[2];
    g_autoptr(GError) error = NULL;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    GThread *thread = g_thread_new("writer", write_without_end, &fds[0]);
    Understudy__Envelope *answer = framing_read(STREAM_FD(fds[1]), TIMEOUT_MS, NULL);
    assert_non_null(answer);
    assert_false(status_answer_read_rest(STREAM_FD(fds[1]), answer->status_list, TIMEOUT_MS, &error));
    assert_non_null(strstr(error->message, "no end"));
    understudy__envelope__free_unpacked(answer, NULL);
    close(fds[1]);
    g_thread_join(thread);
}

static void test_an_answer_that_breaks_off_is_an_error(void **state)
{
    int fds[2];
    g_autoptr(GError) error = NULL;
    Understudy__StatusList list = UNDERSTUDY__STATUS_LIST__INIT;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    list.more = true;
    close(fds[0]);
    assert_false(status_answer_read_rest(STREAM_FD(fds[1]), &list, TIMEOUT_MS, &error));
    assert_non_null(error);
    close(fds[1]);
}

static void test_something_else_in_the_place_of_a_page_is_refused(void **state)
{
    int fds[2];
    g_autoptr(GError) error = NULL;
    Understudy__StatusList list = UNDERSTUDY__STATUS_LIST__INIT;
    Understudy__Failover failover = UNDERSTUDY__FAILOVER__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(FAILOVER, failover, &failover);
    (void)state;
    failover.force = true;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    list.more = true;
    assert_true(framing_write(STREAM_FD(fds[0]), &envelope, TIMEOUT_MS, NULL));
    assert_false(status_answer_read_rest(STREAM_FD(fds[1]), &list, TIMEOUT_MS, &error));
    assert_non_null(error);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_hundred_vms_with_much_to_say_are_read_whole),
        cmocka_unit_test(test_a_host_without_vms_has_an_answer_too),
        cmocka_unit_test(test_pages_that_are_just_full_pass),
        cmocka_unit_test(test_of_a_status_that_no_message_holds_the_vm_is_named),
        cmocka_unit_test(test_an_answer_without_end_is_given_up),
        cmocka_unit_test(test_an_answer_that_breaks_off_is_an_error),
        cmocka_unit_test(test_something_else_in_the_place_of_a_page_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
