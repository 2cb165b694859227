/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starts a thread for a GTask, and returns an error by the task if there can be none. */
#include "daemon/task_thread.h"

struct job {
    GTask *task;
    GTaskThreadFunc work;
};

static gpointer run(gpointer opaque)
{
    struct job *job = opaque;
    job->work(job->task, g_task_get_source_object(job->task), g_task_get_task_data(job->task), NULL);
    g_object_unref(job->task);
    g_free(job);
    return NULL;
}

void task_thread_run(GTask *task, GTaskThreadFunc work)
{
    g_autoptr(GError) error = NULL;
    struct job *job = g_new(struct job, 1);
    *job = (struct job){.task = g_object_ref(task), .work = work};
    GThread *thread = g_thread_try_new("task", run, job, &error);
    if (thread) {
        g_thread_unref(thread);
        return;
    }
    g_task_return_error(task, g_steal_pointer(&error));
    g_object_unref(job->task);
    g_free(job);
}
