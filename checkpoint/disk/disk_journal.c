/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An entry is replayed if it begins where the one before it ends, its sequence number follows, both its
 * checksums are right, and its life is not older. A life is the time from one opening to the next; the
 * superblock counts them. Without lives, an entry whose predecessor was lost with the host's power could be
 * replayed behind another, later predecessor of the same length.
 *
 * The mark says, after each append, how far the journal went. It is written to the page cache, so it survives
 * the death of this process, but not that of the host (it names the kernel's boot). It distinguishes a torn
 * entry at the end, which was never applied, from an entry that was whole once and is damaged, whose writes
 * the images may have in part.
 *
 * Order on disk: a superblock is durable before the bytes that it frees are used again, and before the
 * first entry of a new life. Entries become durable by disk_journal_sync, in any order before it.
 */
#include "checkpoint/disk/disk_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/disk/disk_image.h"
#include "checkpoint/disk/disk_journal_internal.h"
#include "proto/crc32c.h"
#include "proto/little_endian.h"

/* Planted faults, for the tests' own test. */
#ifdef UNDERSTUDY_CHAOS
static bool fault(const char *name)
{
    const char *planted = getenv("UNDERSTUDY_JOURNAL_CHAOS");
    return planted && strcmp(planted, name) == 0;
}
#else
#define fault(name) false
#endif

enum journal_state { JOURNAL_OPENED, JOURNAL_DAMAGED, JOURNAL_REPLAYED };

/* Where an entry begins, or would. */
struct place {
    uint64_t position, sequence, life;
};

struct disk_journal {
    int fd;
    enum journal_state state;
    bool is_new;
    uint64_t capacity, wanted_capacity;
    uint64_t generation; /* of the newest superblock */
    uint64_t life;
    struct place tail; /* oldest entry; entries of an older life do not count */
    struct place head; /* after the newest entry */
    uint8_t boot_id[DISK_MAP_BOOT_LEN];
};

struct entry_header {
    uint64_t term, epoch, len; /* of the stream */
    uint64_t life;
};

/* ---- the ring ---- */

static uint64_t entry_len(uint64_t stream_len)
{
    uint64_t len = DISK_JOURNAL_HEADER_LEN + stream_len + DISK_JOURNAL_END_LEN;
    return (len + DISK_JOURNAL_ALIGN - 1) & ~(uint64_t)(DISK_JOURNAL_ALIGN - 1);
}

static int ring_read(const struct disk_journal *journal, uint64_t position, void *out, uint64_t len)
{
    uint64_t at = position % journal->capacity, first = journal->capacity - at;
    if (first > len)
        first = len;
    int status = disk_image_read(journal->fd, out, first, DISK_JOURNAL_RING_OFFSET + at);
    if (status == 0 && first < len)
        status = disk_image_read(journal->fd, (uint8_t *)out + first, len - first, DISK_JOURNAL_RING_OFFSET);
    return status;
}

/* Writes the pieces one after the other from position on; they may wrap at the ring's end. */
static int ring_write(const struct disk_journal *journal, uint64_t position, const struct iovec *pieces,
                      unsigned npieces)
{
    struct iovec part[2][4]; /* before the ring's end, and from its beginning */
    unsigned nparts[2] = {0, 0};
    uint64_t at = position % journal->capacity, room = journal->capacity - at;
    for (unsigned i = 0; i < npieces; i++) {
        size_t before = pieces[i].iov_len < room ? pieces[i].iov_len : (size_t)room;
        if (before > 0)
            part[0][nparts[0]++] = (struct iovec){pieces[i].iov_base, before};
        if (before < pieces[i].iov_len)
            part[1][nparts[1]++] =
                (struct iovec){(uint8_t *)pieces[i].iov_base + before, pieces[i].iov_len - before};
        room -= before;
    }
    int status = disk_image_write(journal->fd, part[0], nparts[0], DISK_JOURNAL_RING_OFFSET + at, false);
    if (status == 0)
        status = disk_image_write(journal->fd, part[1], nparts[1], DISK_JOURNAL_RING_OFFSET, false);
    /* The file is preallocated: ENOSPC is a failure of the device and does not mean that the ring is full. */
    return status == -ENOSPC ? -EIO : status;
}

/* ---- superblocks and mark ---- */

static int write_superblock(struct disk_journal *journal, const struct place *tail, uint64_t life)
{
    _Alignas(128) uint8_t bytes[DISK_JOURNAL_SUPER_LEN]; /* in one page: never half written */
    struct iovec data = {bytes, sizeof bytes};
    uint8_t *at = put64(bytes, DISK_JOURNAL_MAGIC);
    at = put32(at, DISK_JOURNAL_VERSION);
    at = put32(at, 0);
    at = put64(at, journal->generation + 1);
    at = put64(at, journal->capacity);
    at = put64(at, tail->position);
    at = put64(at, tail->sequence);
    at = put64(at, tail->life);
    at = put64(at, life);
    at = put32(at, 0);
    put32(at, crc32c(0, bytes, sizeof bytes - 4));
    uint64_t slot = (journal->generation + 1) % 2;
    /* Not fdatasync: that would wait for all that was appended. */
    int status = disk_image_write(journal->fd, &data, 1, slot * DISK_JOURNAL_BLOCK_LEN, true);
    if (status < 0)
        return status;
    journal->generation++;
    journal->tail = *tail;
    journal->life = life;
    return 0;
}

/* Takes over the superblock in this slot if it is valid and newer than the one that is known. */
static void read_superblock(struct disk_journal *journal, unsigned slot, uint64_t file_len)
{
    uint8_t bytes[DISK_JOURNAL_SUPER_LEN];
    if (disk_image_read(journal->fd, bytes, sizeof bytes, slot * DISK_JOURNAL_BLOCK_LEN) < 0)
        return;
    uint64_t generation = get64(bytes + 16), capacity = get64(bytes + 24), position = get64(bytes + 32);
    uint64_t sequence = get64(bytes + 40), tail_life = get64(bytes + 48), life = get64(bytes + 56);
    if (get64(bytes) != DISK_JOURNAL_MAGIC || get32(bytes + 8) != DISK_JOURNAL_VERSION ||
        get32(bytes + sizeof bytes - 4) != crc32c(0, bytes, sizeof bytes - 4))
        return;
    if (generation <= journal->generation || generation > INT64_MAX || position > INT64_MAX ||
        position % DISK_JOURNAL_ALIGN || sequence > INT64_MAX || life > INT64_MAX || tail_life > life)
        return;
    /* A file that was cut short counts as a journal with damaged entries, but only up to the capacity that
     * this process would allocate. */
    if (capacity == 0 || capacity % DISK_JOURNAL_BLOCK_LEN || capacity > DISK_JOURNAL_MAX_CAPACITY ||
        file_len < DISK_JOURNAL_RING_OFFSET ||
        (capacity > journal->wanted_capacity && file_len < DISK_JOURNAL_RING_OFFSET + capacity))
        return;
    journal->generation = generation;
    journal->capacity = capacity;
    journal->tail = (struct place){position, sequence, tail_life};
    journal->life = life;
}

static int write_mark(const struct disk_journal *journal)
{
    _Alignas(64) uint8_t bytes[DISK_JOURNAL_MARK_LEN] = {0}; /* in one page: never half written */
    struct iovec data = {bytes, sizeof bytes};
    uint8_t *at = put64(bytes, DISK_JOURNAL_MARK_MAGIC);
    memcpy(at, journal->boot_id, DISK_MAP_BOOT_LEN);
    at = put64(at + DISK_MAP_BOOT_LEN, journal->head.position);
    put64(at, journal->head.sequence);
    put32(bytes + sizeof bytes - 4, crc32c(0, bytes, sizeof bytes - 4));
    return disk_image_write(journal->fd, &data, 1, DISK_JOURNAL_MARK_OFFSET, false);
}

/*
 * Returns whether the journal went further than end during this boot of the kernel; *mark says how far. Also
 * true if there is no valid mark: one is always there and never torn, so the file is damaged.
 */
static bool went_further(const struct disk_journal *journal, const struct place *end, struct place *mark)
{
    uint8_t bytes[DISK_JOURNAL_MARK_LEN];
    *mark = *end;
    if (disk_image_read(journal->fd, bytes, sizeof bytes, DISK_JOURNAL_MARK_OFFSET) < 0)
        return true;
    uint64_t position = get64(bytes + 24), sequence = get64(bytes + 32);
    if (get64(bytes) != DISK_JOURNAL_MARK_MAGIC || position > INT64_MAX || position % DISK_JOURNAL_ALIGN ||
        sequence > INT64_MAX || get32(bytes + sizeof bytes - 4) != crc32c(0, bytes, sizeof bytes - 4))
        return true;
    if (memcmp(bytes + 8, journal->boot_id, DISK_MAP_BOOT_LEN) != 0 || position <= end->position)
        return false;
    mark->position = position;
    mark->sequence = sequence;
    return true;
}

/* ---- open and close ---- */

static int sync_folder_of(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0)
        return -errno;
    int status = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return status;
}

