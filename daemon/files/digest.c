/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Computes the digest of a file and remembers it (files.h). The key is device, inode, length and both times
 * of change: each write to a file changes one of them. The digest of a file that changed a moment ago is not
 * remembered, since the clock of file systems is coarse. A block device has no such times, so its digest is
 * remembered for ten minutes.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "common/refusal.h"
#include "daemon/files/files.h"

#define BLOCK_LEN      (1u << 20)
#define NSAMPLES       256u /* of BLOCK_LEN each */
#define TOLD_US        G_USEC_PER_SEC
#define LONGEST_US     (300 * G_USEC_PER_SEC)
#define REMEMBERED_MAX 1024u
#define COARSE_S       2 /* a change younger than this may be followed by one with the same time */
#define DEVICE_US      (600 * G_USEC_PER_SEC)

struct remembered {
    struct file_digest digest;
    gint64 until_us; /* 0: as long as the key is found */
};

static GMutex reading; /* one file at a time; it also guards what follows */
static GHashTable *remembered;
static unsigned count;

static char *key_of(const struct stat *status)
{
    if (S_ISBLK(status->st_mode))
        return g_strdup_printf("device %ju", (uintmax_t)status->st_rdev);
    return g_strdup_printf("%ju:%ju:%jd:%jd.%09ld:%jd.%09ld", (uintmax_t)status->st_dev,
                           (uintmax_t)status->st_ino, (intmax_t)status->st_size,
                           (intmax_t)status->st_mtim.tv_sec, status->st_mtim.tv_nsec,
                           (intmax_t)status->st_ctim.tv_sec, status->st_ctim.tv_nsec);
}

static bool recall(const char *key, struct file_digest *digest)
{
    const struct remembered *found = remembered ? g_hash_table_lookup(remembered, key) : NULL;
    if (!found || (found->until_us && found->until_us < g_get_monotonic_time()))
        return false;
    *digest = found->digest;
    return true;
}

static void remember(const char *key, const struct stat *status, const struct file_digest *digest)
{
    bool is_device = S_ISBLK(status->st_mode);
    time_t changed = MAX(status->st_mtim.tv_sec, status->st_ctim.tv_sec);
    if (!is_device && time(NULL) - changed < COARSE_S)
        return;
    if (!remembered)
        remembered = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    if (g_hash_table_size(remembered) >= REMEMBERED_MAX)
        g_hash_table_remove_all(remembered);
    struct remembered *entry = g_new(struct remembered, 1);
    entry->digest = *digest;
    entry->until_us = is_device ? g_get_monotonic_time() + DEVICE_US : 0;
    g_hash_table_replace(remembered, g_strdup(key), entry);
}

static int read_whole(int fd, uint8_t *block, size_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n = pread(fd, block, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EAGAIN; /* shorter than it was */
        block += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* Sets offset and length of the digest's block `number`. False: there is no such block. */
static bool next_block(const struct file_digest *digest, uint64_t number, uint64_t *offset, size_t *len)
{
    uint64_t nblocks = digest->sampled ? NSAMPLES : (digest->len + BLOCK_LEN - 1) / BLOCK_LEN;
    if (number >= nblocks)
        return false;
    *offset = digest->sampled
                  ? (uint64_t)((double)(digest->len - BLOCK_LEN) / (NSAMPLES - 1) * (double)number)
                  : number * BLOCK_LEN;
    *len = (size_t)MIN(digest->len - *offset, BLOCK_LEN);
    return true;
}

static int compute(int fd, const char *path, struct file_digest *digest,
                   const struct files_progress *progress)
{
    g_autofree uint8_t *block = g_malloc(BLOCK_LEN);
    gnutls_hash_hd_t hash;
    uint64_t offset = 0, done = 0;
    size_t len = 0;
    int status = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0 ? -EIO : 0;
    if (status < 0)
        return status;
    uint64_t total = digest->sampled ? (uint64_t)NSAMPLES * BLOCK_LEN : digest->len;
    gint64 began = g_get_monotonic_time(), told = began;
    for (uint64_t i = 0; status == 0 && next_block(digest, i, &offset, &len); i++) {
        status = read_whole(fd, block, len, offset);
        if (status == 0 && gnutls_hash(hash, block, len) < 0)
            status = -EIO;
        done += len;
        gint64 now = g_get_monotonic_time();
        if (now - began > LONGEST_US)
            status = -ETIMEDOUT;
        if (progress && now - told > TOLD_US) {
            progress->told(path, done, total, progress->opaque);
            told = now;
        }
    }
    gnutls_hash_deinit(hash, digest->sha256);
    return status;
}

static int digest_of_fd(int fd, const char *path, struct file_digest *digest,
                        const struct files_progress *progress)
{
    struct stat before, after;
    if (fstat(fd, &before) < 0)
        return -errno;
    if (S_ISDIR(before.st_mode))
        return -EISDIR;
    bool is_device = S_ISBLK(before.st_mode);
    digest->has_content = is_device || S_ISREG(before.st_mode);
    if (!digest->has_content)
        return 0;
    off_t len = lseek(fd, 0, SEEK_END);
    if (len < 0)
        return -errno;
    digest->len = (uint64_t)len;
    digest->sampled =
        digest->len > FILES_WHOLE_MAX || (is_device && digest->len > NSAMPLES * (uint64_t)BLOCK_LEN);
    g_autofree char *key = key_of(&before);
    if (recall(key, digest))
        return 0;
    count++;
    int status = compute(fd, path, digest, progress);
    if (status < 0 || fstat(fd, &after) < 0)
        return status < 0 ? status : -errno;
    g_autofree char *key_after = key_of(&after);
    if (strcmp(key, key_after) != 0)
        return -EAGAIN;
    remember(key, &after, digest);
    return 0;
}

bool file_digest(const char *path, struct file_digest *digest, const struct files_progress *progress,
                 GError **error)
{
    memset(digest, 0, sizeof *digest);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int status = fd < 0 ? -errno : 0;
    if (fd >= 0) {
        g_mutex_lock(&reading);
        status = digest_of_fd(fd, path, digest, progress);
        g_mutex_unlock(&reading);
        close(fd);
    }
    if (status == -EAGAIN)
        return refuse(
            error, "the file %s changes while it is read: both hosts need a file that does not change", path);
    if (status == -ETIMEDOUT)
        return refuse(error, "the file %s cannot be read within %d s: keep it on a faster disk", path,
                      (int)(LONGEST_US / G_USEC_PER_SEC));
    return status == 0 || refuse(error, "the file %s cannot be read on host %s: %s", path, g_get_host_name(),
                                 g_strerror(-status));
}

unsigned file_digest_count(void)
{
    g_mutex_lock(&reading);
    unsigned now = count;
    g_mutex_unlock(&reading);
    return now;
}
