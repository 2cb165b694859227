/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See disk_fixture.h. Fails by abort: a test whose fixture is broken has nothing to say. */
#include "disk_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint/disk/disk_image.h"
#include "common/futex.h"
#include "replicator/disk/plugin/disk_ring.h"

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "disk_fixture: %s:%d: %s: %s\n", __FILE__, __LINE__, #condition,                 \
                    strerror(errno));                                                                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

void disk_fixture_open(struct disk_fixture *fixture, const char *folder_in, uint64_t export_len,
                       uint64_t ring_len)
{
    *fixture = (struct disk_fixture){.export_len = export_len, .ring_len = ring_len};
    const char *in = folder_in ? folder_in : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    MUST((size_t)snprintf(fixture->folder, sizeof fixture->folder, "%s/disk.XXXXXX", in) <
         sizeof fixture->folder);
    MUST(mkdtemp(fixture->folder));
    snprintf(fixture->image_path, sizeof fixture->image_path, "%s/image", fixture->folder);
    snprintf(fixture->map_path, sizeof fixture->map_path, "%s/map", fixture->folder);
    snprintf(fixture->socket_path, sizeof fixture->socket_path, "%s/socket", fixture->folder);

    fixture->fds.image = open(fixture->image_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    MUST(fixture->fds.image >= 0 && ftruncate(fixture->fds.image, (off_t)export_len) == 0);
    struct disk_map_image identity = {.len = export_len};
    MUST(disk_map_open(&fixture->map, fixture->map_path, &identity) == 0);
    fixture->fds.map = disk_map_fd(fixture->map);
    fixture->fds.attention = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    MUST(fixture->fds.attention >= 0);
    fixture->fds.shm = memfd_create("disk", MFD_CLOEXEC);
    fixture->shm_len = DISK_SHM_RING_OFFSET + ring_len;
    MUST(fixture->fds.shm >= 0 && ftruncate(fixture->fds.shm, (off_t)fixture->shm_len) == 0);
    fixture->shm = mmap(NULL, fixture->shm_len, PROT_READ | PROT_WRITE, MAP_SHARED, fixture->fds.shm, 0);
    MUST(fixture->shm != MAP_FAILED);
    fixture->shm->magic = DISK_SHM_MAGIC;
    fixture->shm->version = DISK_SHM_VERSION;
    fixture->shm->disk = 5;
    fixture->shm->ring_len = ring_len;
    fixture->shm->export_len = export_len;
    fixture->shm->mark = ring_len / 2;
    fixture->model =
        mmap(NULL, export_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(fixture->model != MAP_FAILED);
}

void disk_fixture_close(struct disk_fixture *fixture)
{
    disk_fixture_stop(fixture);
    if (fixture->nbdkit)
        disk_fixture_end_nbdkit(fixture, SIGTERM);
    munmap(fixture->model, fixture->export_len);
    munmap(fixture->shm, fixture->shm_len);
    disk_map_close(fixture->map, NULL);
    close(fixture->fds.shm);
    close(fixture->fds.image);
    close(fixture->fds.attention);
    unlink(fixture->image_path);
    unlink(fixture->map_path);
    unlink(fixture->socket_path);
    rmdir(fixture->folder);
}

void disk_fixture_start(struct disk_fixture *fixture)
{
    const char *why;
    MUST(disk_log_open(&fixture->log, &fixture->fds, &why) == 0 && disk_log_start(fixture->log) == 0);
}

void disk_fixture_stop(struct disk_fixture *fixture)
{
    disk_log_close(fixture->log);
    fixture->log = NULL;
}

/* ---- nbdkit ---- */

static void exec_nbdkit(const struct disk_fixture *fixture, const char *plugin, char *const *filters)
{
    char pid_file[128], shm[32], image[32], map[32], attention[32];
    const int fds[] = {fixture->fds.shm, fixture->fds.image, fixture->fds.map, fixture->fds.attention};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        fcntl(fds[i], F_SETFD, 0);
    snprintf(pid_file, sizeof pid_file, "%s/pid", fixture->folder);
    snprintf(shm, sizeof shm, "shm=%d", fixture->fds.shm);
    snprintf(image, sizeof image, "image=%d", fixture->fds.image);
    snprintf(map, sizeof map, "map=%d", fixture->fds.map);
    snprintf(attention, sizeof attention, "attention=%d", fixture->fds.attention);
    const char *arguments[32] = {"nbdkit", "--exit-with-parent", "-f", "-U", fixture->socket_path, "-P",
                                 pid_file};
    const char *fixed[] = {plugin, shm, image, map, attention, "name=test"};
    size_t n = 7;
    /* A filter's parameters stand behind the plugin. */
    for (size_t i = 0; filters && filters[i]; i++) {
        if (strncmp(filters[i], "--", 2) == 0)
            arguments[n++] = filters[i];
    }
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        arguments[n++] = fixed[i];
    for (size_t i = 0; filters && filters[i]; i++) {
        if (strncmp(filters[i], "--", 2) != 0)
            arguments[n++] = filters[i];
    }
    execvp("nbdkit", (char *const *)(uintptr_t)arguments);
    _exit(127);
}

/*
 * nbdkit makes its pid file once it listens (a pipe would be nicer, but there is none), and greets a client
 * once the plugin has started.
 */
static void await_greeting(struct disk_fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char greeting[18];
    /* The client's flags, then NBD_OPT_ABORT. */
    static const uint8_t goodbye[] = "\0\0\0\3IHAVEOPT\0\0\0\2\0\0\0";
    char path[128];
    snprintf(path, sizeof path, "%s/pid", fixture->folder);
    while (access(path, F_OK) != 0) {
        int status;
        MUST(waitpid(fixture->nbdkit, &status, WNOHANG) == 0);
        poll(NULL, 0, 1);
    }
    unlink(path);
    strcpy(address.sun_path, fixture->socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    MUST(recv(fd, greeting, sizeof greeting, MSG_WAITALL) == sizeof greeting);
    MUST(send(fd, goodbye, sizeof goodbye, MSG_NOSIGNAL) == sizeof goodbye);
    while (recv(fd, greeting, sizeof greeting, 0) > 0)
        ;
    close(fd);
}

void disk_fixture_start_nbdkit(struct disk_fixture *fixture, const char *plugin, char *const *filters)
{
    unlink(fixture->socket_path);
    fixture->nbdkit = fork();
    MUST(fixture->nbdkit >= 0);
    if (fixture->nbdkit == 0)
        exec_nbdkit(fixture, plugin, filters);
    await_greeting(fixture);
}

int disk_fixture_end_nbdkit(struct disk_fixture *fixture, int signal)
{
    int status;
    kill(fixture->nbdkit, signal);
    MUST(waitpid(fixture->nbdkit, &status, 0) == fixture->nbdkit);
    fixture->nbdkit = 0;
    return status;
}

/* ---- orders ---- */

void disk_fixture_order(struct disk_fixture *fixture, uint32_t flags, uint32_t map)
{
    atomic_store(&fixture->shm->wanted_flags, flags);
    atomic_store(&fixture->shm->wanted_map, map);
    atomic_fetch_add(&fixture->shm->wanted_seq, 1);
    disk_futex_wake(&fixture->shm->wanted_seq);
    atomic_fetch_add(&fixture->shm->room_seq, 1);
    disk_futex_wake(&fixture->shm->room_seq);
}

static void read_eventfd(struct disk_fixture *fixture)
{
    struct pollfd wait = {.fd = fixture->fds.attention, .events = POLLIN};
    uint64_t count;
    MUST(poll(&wait, 1, 60000) == 1);
    MUST(read(fixture->fds.attention, &count, sizeof count) == sizeof count);
}

void disk_fixture_await(struct disk_fixture *fixture)
{
    while (atomic_load(&fixture->shm->done_seq) != atomic_load(&fixture->shm->wanted_seq))
        read_eventfd(fixture);
}

void disk_fixture_await_attention(struct disk_fixture *fixture, uint32_t bits)
{
    uint32_t have = 0;
    for (;;) {
        have |= atomic_exchange(&fixture->shm->attention, 0);
        if ((have & bits) == bits)
            return;
        read_eventfd(fixture);
    }
}

/* ---- the consumer ---- */

static void apply_to_model(struct disk_fixture *fixture, const struct disk_record *record)
{
    uint8_t *to = fixture->model + record->offset;
    if (record->type != DISK_RECORD_WRITE) {
        memset(to, 0, record->len);
        return;
    }
    for (unsigned i = 0; i < record->ndata; i++) {
        memcpy(to, record->data[i].iov_base, record->data[i].iov_len);
        to += record->data[i].iov_len;
    }
}

bool disk_fixture_consume(struct disk_fixture *fixture, uint64_t upto)
{
    struct disk_shm *shm = fixture->shm;
    struct disk_stream stream;
    struct disk_record record;
    uint64_t tail = atomic_load(&shm->tail);
    const uint64_t disk_len[6] = {[5] = fixture->export_len};
    if (upto - tail > fixture->ring_len)
        return false;
    disk_stream_of_ring(&stream, (uint8_t *)shm + DISK_SHM_RING_OFFSET, fixture->ring_len, tail, upto - tail);
    if (disk_stream_check(&stream, disk_len, 6) < 0)
        return false;
    while (disk_stream_next(&stream, &record) > 0) {
        if (record.disk != 5)
            return false;
        if (fixture->on_record)
            fixture->on_record(fixture->opaque, &record);
        apply_to_model(fixture, &record);
        fixture->nrecords++;
    }
    atomic_store_explicit(&shm->tail, upto, memory_order_release);
    atomic_fetch_add(&shm->room_seq, 1);
    disk_futex_wake(&shm->room_seq);
    return true;
}

int64_t disk_fixture_difference(struct disk_fixture *fixture)
{
    enum { PIECE = 1 << 20 };
    uint8_t *image = malloc(PIECE);
    int64_t at = -1;
    MUST(image);
    for (uint64_t offset = 0; offset < fixture->export_len && at < 0; offset += PIECE) {
        size_t len = fixture->export_len - offset < PIECE ? fixture->export_len - offset : PIECE;
        MUST(disk_image_read(fixture->fds.image, image, len, offset) == 0);
        if (memcmp(image, fixture->model + offset, len) == 0)
            continue;
        for (at = (int64_t)offset; image[at - (int64_t)offset] == fixture->model[at];)
            at++;
    }
    free(image);
    return at;
}

bool disk_fixture_is_marked(struct disk_fixture *fixture, unsigned which, uint64_t offset)
{
    size_t nwords;
    uint64_t chunk = offset / DISK_CHUNK_LEN;
    _Atomic uint64_t *words = disk_map_words(fixture->map, which, &nwords);
    return atomic_load(&words[chunk / 64]) >> (chunk % 64) & 1;
}
