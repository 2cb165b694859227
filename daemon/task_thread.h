/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a GTask's work on a thread of its own. g_task_run_in_thread reports no error if no thread can be
 * created: the task, and its caller, would wait until another task is started.
 */
#ifndef UNDERSTUDY_DAEMON_TASK_THREAD_H
#define UNDERSTUDY_DAEMON_TASK_THREAD_H

#include <gio/gio.h>

/* Runs work on a new thread. work gets the task and its data, and returns the task's value. If no thread can
 * be created, the task returns that error. */
void task_thread_run(GTask *task, GTaskThreadFunc work);

#endif
