/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Takes the parameters that our plugin takes, and serves the image's descriptor. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "replicator/disk/plugin/parent_death.h"

static int shm = -1, image = -1, map = -1, attention = -1, parent;
static const char *name;

static int stub_config(const char *key, const char *value)
{
    if (strcmp(key, "name") == 0)
        name = value;
    else if (strcmp(key, "shm") == 0)
        return nbdkit_parse_int(key, value, &shm);
    else if (strcmp(key, "image") == 0)
        return nbdkit_parse_int(key, value, &image);
    else if (strcmp(key, "map") == 0)
        return nbdkit_parse_int(key, value, &map);
    else if (strcmp(key, "attention") == 0)
        return nbdkit_parse_int(key, value, &attention);
    else if (strcmp(key, "parent") == 0)
        return nbdkit_parse_int(key, value, &parent);
    else
        return nbdkit_error("%s is not known", key), -1;
    return 0;
}

static int stub_ready(void)
{
    struct stat status;
    if (!name || fstat(shm, &status) < 0 || fstat(image, &status) < 0 || fstat(map, &status) < 0 ||
        fstat(attention, &status) < 0) {
        nbdkit_error("a descriptor is not open");
        return -1;
    }
    return 0;
}

static int stub_after_fork(void)
{
    return parent_death_await(parent) ? 0 : -1;
}

static void *stub_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t stub_get_size(void *handle)
{
    struct stat status;
    (void)handle;
    return fstat(image, &status) < 0 ? -1 : status.st_size;
}

static int stub_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return pread(image, buffer, count, (off_t)offset) == (ssize_t)count ? 0 : -1;
}

static struct nbdkit_plugin plugin = {
    .name = "stub",
    .config = stub_config,
    .get_ready = stub_ready,
    .after_fork = stub_after_fork,
    .open = stub_open,
    .get_size = stub_get_size,
    .pread = stub_pread,
};
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
NBDKIT_REGISTER_PLUGIN(plugin)
