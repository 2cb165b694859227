/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saves the device state into the devstate memfd while the guest is paused, and checks that a standby could
 * load it.
 *
 * A stream begins with a header (magic and version). Up to QEMU 10, qemu_save_device_state writes it. QEMU 11
 * leaves that to its callers, so the hook writes it. The first save, which the hook makes at start
 * (hook_prove_save), shows which of the two applies. The hook checks the beginning of every save: a stream
 * that begins with neither a header nor a section is an error, and the checkpoint fails.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

/* QEMU migration/qemu-file-types and savevm.h, the same in 7.2 to 11.1. */
#define FILE_MAGIC            0x5145564du /* "QEVM" */
#define FILE_VERSION          3u
#define SECTION_START         0x01
#define SECTION_FULL          0x04
#define SECTION_CONFIGURATION 0x07

struct stream_header {
    uint32_t magic, version;
};

enum beginning { BEGINS_WITH_HEADER, BEGINS_WITH_SECTION, BEGINS_OTHERWISE };

/* Returns what the bytes from offset `at` on begin with. */
static enum beginning begins_with(const struct hook *hook, off_t at)
{
    union {
        struct stream_header header;
        uint8_t type;
    } first = {0};
    if (pread(hook->devstate_fd, &first, sizeof first, at) != sizeof first)
        return BEGINS_OTHERWISE;
    if (first.header.magic == htobe32(FILE_MAGIC))
        return first.header.version == htobe32(FILE_VERSION) ? BEGINS_WITH_HEADER : BEGINS_OTHERWISE;
    return first.type == SECTION_FULL || first.type == SECTION_START || first.type == SECTION_CONFIGURATION
               ? BEGINS_WITH_SECTION
               : BEGINS_OTHERWISE;
}

#ifdef UNDERSTUDY_CHAOS
/* Planted faults: a QEMU that leaves the header to the hook, and a QEMU that writes an unknown stream. */
static void chaos_spoil(struct hook *hook, off_t at, uint64_t *len)
{
    bool headerless = hook_chaos("headerless") && begins_with(hook, at) == BEGINS_WITH_HEADER;
    if (!headerless && !hook_chaos("no-stream"))
        return;
    size_t skip = headerless ? sizeof(struct stream_header) : 0;
    char *bytes = calloc(1, *len); /* zeros: neither a header nor a section */
    if ((headerless && pread(hook->devstate_fd, bytes, *len, at) != (ssize_t)*len) ||
        pwrite(hook->devstate_fd, bytes + skip, *len - skip, at) != (ssize_t)(*len - skip))
        abort();
    *len -= skip;
    free(bytes);
}
#else
static void chaos_spoil(struct hook *hook, off_t at, uint64_t *len)
{
    (void)hook;
    (void)at;
    (void)len;
}
#endif

/*
 * The slow way, where a symbol of the fast one is missing: what xen-save-devices-state does. It truncates its
 * file, which the sealed devstate memfd refuses, so it writes to a file of its own that is copied over. It
 * always marks the guest as running, so it is no use for one that was paused.
 */
static int save_devices_slowly(struct hook *hook, bool was_running, uint64_t *len)
{
    char path[32];
    struct stat st;
    struct Error *error = NULL;
    if (!was_running)
        return -EOPNOTSUPP;
    if (hook->scratch_fd < 0)
        hook->scratch_fd = memfd_create("understudy-scratch", MFD_CLOEXEC);
    if (hook->scratch_fd < 0)
        return -errno;
    snprintf(path, sizeof path, "/proc/self/fd/%d", hook->scratch_fd);
    hook->qemu.qmp_xen_save_devices_state(path, true, false, &error);
    if (error) {
        hook->qemu.error_free(error);
        return -EIO;
    }
    off_t from = 0;
    if (fstat(hook->scratch_fd, &st) < 0 || lseek(hook->devstate_fd, 0, SEEK_SET) < 0)
        return -errno;
    while (from < st.st_size) {
        if (sendfile(hook->devstate_fd, hook->scratch_fd, &from, (size_t)(st.st_size - from)) <= 0)
            return -EIO;
    }
    *len = (uint64_t)from;
    return 0;
}

/* Lets QEMU write its part of the stream from offset `at` on. Returns 0 or -errno. */
static int save_devices_at(struct hook *hook, bool was_running, off_t at, uint64_t *len)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    if (lseek(hook->devstate_fd, at, SEEK_SET) < 0)
        return -errno;
    int fd = fcntl(hook->devstate_fd, F_DUPFD_CLOEXEC, 0); /* shares the file position */
    if (fd < 0)
        return -errno;
    /* The standby starts the guest only if the state says that it ran. */
    if (was_running)
        qemu->global_state_store_running();
    else
        qemu->global_state_store();
    struct QIOChannelFile *channel = qemu->qio_channel_file_new_fd(fd);
    struct QEMUFile *file = qemu->qemu_file_new_output(channel);
    qemu->object_unref(channel); /* the file holds it */
    int saved = qemu->qemu_save_device_state(file);
    int closed = qemu->qemu_fclose(file);
    if (saved < 0 || closed < 0)
        return saved < 0 ? saved : closed;
    off_t end = lseek(hook->devstate_fd, 0, SEEK_CUR);
    if (end <= at)
        return -EIO;
    *len = (uint64_t)(end - at);
    chaos_spoil(hook, at, len);
    return 0;
}

static int save_devices_with_header(struct hook *hook, bool was_running, uint64_t *len)
{
    const struct stream_header header = {htobe32(FILE_MAGIC), htobe32(FILE_VERSION)};
    int status = save_devices_at(hook, was_running, sizeof header, len);
    if (status < 0)
        return status;
    if (pwrite(hook->devstate_fd, &header, sizeof header, 0) != sizeof header)
        return -EIO;
    *len += sizeof header;
    return 0;
}

static int save_devices(struct hook *hook, bool was_running, uint64_t *len)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    if (!qemu->qio_channel_file_new_fd || !qemu->qemu_file_new_output || !qemu->qemu_save_device_state ||
        !qemu->qemu_fclose || !qemu->object_unref || hook_chaos("slow-save"))
        return save_devices_slowly(hook, was_running, len);
    if (!hook->adds_header) {
        int status = save_devices_at(hook, was_running, 0, len);
        if (status < 0 || begins_with(hook, 0) != BEGINS_WITH_SECTION)
            return status;
        hook->adds_header = true; /* once in a process's life: this save is done again */
    }
    int status = save_devices_with_header(hook, was_running, len);
    if (status == 0 && begins_with(hook, sizeof(struct stream_header)) != BEGINS_WITH_SECTION)
        return -EPROTO;
    return status;
}

int hook_save_devices(struct hook *hook, bool was_running, uint64_t *len)
{
    *len = 0;
    int status = save_devices(hook, was_running, len);
    return status == 0 && begins_with(hook, 0) != BEGINS_WITH_HEADER ? -EPROTO : status;
}

int hook_prove_save(struct hook *hook)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    struct hook_clock_mark mark = {0};
    uint64_t len;
    /* A standby has nothing to save yet; its first checkpoint looks. A guest held by -S is the same. */
    if (!qemu->runstate_is_running())
        return 0;
    hook_clock_before_stop(hook, &mark);
    qemu->vm_stop(QEMU_RUN_STATE_PAUSED);
    int status = hook_save_devices(hook, true, &len);
    hook_clock_before_start(hook, &mark);
    qemu->vm_start();
    hook_clock_after_start(hook, &mark);
    return status;
}
