/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sets the niceness of all threads of a process (priority.h). On Linux niceness belongs to a thread, not to a
 * process, so each thread gets it. If the kernel groups processes by session (CONFIG_SCHED_AUTOGROUP, which
 * distributions switch on), a thread's niceness counts only inside its session. Between sessions the niceness
 * of the group counts, which is set through any member.
 */
#include "common/priority.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

void priority_take_real_time(void)
{
    struct sched_param param = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param);
}

static bool is_ordinary(pid_t tid)
{
    errno = 0;
    return (sched_getscheduler(tid) & ~SCHED_RESET_ON_FORK) == SCHED_OTHER &&
           getpriority(PRIO_PROCESS, (id_t)tid) == 0 && errno == 0;
}

/* Changes the group only if the session is the process's own: other programs must not be affected. */
static void set_group_nice(pid_t pid, int nice)
{
    char path[40], text[8];
    snprintf(path, sizeof path, "/proc/%d/autogroup", (int)pid);
    int len = snprintf(text, sizeof text, "%d", nice);
    int fd = getsid(pid) == pid ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    ssize_t ignored = write(fd, text, (size_t)len);
    (void)ignored;
    close(fd);
}

unsigned priority_set_nice(pid_t pid, int nice)
{
    char path[32];
    const struct dirent *entry;
    unsigned changed = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = nice ? opendir(path) : NULL;
    while (tasks && (entry = readdir(tasks))) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (tid > 0 && is_ordinary(tid) && setpriority(PRIO_PROCESS, (id_t)tid, nice) == 0)
            changed++;
    }
    if (tasks)
        closedir(tasks);
    /* A child inherits its parent's niceness, and then nothing changed above. Its new session does not. */
    if (nice && (changed || getpriority(PRIO_PROCESS, (id_t)pid) == nice))
        set_group_nice(pid, nice);
    return changed;
}
