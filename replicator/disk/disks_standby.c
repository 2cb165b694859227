/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's part: journal, images, and the marker of a synchronisation. An epoch's writes go to the
 * journal as a whole before the first of them goes to an image. When the images are opened next, the
 * journal's whole epochs are replayed. A synchronisation writes to the images directly, and a marker file
 * says so until they are whole again: meanwhile they are at no state that the VM ever had, and the VM must
 * not be started from them by accident.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>

#include "checkpoint/disk/disk_section.h"
#include "replicator/disk/disks_internal.h"

#define WRITE_BACK_LEN (32u << 20)
#define LOCK_WAIT_S    10
#define LOCK_POLL_US   2000
#define MARKER         "synchronising"
/* An epoch as large as it can be, and as much again of one disk: a journal that is full waits for the images'
 * sync. */
#define JOURNAL_LEN(n) (((n) + 1ull) * DISKS_RING_LEN + (64ull << 20))

/* Starts writeback now and then, so that a later sync has little to wait for. */
static void write_back(struct disk *disk, uint64_t len)
{
    disk->unsynced += len;
    if (disk->unsynced < WRITE_BACK_LEN)
        return;
    disk->unsynced = 0;
    sync_file_range(disk_image_fd(disk->image), 0, 0, SYNC_FILE_RANGE_WRITE);
}

/*
 * Applies a stream's records. They were checked, but are decoded again: the peer may still be able to write
 * there. shared: which disks' writes.
 */
static int apply_stream(struct disks *disks, const struct disk_stream *stream, bool shared)
{
    struct disk_stream rest = *stream;
    struct disk_record record;
    int status;
    while ((status = disk_stream_next(&rest, &record)) == 1) {
        if (record.disk >= disks->n || !disk_record_fits(&record, disks->len[record.disk]))
            return -EPROTO;
        if (disks->disk[record.disk].shared != shared)
            continue;
        status = disk_image_apply(disks->disk[record.disk].image, &record);
        if (status < 0) {
            atomic_store(&disks->torn, true);
            disks_keep_image_failure(&disks->disk[record.disk], "writing to", status);
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
    return apply_stream(opaque, writes, false);
}

static bool is_half_synchronised(const struct disks *disks)
{
    g_autofree char *marker = disks_state_path(disks, MARKER);
    return g_file_test(marker, G_FILE_TEST_EXISTS);
}

static bool refuse_half_synchronised(struct disks *disks, GError **error)
{
    g_autofree char *marker = disks_state_path(disks, MARKER);
    if (disks->config.standby || !is_half_synchronised(disks))
        return true;
    g_set_error(
        error, G_IO_ERROR, G_IO_ERROR_FAILED,
        "the disks of VM %s on this host are in no state that it ever had (a synchronisation did not end, "
        "or the journal %s was damaged): start the VM on the other host, or remove %s to use them as "
        "they are",
        disks->config.vm_name, disks->config.state_dir, marker);
    return false;
}

static int mark_half_synchronised(struct disks *disks)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *marker = disks_state_path(disks, MARKER);
    if (g_file_set_contents_full(marker, "", 0, G_FILE_SET_CONTENTS_DURABLE, 0600, &error))
        return 0;
    int status = g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOSPC) ? -ENOSPC : -EIO;
    disks_keep_file_failure(disks, "the marker of a synchronisation", MARKER, status);
    return status;
}

/* Removes the map, so that the next synchronisation compares everything. False: there was no map. */
static bool forget_map(const struct disks *disks, unsigned number)
{
    g_autofree char *name = g_strdup_printf("disk-%u.map", number);
    g_autofree char *path = disks_state_path(disks, name);
    return g_unlink(path) == 0;
}

/*
 * Handles a damaged journal, which cannot say which epochs the images have in part. The synchronisation
 * overwrites all differences, and the VM is not started from the images before.
 */
static int forget_damaged(struct disks *disks)
{
    g_warning("%s: the disks' journal is damaged: they may be in no state that the VM ever had, and will be "
              "compared with the other host's block by block",
              disks->config.vm_name);
    int status = mark_half_synchronised(disks);
    for (unsigned i = 0; i < disks->n; i++)
        forget_map(disks, i);
    return status < 0 ? status : disk_journal_trim(disks->journal);
}

/* Handles a lost journal: an epoch that the images have in part can no longer be completed. */
static void forget_lost(const struct disks *disks)
{
    bool had_map = false;
    for (unsigned i = 0; i < disks->n; i++)
        had_map |= forget_map(disks, i);
    if (had_map)
        g_warning(
            "%s: the disks' journal was lost; they will be compared with the other host's block by block",
            disks->config.vm_name);
}

static int replay(struct disks *disks)
{
    int64_t replayed = disk_journal_replay(disks->journal, replay_one, disks);
    if (replayed == -EBADMSG)
        return forget_damaged(disks);
    if (disk_journal_is_new(disks->journal))
        forget_lost(disks);
    if (replayed <= 0)
        return (int)replayed;
    g_message("%s: wrote %" G_GINT64_FORMAT " epochs from the journal to the disks again",
              disks->config.vm_name, replayed);
    int status = disks_sync(disks);
    return status == 0 ? disk_journal_trim(disks->journal) : status;
}

bool disks_standby_open(struct disks *disks, GError **error)
{
    g_autofree char *path = disks_state_path(disks, "journal");
    int status = disk_journal_open(&disks->journal, path, JOURNAL_LEN(disks->n));
    if (status == 0)
        status = replay(disks);
    if (status == 0)
        return refuse_half_synchronised(disks, error);
    g_autofree char *failure = disks_failure(disks);
    g_autofree char *room = g_strdup_printf(" (it takes %" G_GUINT64_FORMAT
                                            " MiB there: make room, or see understudyd --state-dir)",
                                            (uint64_t)(JOURNAL_LEN(disks->n) >> 20));
    if (failure)
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                    "what the journal %s holds could not be written: %s", path, failure);
    else
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                    "the disks' journal %s cannot be used: %s%s", path, g_strerror(-status),
                    status == -ENOSPC ? room : "");
    return false;
}

