/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mailboxes: order, and a bound that holds whoever posts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <pthread.h>

#include "common/mailbox.h"

#define LIMIT      8u
#define POSTERS    4u
#define EACH       20000u
#define PATIENT_MS 30000u

struct numbered {
    struct letter letter; /* kind is the poster's number */
    unsigned number;
};

static struct numbered *numbered_new(int poster, unsigned number)
{
    struct numbered *letter = g_new0(struct numbered, 1);
    letter->letter.kind = poster;
    letter->number = number;
    return letter;
}

static struct numbered *take(struct mailbox *box)
{
    struct letter *letter = mailbox_take(box);
    return letter ? caa_container_of(letter, struct numbered, letter) : NULL;
}

static void test_a_full_mailbox_refuses_and_the_letter_stays_with_its_poster(void **state)
{
    struct mailbox box;
    (void)state;
    assert_int_equal(mailbox_open(&box), 0);
    for (unsigned i = 0; i < LIMIT; i++)
        assert_true(mailbox_try_post(&box, &numbered_new(0, i)->letter, LIMIT));
    struct numbered *more = numbered_new(0, LIMIT);
    assert_false(mailbox_try_post(&box, &more->letter, LIMIT));
    assert_false(mailbox_await_room(&box, LIMIT, 0));
    /* What this process itself has to say still goes in. */
    mailbox_post(&box, &numbered_new(1, 0)->letter);
    struct numbered *first = take(&box), *second = take(&box);
    assert_true(first && first->number == 0 && second && second->number == 1);
    g_free(first);
    g_free(second);
    assert_true(mailbox_await_room(&box, LIMIT, 0));
    assert_true(mailbox_try_post(&box, &more->letter, LIMIT));
    assert_false(mailbox_try_post(&box, &more->letter, LIMIT));
    for (struct numbered *each; (each = take(&box));)
        g_free(each);
    assert_true(mailbox_await_room(&box, 1, 0));
    mailbox_close(&box);
}

struct poster {
    struct mailbox *box;
    pthread_t thread;
    int number;
};

static void *post_all(void *opaque)
{
    struct poster *poster = opaque;
    for (unsigned i = 0; i < EACH; i++) {
        struct numbered *letter = numbered_new(poster->number, i);
        while (!mailbox_try_post(poster->box, &letter->letter, LIMIT)) {
            gint64 began_us = g_get_monotonic_time();
            mailbox_await_room(poster->box, LIMIT, PATIENT_MS);
            if (g_get_monotonic_time() - began_us >= PATIENT_MS * 1000ll)
                g_error("a poster waited in vain");
        }
    }
    return NULL;
}

static void test_posters_that_wait_for_room_lose_nothing_and_never_pass_the_limit(void **state)
{
    struct mailbox box;
    struct poster posters[POSTERS];
    unsigned next[POSTERS] = {0}, taken = 0;
    (void)state;
    assert_int_equal(mailbox_open(&box), 0);
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.box = &box, .number = (int)i};
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
    }
    while (taken < POSTERS * EACH) {
        /* A poster adds before it looks, and takes back what was too much. */
        assert_true(atomic_load(&box.nletters) <= LIMIT + POSTERS);
        struct numbered *letter = take(&box);
        if (!letter) {
            mailbox_wait(&box, (int)PATIENT_MS);
            continue;
        }
        assert_int_equal(letter->number, next[letter->letter.kind]++);
        g_free(letter);
        taken++;
    }
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(posters[i].thread, NULL);
    mailbox_close(&box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_mailbox_refuses_and_the_letter_stays_with_its_poster),
        cmocka_unit_test(test_posters_that_wait_for_room_lose_nothing_and_never_pass_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
