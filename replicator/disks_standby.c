/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See disks.h: the standby's part. An epoch's writes go to the journal as a whole before the first of them
 * goes to an image; whoever opens the images next replays what the journal has whole. A synchronisation
 * writes to the images directly, and a marker file says so until they are whole again: they are then no state
 * that the VM ever had, and nobody should start it from them by accident.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>

#include "checkpoint/disk_section.h"
#include "replicator/disks_internal.h"

#define WRITE_BACK_LEN (32u << 20)
#define MARKER         "synchronising"
/* Two epochs as large as they can be, of one disk: a journal that is full waits for the images' sync. */
#define JOURNAL_LEN (2ull * DISKS_RING_LEN + (64ull << 20))

/* Kept for whoever ends this standby. */
static void tell_failure(const struct disk *disk, int status)
{
    g_mutex_lock(&disk->disks->mutex);
    g_free(disk->disks->failure);
    disk->disks->failure = g_strdup_printf("disk %s: writing to %s failed: %s", disk->id,
                                           disk_image_path(disk->image), g_strerror(-status));
    g_mutex_unlock(&disk->disks->mutex);
}

char *disks_failure(struct disks *disks)
{
    g_mutex_lock(&disks->mutex);
    char *failure = g_strdup(disks->failure);
    g_mutex_unlock(&disks->mutex);
    return failure;
}

/* Starts writing out what was written, now and then: a later sync then has little to wait for. */
static void write_back(struct disk *disk, uint64_t len)
{
    disk->unsynced += len;
    if (disk->unsynced < WRITE_BACK_LEN)
        return;
    disk->unsynced = 0;
    sync_file_range(disk_image_fd(disk->image), 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* Decodes again what was checked: the peer may still be able to write there. */
static int apply_stream(struct disks *disks, const struct disk_stream *stream)
{
    struct disk_stream rest = *stream;
    struct disk_record record;
    int status;
    while ((status = disk_stream_next(&rest, &record)) == 1) {
        if (record.disk >= disks->n || record.len > disks->len[record.disk] ||
            record.offset > disks->len[record.disk] - record.len)
            return -EPROTO;
        if (disks->disk[record.disk].shared)
            continue;
        status = disk_image_apply(disks->disk[record.disk].image, &record);
        if (status < 0) {
            tell_failure(&disks->disk[record.disk], status);
            return status;
        }
        write_back(&disks->disk[record.disk], record.len);
    }
    return status;
}

/* ---- opening ---- */

static int replay_one(void *opaque, uint64_t term, uint64_t epoch, const struct disk_stream *writes)
{
    (void)term;
    (void)epoch;
    return apply_stream(opaque, writes);
}

static bool refuse_half_synchronised(struct disks *disks, GError **error)
{
    g_autofree char *marker = disks_state_path(disks, MARKER);
    if (disks->config.standby || !g_file_test(marker, G_FILE_TEST_EXISTS))
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                "the disks of VM %s on this host were being overwritten by a synchronisation that did not "
                "end: start the "
                "VM on the other host, or remove %s to use them as they are",
                disks->config.vm_name, marker);
    return false;
}

bool disks_standby_open(struct disks *disks, GError **error)
{
    g_autofree char *path = disks_state_path(disks, "journal");
    if (!refuse_half_synchronised(disks, error))
        return false;
    int status = disk_journal_open(&disks->journal, path, JOURNAL_LEN);
    int64_t replayed = status < 0 ? status : disk_journal_replay(disks->journal, replay_one, disks);
    if (replayed > 0) {
        g_message("%s: wrote %" G_GINT64_FORMAT " epochs from the journal to the disks again",
                  disks->config.vm_name, replayed);
        status = disks_sync(disks);
        if (status == 0)
            status = disk_journal_trim(disks->journal);
    }
    if (replayed >= 0 && status == 0)
        return true;
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(replayed < 0 ? (int)-replayed : -status),
                "the disks' journal %s cannot be used: %s", path,
                g_strerror(replayed < 0 ? (int)-replayed : -status));
    return false;
}

/* ---- epochs ---- */

int disks_check(const struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch)
{
    struct disk_stream stream;
    if (epoch->disk_len == 0)
        return 0;
    disk_section_stream(staging, epoch, &stream);
    return disk_stream_check(&stream, disks ? disks->len : NULL, disks_count(disks));
}

int disks_journal(struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch,
                  uint64_t term, bool durable)
{
    struct disk_stream stream;
    if (!disks || epoch->disk_len == 0)
        return 0;
    disk_section_stream(staging, epoch, &stream);
    int status = disk_journal_append(disks->journal, term, epoch->epoch, &stream);
    if (status == -ENOSPC) {
        /* All that it holds is in the images, up to the last epoch. */
        status = disks_sync(disks);
        if (status == 0)
            status = disk_journal_trim(disks->journal);
        if (status == 0)
            status = disk_journal_append(disks->journal, term, epoch->epoch, &stream);
    }
    return status == 0 && durable ? disk_journal_sync(disks->journal) : status;
}

int disks_apply(struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch)
{
    struct disk_stream stream;
    if (!disks || epoch->disk_len == 0)
        return 0;
    disk_section_stream(staging, epoch, &stream);
    return apply_stream(disks, &stream);
}

int disks_begin_synchronisation(struct disks *disks)
{
    g_autoptr(GError) error = NULL;
    if (!disks)
        return 0;
    g_autofree char *marker = disks_state_path(disks, MARKER);
    /* Before the first byte changes, and what the journal has must not come back over newer blocks. */
    if (!g_file_set_contents_full(marker, "", 0, G_FILE_SET_CONTENTS_DURABLE, 0600, &error))
        return -EIO;
    int status = disks_sync(disks);
    return status == 0 ? disk_journal_trim(disks->journal) : status;
}

int disks_whole(struct disks *disks)
{
    if (!disks)
        return 0;
    g_autofree char *marker = disks_state_path(disks, MARKER);
    for (unsigned i = 0; i < disks->n; i++) {
        disk_map_clear_all(disks->disk[i].map, 0);
        disk_map_clear_all(disks->disk[i].map, 1);
    }
    return g_unlink(marker) == 0 || errno == ENOENT ? 0 : -errno;
}

int disks_end_standby(struct disks *disks, bool sync)
{
    if (!disks)
        return 0;
    int status = sync ? disks_sync(disks) : 0;
    return status == 0 ? disk_journal_trim(disks->journal) : status;
}