/* ---- writes withheld from a shared image until their epoch is acknowledged ---- */

/*
 * An epoch's writes to shared disks: withheld from the image until the primary has written them. If the
 * primary dies before, this host writes them.
 */
struct held_epoch {
    uint64_t epoch;
    struct disk_stream stream;
    size_t len;
    uint8_t bytes[];
};

#define HELD_MAX (2ull * DISKS_RING_LEN * DISK_MAX)

static bool has_shared(const struct disks *disks, const struct disk_stream *stream)
{
    struct disk_stream rest = *stream;
    struct disk_record record;
    while (disk_stream_next(&rest, &record) == 1)
        if (record.disk < disks->n && disks->disk[record.disk].shared)
            return true;
    return false;
}

static int keep_held(struct disks *disks, const struct disk_stream *stream, uint64_t epoch, size_t len)
{
    struct held_epoch *held = NULL;
    if (disks->held_bytes + len <= HELD_MAX)
        held = g_try_malloc(sizeof *held + len);
    if (!held)
        return -ENOMEM;
    disks->held_bytes += len;
    *held = (struct held_epoch){.epoch = epoch, .len = len};
    memcpy(held->bytes, stream->span[0].iov_base, stream->span[0].iov_len);
    if (stream->span[1].iov_len)
        memcpy(held->bytes + stream->span[0].iov_len, stream->span[1].iov_base, stream->span[1].iov_len);
    disk_stream_of_ring(&held->stream, held->bytes, len, 0, len);
    g_queue_push_tail(&disks->held, held);
    return 0;
}

void disks_flushed(struct disks *disks, unsigned number, uint64_t epoch)
{
    uint64_t all = UINT64_MAX;
    if (number < disks->n)
        disks->disk[number].flushed_epoch = epoch;
    for (unsigned i = 0; i < disks->n; i++)
        if (disks->disk[i].shared)
            all = MIN(all, disks->disk[i].flushed_epoch);
    for (struct held_epoch *held; (held = g_queue_peek_head(&disks->held)) && held->epoch <= all;) {
        disks->held_bytes -= held->len;
        g_free(g_queue_pop_head(&disks->held));
    }
}

void disks_forget_held(struct disks *disks)
{
    for (unsigned i = 0; i < disks->n; i++)
        disks->disk[i].flushed_epoch = 0;
    g_queue_clear_full(&disks->held, g_free);
    disks->held_bytes = 0;
}

/*
 * Waits for the lock on a shared image. The other host's lock ends with its processes. While it exists,
 * that host may still write, so nothing here may.
 */
static int wait_for_lock(struct disks *disks)
{
    gint64 until = g_get_monotonic_time() + LOCK_WAIT_S * G_USEC_PER_SEC;
    int status;
    while ((status = disks_lock_shared(disks)) == -EAGAIN && g_get_monotonic_time() < until)
        g_usleep(LOCK_POLL_US); /* no event tells of a lock that another host gives up */
    if (status == -EAGAIN)
        disks_keep_failure(
            disks, "a shared disk is still locked by the other host: is it alive? It must be stopped first");
    return status;
}

static int write_held(struct disks *disks)
{
    int status = wait_for_lock(disks);
    for (GList *at = disks->held.head; at && status == 0; at = at->next)
        status = apply_stream(disks, &((struct held_epoch *)at->data)->stream, true);
    if (status == 0)
        disks_forget_held(disks);
    return status;
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

/*
 * Appends an epoch. If the ring is full, the images, which have everything up to the last epoch, are synced
 * and the journal is emptied.
 */
static int append_to_journal(struct disks *disks, uint64_t term, uint64_t epoch,
                             const struct disk_stream *stream, bool durable)
{
    int status = disk_journal_append(disks->journal, term, epoch, stream);
    if (status == -ENOSPC) {
        status = disks_sync(disks);
        if (status < 0)
            return status;
        status = disk_journal_trim(disks->journal);
        if (status == 0)
            status = disk_journal_append(disks->journal, term, epoch, stream);
    }
    if (status == 0 && durable)
        status = disk_journal_sync(disks->journal);
    if (status < 0)
        disks_keep_file_failure(disks, "the disks' journal", "journal", status);
    return status;
}

int disks_journal(struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch,
                  uint64_t term, bool durable)
{
    struct disk_stream stream;
    if (!disks || epoch->disk_len == 0)
        return 0;
    disk_section_stream(staging, epoch, &stream);
    return append_to_journal(disks, term, epoch->epoch, &stream, durable);
}

int disks_apply(struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch)
{
    struct disk_stream stream;
    if (!disks || epoch->disk_len == 0)
        return 0;
    disk_section_stream(staging, epoch, &stream);
    int status = apply_stream(disks, &stream, false);
    if (status < 0 || epoch->kind != STAGED_EPOCH || !has_shared(disks, &stream))
        return status;
    return keep_held(disks, &stream, epoch->epoch, epoch->disk_len);
}

int disks_begin_synchronisation(struct disks *disks)
{
    if (!disks)
        return 0;
    /* Before the first byte changes, and what the journal has must not come back over newer blocks. */
    int status = mark_half_synchronised(disks);
    if (status == 0)
        status = disks_sync(disks);
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
    int status = disks_any_shared(disks) ? write_held(disks) : 0;
    if (status == 0 && sync)
        status = disks_sync(disks);
    return status == 0 ? disk_journal_trim(disks->journal) : status;
}
