/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A GTask's work on a thread of its own. g_task_run_in_thread does not say that no thread can be had: its
 * task, and whoever waits for it, would wait until another one is begun.
 */
#ifndef UNDERSTUDY_DAEMON_TASK_THREAD_H
#define UNDERSTUDY_DAEMON_TASK_THREAD_H

#include <gio/gio.h>

/* Without a thread the task returns the error. work gets the task and its data; it returns the task's value.
 */
void task_thread_run(GTask *task, GTaskThreadFunc work);

#endif
