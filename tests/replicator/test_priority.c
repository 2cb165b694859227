/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Niceness is given to every ordinary thread, and to those that they make. Upwards, so that no privilege is
 * needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/priority.h"

struct thread {
    pthread_t thread;
    sem_t started, look;
    int own_nice, nice, child_nice;
};

static void *child_run(void *opaque)
{
    *(int *)opaque = getpriority(PRIO_PROCESS, 0);
    return NULL;
}

static void *thread_run(void *opaque)
{
    struct thread *t = opaque;
    pthread_t child;
    if (t->own_nice)
        setpriority(PRIO_PROCESS, 0, t->own_nice);
    sem_post(&t->started);
    sem_wait(&t->look);
    t->nice = getpriority(PRIO_PROCESS, 0);
    pthread_create(&child, NULL, child_run, &t->child_nice);
    pthread_join(child, NULL);
    return NULL;
}

static void start(struct thread *t, int own_nice)
{
    *t = (struct thread){.own_nice = own_nice};
    sem_init(&t->started, 0, 0);
    sem_init(&t->look, 0, 0);
    assert_int_equal(pthread_create(&t->thread, NULL, thread_run, t), 0);
    sem_wait(&t->started);
}

static void finish(struct thread *t)
{
    sem_post(&t->look);
    pthread_join(t->thread, NULL);
}

/* Threads of this process beside those of the test: a sanitizer's runtime has one. */
static int others(int of_the_test)
{
    DIR *tasks = opendir("/proc/self/task");
    int n = 0;
    assert_non_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));)
        n += entry->d_name[0] != '.';
    closedir(tasks);
    return n - of_the_test;
}

static void test_every_ordinary_thread_gets_it_and_passes_it_on(void **state)
{
    struct thread plain, chosen;
    (void)state;
    /* Whoever runs the tests niced has given this thread a niceness of its own. */
    if (getpriority(PRIO_PROCESS, 0) != 0 && setpriority(PRIO_PROCESS, 0, 0) < 0)
        skip();
    start(&plain, 0);
    start(&chosen, 7);
    assert_int_equal(priority_set_nice(getpid(), 3), 2 + others(3)); /* this thread and the plain one */
    assert_int_equal(priority_set_nice(getpid(), 5), 0);             /* all have one by now */
    finish(&plain);
    finish(&chosen);
    assert_int_equal(plain.nice, 3);
    assert_int_equal(plain.child_nice, 3);
    assert_int_equal(chosen.nice, 7);
}

static void test_zero_and_a_process_that_is_gone_change_nothing(void **state)
{
    (void)state;
    assert_int_equal(priority_set_nice(getpid(), 0), 0);
    assert_int_equal(priority_set_nice(0x7ffffff0, 3), 0);
}

/* Under nice(1) no thread would be an ordinary one. */
int main(void)
{
    if (setpriority(PRIO_PROCESS, 0, 0) < 0)
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_and_a_process_that_is_gone_change_nothing),
        cmocka_unit_test(test_every_ordinary_thread_gets_it_and_passes_it_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
