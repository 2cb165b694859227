/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into a replicator: storage that does not answer. While the file UNDERSTUDY_HANG_READS.on is
 * there, a read of an image (*.raw) says so by the file UNDERSTUDY_HANG_READS.hung and does not return before
 * somebody opens the FIFO UNDERSTUDY_HANG_READS to write. Only in this process, not in those that it starts:
 * QEMU and nbdkit have their disks as ever, so that what stands still is the replicator's own doing.
 *
 * A sleep of a minute, the limit for an end that storage holds up, is a tenth of it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))

static char fifo[PATH_MAX - 16], on[PATH_MAX], hung[PATH_MAX];
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static void (*real_usleep)(unsigned long);

static __attribute__((constructor)) void begin(void)
{
    const char *name = getenv("UNDERSTUDY_HANG_READS");
    *(void **)&real_pread = dlsym(RTLD_NEXT, "pread");
    *(void **)&real_usleep = dlsym(RTLD_NEXT, "g_usleep");
    unsetenv("LD_PRELOAD");
    if (!name || strlen(name) >= sizeof fifo)
        return;
    snprintf(fifo, sizeof fifo, "%s", name);
    snprintf(on, sizeof on, "%s.on", fifo);
    snprintf(hung, sizeof hung, "%s.hung", fifo);
}

static bool is_image(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path);
    return len > 4 && memcmp(path + len - 4, ".raw", 4) == 0;
}

SHOWN ssize_t pread(int fd, void *buffer, size_t len, off_t offset);
SHOWN ssize_t pread(int fd, void *buffer, size_t len, off_t offset)
{
    if (fifo[0] && access(on, F_OK) == 0 && is_image(fd)) {
        close(open(hung, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        close(open(fifo, O_RDONLY | O_CLOEXEC));
    }
    return real_pread(fd, buffer, len, offset);
}

SHOWN void g_usleep(unsigned long us);
SHOWN void g_usleep(unsigned long us)
{
    real_usleep(us < 60000000 ? us : us / 10);
}
