/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program that does for test_machine.c what QEMU with the hook does, as far as a machine sees it: hello and
 * requests in the shared memory, the monitor, the sockets of NICs. No guest.
 *
 *   fake_qemu MODE DIR NNICS
 *
 *   run       does as it is told       stubborn  but does not quit
 *   silent    never says hello         die       ends at once, with a word
 *   refuse    the hook says no         cannot    ends at once, with the hook's word
 *   hangs-up  closes the monitor at system_reset
 *   no-load   ends when it is to load
 *   late      loads late                  late-memory  fills the memory outside main RAM late
 *   no-mirror switches no mirror on       mute does not say whether it has
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook_shm.h"

enum { FD_SHM = 60, FD_DEVSTATE, FD_KICK, FD_RAM }; /* as hv-hooks/qemu/qemu_process.h has them */

#define LATE_US 300000 /* longer than one limit of the tests, shorter than the other */

static struct hook_shm *shm;
static const char *mode, *dir;
static int monitor = -1, incoming = -1;
static char line[65536];
static size_t line_len;

static bool is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static int must(int result)
{
    if (result < 0) {
        perror("fake_qemu");
        exit(2);
    }
    return result;
}

static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", dir, name);
    int fd = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    must(bind(fd, (struct sockaddr *)&address, sizeof address));
    must(listen(fd, 4));
    return fd;
}

static void listen_for_nics(unsigned nnics)
{
    static const char *const kinds[] = {"out", "in", "mir", "inj"};
    for (unsigned nic = 0; nic < nnics; nic++) {
        for (size_t kind = 0; kind < 4; kind++) {
            char name[32];
            snprintf(name, sizeof name, "us-%s-%u", kinds[kind], nic);
            listen_at(name);
        }
    }
}

/* ---- the hook ---- */

static void list_blocks(void)
{
    struct hook_block *block = &shm->blocks[0];
    snprintf(block->idstr, sizeof block->idstr, "pc.ram");
    atomic_store(&block->used_len, shm->ram_len);
    block->max_len = shm->ram_len;
    block->data_off = 0;
    block->bitmap_off = shm->bitmaps_off;
    block->flags = HOOK_BLOCK_IN_RAM_MEMFD;
    shm->nblocks = 1;
}

static void carry_out_request(void)
{
    uint64_t count;
    must((int)read(FD_KICK, &count, sizeof count));
    if (shm->request_kind == HOOK_LIST_BLOCKS)
        list_blocks();
    if (shm->request_kind == HOOK_LOAD_AUX && is("late-memory"))
        usleep(LATE_US);
    memset(&shm->result, 0, sizeof shm->result);
    atomic_store(&shm->done_seq, atomic_load(&shm->request_seq));
}

static void say_hello(uint32_t hello, const char *message)
{
    snprintf(shm->qemu_version, sizeof shm->qemu_version, "9.9.9");
    snprintf(shm->hello_message, sizeof shm->hello_message, "%s", message);
    atomic_store(&shm->hello, hello);
}

/* ---- the monitor ---- */

static void say(const char *text)
{
    if (send(monitor, text, strlen(text), MSG_NOSIGNAL) < 0 || send(monitor, "\n", 1, MSG_NOSIGNAL) < 0)
        exit(0);
}

static void answer(const json_t *command, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "{%s, \"id\": %lld}", text,
             (long long)json_integer_value(json_object_get(command, "id")));
    say(whole);
}

static void load(void)
{
    char bytes[4096];
    size_t total = 0;
    ssize_t n;
    if (is("no-load")) {
        printf("it cannot be loaded\n");
        exit(1);
    }
    while ((n = read(incoming, bytes, sizeof bytes)) > 0)
        total += (size_t)n;
    if (is("late"))
        usleep(LATE_US);
    printf("loaded %zu bytes\n", total);
    say("{\"event\": \"RESUME\"}");
    close(incoming);
}

static void hear(const json_t *command)
{
    const char *name = json_string_value(json_object_get(command, "execute"));
    if (!name)
        exit(2);
    if (strcmp(name, "qom-set") == 0) {
        const char *path = json_string_value(json_object_get(json_object_get(command, "arguments"), "path"));
        printf("switched on %s\n", path ? path : "nothing");
        if (is("mute"))
            return;
    }
    if (strcmp(name, "query-chardev") == 0)
        answer(command, "\"return\": [{\"label\": \"us-c-mir-0\", \"filename\": \"unix:here\"}]");
    else if (strcmp(name, "stop") == 0)
        answer(command, "\"error\": {\"class\": \"GenericError\", \"desc\": \"not in this state\"}");
    else if (strcmp(name, "qom-set") == 0 && is("no-mirror"))
        answer(command, "\"error\": {\"class\": \"GenericError\", \"desc\": \"no such object\"}");
    else
        answer(command, "\"return\": {}");
    if (strcmp(name, "system_powerdown") == 0)
        say("{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}");
    else if (strcmp(name, "system_reset") == 0 && is("hangs-up"))
        close(monitor), monitor = -1;
    else if (strcmp(name, "system_reset") == 0)
        say("{\"event\": \"RESET\", \"data\": {\"guest\": false, \"reason\": \"host-qmp-system-reset\"}}");
    else if (strcmp(name, "cont") == 0)
        say("{\"event\": \"RESUME\"}");
    else if (strcmp(name, "migrate-incoming") == 0)
        load();
    else if (strcmp(name, "quit") == 0 && !is("stubborn"))
        exit(0);
}

/* Reads what there is, with a descriptor if one comes along, and takes the whole lines. */
static void read_monitor(void)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = line + line_len, .iov_len = sizeof line - line_len - 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(monitor, &message, 0);
    if (n <= 0)
        exit(0);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(&incoming, CMSG_DATA(header), sizeof incoming);
    line_len += (size_t)n;
    line[line_len] = 0;
    char *begin = line, *end;
    while (monitor >= 0 && (end = strchr(begin, '\n'))) {
        json_t *command = json_loadb(begin, (size_t)(end - begin), 0, NULL);
        hear(command);
        json_decref(command);
        begin = end + 1;
    }
    line_len = strlen(begin);
    memmove(line, begin, line_len + 1);
}

int main(int argc, char **argv)
{
    struct stat st;
    if (argc != 4)
        return 2;
    mode = argv[1];
    dir = argv[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (is("die") || is("cannot")) {
        printf("%s\n", is("die") ? "there is no such device" : "understudy: this host cannot do it");
        return 3;
    }
    must(fstat(FD_SHM, &st));
    shm = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, FD_SHM, 0);
    if (shm == MAP_FAILED)
        return 2;
    int listener = listen_at("us-qmp");
    listen_for_nics((unsigned)atoi(argv[3]));
    if (is("refuse"))
        say_hello(2, "this QEMU lacks a symbol");
    else if (!is("silent"))
        say_hello(1, "");
    for (;;) {
        struct pollfd fds[] = {{.fd = FD_KICK, .events = POLLIN},
                               {.fd = monitor < 0 ? listener : monitor, .events = POLLIN}};
        must(poll(fds, 2, -1));
        if (fds[0].revents)
            carry_out_request();
        if (fds[1].revents && monitor < 0) {
            monitor = must(accept(listener, NULL, NULL));
            say("{\"QMP\": {\"version\": {}, \"capabilities\": []}}");
        } else if (fds[1].revents) {
            read_monitor();
        }
    }
}