/* Makes the file an empty journal of the wanted capacity. Truncates it first, so that no entry is left. */
static int make_anew(struct disk_journal *journal)
{
    struct place start = {0, 1, 1};
    if (ftruncate(journal->fd, 0) < 0)
        return -errno;
    journal->capacity = journal->wanted_capacity;
    journal->generation = 0;
    int status =
        posix_fallocate(journal->fd, 0, (off_t)(DISK_JOURNAL_RING_OFFSET + journal->wanted_capacity));
    if (status > 0)
        return -status;
    journal->head = start;
    status = write_mark(journal);
    if (status == 0)
        status = disk_journal_sync(journal);
    return status < 0 ? status : write_superblock(journal, &start, 1);
}

static int open_file(struct disk_journal *journal, const char *path)
{
    struct stat st;
    journal->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (journal->fd < 0)
        return -errno;
    if (TEMP_FAILURE_RETRY(flock(journal->fd, LOCK_EX | LOCK_NB)) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (fstat(journal->fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    for (unsigned slot = 0; slot < 2; slot++)
        read_superblock(journal, slot, (uint64_t)st.st_size);
    journal->is_new = journal->generation == 0;
    if (journal->is_new) {
        int status = make_anew(journal);
        return status < 0 ? status : sync_folder_of(path);
    }
    /* Changes nothing unless the file was cut short. */
    return -posix_fallocate(journal->fd, 0, (off_t)(DISK_JOURNAL_RING_OFFSET + journal->capacity));
}

int disk_journal_open_on_boot(struct disk_journal **out, const char *path, uint64_t capacity,
                              const uint8_t boot_id[DISK_MAP_BOOT_LEN])
{
    if (capacity == 0 || capacity > DISK_JOURNAL_MAX_CAPACITY)
        return -EINVAL;
    struct disk_journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return -ENOMEM;
    journal->wanted_capacity = (capacity + DISK_JOURNAL_BLOCK_LEN - 1) & ~(DISK_JOURNAL_BLOCK_LEN - 1ull);
    memcpy(journal->boot_id, boot_id, DISK_MAP_BOOT_LEN);
    int status = open_file(journal, path);
    if (status < 0) {
        disk_journal_close(journal);
        return status;
    }
    *out = journal;
    return 0;
}

int disk_journal_open(struct disk_journal **out, const char *path, uint64_t capacity)
{
    uint8_t boot_id[DISK_MAP_BOOT_LEN];
    int status = disk_map_read_boot_id(boot_id);
    return status < 0 ? status : disk_journal_open_on_boot(out, path, capacity, boot_id);
}

void disk_journal_close(struct disk_journal *journal)
{
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd);
    free(journal);
}

bool disk_journal_is_new(const struct disk_journal *journal)
{
    return journal->is_new;
}

uint64_t disk_journal_used(const struct disk_journal *journal)
{
    return journal->head.position - journal->tail.position;
}

/* ---- replay ---- */

/* Reads the entry at place into *buffer. Returns its bytes, 0 if no whole entry is there, or -errno. */
static int64_t read_entry(const struct disk_journal *journal, const struct place *place,
                          struct entry_header *header, uint8_t **buffer, uint64_t *buffer_len)
{
    uint8_t bytes[DISK_JOURNAL_HEADER_LEN];
    uint64_t left = journal->capacity - (place->position - journal->tail.position);
    if (left < entry_len(0))
        return 0;
    int status = ring_read(journal, place->position, bytes, sizeof bytes);
    if (status < 0)
        return status;
    if (get32(bytes) != DISK_JOURNAL_ENTRY_MAGIC ||
        get32(bytes + sizeof bytes - 4) != crc32c(0, bytes, sizeof bytes - 4))
        return 0;
    *header = (struct entry_header){.life = get64(bytes + 16),
                                    .term = get64(bytes + 32),
                                    .epoch = get64(bytes + 40),
                                    .len = get64(bytes + 48)};
    if (get64(bytes + 8) != place->sequence && !fault("ignore-sequence"))
        return 0;
    if (get64(bytes + 24) != place->position && !fault("ignore-sequence"))
        return 0;
    if ((header->life < place->life || header->life > journal->life) && !fault("ignore-life"))
        return 0;
    if (header->len > left || entry_len(header->len) > left)
        return 0;
    uint64_t len = entry_len(header->len);
    if (len > *buffer_len) {
        uint8_t *larger = realloc(*buffer, len);
        if (!larger)
            return -ENOMEM;
        *buffer = larger;
        *buffer_len = len;
    }
    status = ring_read(journal, place->position, *buffer, len);
    if (status < 0)
        return status;
    const uint8_t *end = *buffer + len - DISK_JOURNAL_END_LEN;
    if (fault("ignore-checksum"))
        return (int64_t)len;
    return get32(end) == DISK_JOURNAL_END_MAGIC && get32(end + 4) == crc32c(0, *buffer, len - 4)
               ? (int64_t)len
               : 0;
}

/*
 * Walks the entries from the tail on and applies them; with apply NULL it only finds the end. Returns the
 * number of entries.
 */
static int64_t walk(const struct disk_journal *journal, disk_journal_apply apply, void *opaque,
                    struct place *end)
{
    uint8_t *buffer = NULL;
    uint64_t buffer_len = 0;
    int64_t nentries = 0, len;
    struct entry_header header = {0};
    *end = journal->tail;
    while ((len = read_entry(journal, end, &header, &buffer, &buffer_len)) > 0) {
        struct disk_stream stream = {{{buffer + DISK_JOURNAL_HEADER_LEN, header.len}, {NULL, 0}}};
        if (apply && (len = apply(opaque, header.term, header.epoch, &stream)) < 0)
            break;
        *end = (struct place){end->position + entry_len(header.len), end->sequence + 1, header.life};
        nentries++;
    }
    free(buffer);
    return len < 0 ? len : nentries;
}

/*
 * Erases, durably, the header at the place where a new life begins to write. An entry that a crash of the
 * host has torn may be there, and bytes of the new life must never complete it.
 */
static int erase_torn_entry(const struct disk_journal *journal)
{
    static const uint8_t zeroes[DISK_JOURNAL_HEADER_LEN];
    struct iovec data = {(void *)(uintptr_t)zeroes, sizeof zeroes};
    return disk_image_write(journal->fd, &data, 1,
                            DISK_JOURNAL_RING_OFFSET + journal->head.position % journal->capacity, true);
}

int64_t disk_journal_replay(struct disk_journal *journal, disk_journal_apply apply, void *opaque)
{
    struct place end, mark;
    if (journal->state != JOURNAL_OPENED)
        return -EINVAL;
    int64_t nentries = walk(journal, NULL, NULL, &end);
    if (nentries < 0)
        return nentries;
    if (went_further(journal, &end, &mark) && !fault("ignore-mark")) {
        journal->head = mark;
        journal->state = JOURNAL_DAMAGED;
        return -EBADMSG;
    }
    nentries = walk(journal, apply, opaque, &end);
    if (nentries < 0)
        return nentries;
    journal->head = end;
    int status = 0;
    if (nentries == 0 && journal->capacity != journal->wanted_capacity) {
        status = make_anew(journal);
    } else if (disk_journal_used(journal) < journal->capacity && !fault("keep-torn-entry"))
        status = erase_torn_entry(journal);
    if (status == 0)
        status = write_superblock(journal, &journal->tail, journal->life + !fault("ignore-life"));
    if (status < 0)
        return status;
    journal->head.life = journal->life;
    journal->state = JOURNAL_REPLAYED;
    return nentries;
}

/* ---- append and trim ---- */

int disk_journal_append(struct disk_journal *journal, uint64_t term, uint64_t epoch,
                        const struct disk_stream *writes)
{
    uint64_t stream_len = (uint64_t)writes->span[0].iov_len + writes->span[1].iov_len;
    if (journal->state != JOURNAL_REPLAYED)
        return -EINVAL;
    if (stream_len > journal->capacity || entry_len(stream_len) > journal->capacity)
        return -EFBIG;
    uint64_t len = entry_len(stream_len);
    if (len > journal->capacity - disk_journal_used(journal))
        return -ENOSPC;

    uint8_t header[DISK_JOURNAL_HEADER_LEN], end[DISK_JOURNAL_ALIGN + DISK_JOURNAL_END_LEN] = {0};
    uint8_t *at = put32(header, DISK_JOURNAL_ENTRY_MAGIC);
    at = put32(at, 0);
    at = put64(at, journal->head.sequence);
    at = put64(at, journal->life);
    at = put64(at, journal->head.position);
    at = put64(at, term);
    at = put64(at, epoch);
    at = put64(at, stream_len);
    at = put32(at, 0);
    put32(at, crc32c(0, header, sizeof header - 4));

    struct iovec pieces[4] = {
        {header, sizeof header}, writes->span[0], writes->span[1], {end, len - sizeof header - stream_len}};
    put32(end + pieces[3].iov_len - 8, DISK_JOURNAL_END_MAGIC);
    uint32_t crc = 0;
    for (unsigned i = 0; i < 3; i++)
        crc = crc32c(crc, pieces[i].iov_base, pieces[i].iov_len);
    crc = crc32c(crc, end, pieces[3].iov_len - 4);
    put32(end + pieces[3].iov_len - 4, crc);

    int status = ring_write(journal, journal->head.position, pieces, 4);
    if (status < 0)
        return status;
    struct place before = journal->head;
    journal->head.position += len;
    journal->head.sequence++;
    status = write_mark(journal);
    if (status < 0)
        journal->head = before;
    return status;
}

int disk_journal_sync(struct disk_journal *journal)
{
    return fdatasync(journal->fd) < 0 ? -errno : 0;
}

int disk_journal_trim(struct disk_journal *journal)
{
    if (journal->state == JOURNAL_OPENED)
        return -EINVAL;
    if (journal->state == JOURNAL_REPLAYED && disk_journal_used(journal) == 0 &&
        journal->tail.life == journal->life)
        return 0;
    uint64_t life = journal->life + (journal->state == JOURNAL_DAMAGED);
    struct place tail = {journal->head.position, journal->head.sequence, life};
    if (fault("lose-trim")) {
        journal->tail = tail;
        return 0;
    }
    int status = write_superblock(journal, &tail, life);
    if (status < 0)
        return status;
    journal->head.life = life;
    journal->state = JOURNAL_REPLAYED;
    return 0;
}
