/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What runs in the test guest: one static program, one thread, no library but libc.
 *
 * A TCP server answers each line on port 7000:
 *
 *   - next: the next number of one counter that lives in memory only: what a failover must not lose or repeat
 *   - next WORD: the same, but WORD must be the one that came with this connection's last answer (0 at
 * first); a new one follows the number. "forgotten" if it is another: the guest has gone back behind an
 * answer that it gave. The number alone would not show that, for a guest set back gets the same requests
 * again and gives the same numbers.
 *   - time: CLOCK_MONOTONIC in nanoseconds
 *   - realtime: CLOCK_REALTIME in nanoseconds
 *   - bench: does a fixed computation, says how many nanoseconds of CLOCK_MONOTONIC it took
 *   - dirty N: from now on N pages a second are written, spread over the working set
 *   - poweroff, reboot, panic: without an answer
 *   - ignore-button: the power button does nothing from now on
 *
 * It powers itself off when the power button is pressed. Any other line is answered with "what?". Arguments:
 * PAGES_PER_SECOND WORKING_SET_PAGES. The page writer runs between requests, so "bench" is not disturbed by
 * it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT        7000
#define MAX_CLIENTS 64
#define TICK_MS     4
#define BENCH_STEPS 20000000u

struct client {
    int fd;
    size_t used;
    uint64_t word; /* given with the last answer; from the clock, so that no guest gives it twice */
    char line[128];
};

static uint64_t counter;
static uint64_t dirty_per_s, working_set = 16384;
static volatile uint8_t *memory;
static struct client clients[MAX_CLIENTS];
static int nclients;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* Writes what the rate asks for since the last call; walks the working set with a stride, so pages are not
 * neighbours. */
static void dirty_some(void)
{
    static uint64_t last_ns, at, owed_ns;
    uint64_t now = now_ns();
    if (!dirty_per_s || !last_ns) {
        last_ns = now;
        return;
    }
    owed_ns += (now - last_ns) * dirty_per_s;
    last_ns = now;
    uint64_t pages = owed_ns / 1000000000ull;
    owed_ns %= 1000000000ull;
    if (pages > working_set)
        pages = working_set;
    for (; pages; pages--) {
        memory[at * 4096] = (uint8_t)(memory[at * 4096] + 1);
        at = (at + 7) % working_set;
    }
}

static uint64_t bench_ns(void)
{
    uint64_t began = now_ns(), x = 88172645463325252ull;
    for (uint32_t i = 0; i < BENCH_STEPS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return now_ns() - began + (x == 0);
}

/* 1 if it was taken. */
static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? write(fd, text, strlen(text)) : -1;
    if (fd >= 0)
        close(fd);
    return n > 0;
}

/* ---- the power button ---- */

#define MAX_INPUTS 8
static int inputs[MAX_INPUTS], ninputs, ignores_button;

/* Every input device: the button says which key it was. */
static void open_inputs(void)
{
    for (int i = 0; i < MAX_INPUTS; i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0)
            inputs[ninputs++] = fd;
    }
}

static void look_at_button(int fd)
{
    struct input_event event;
    while (read(fd, &event, sizeof event) == (ssize_t)sizeof event) {
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1 && !ignores_button)
            reboot(RB_POWER_OFF);
    }
}

static void next_with_word(struct client *client, const char *word, char *text, size_t size)
{
    if (strtoull(word, NULL, 10) != client->word) {
        snprintf(text, size, "forgotten\n");
        return;
    }
    client->word = clock_ns(CLOCK_MONOTONIC) ^ counter << 48;
    snprintf(text, size, "%llu %llu\n", (unsigned long long)++counter, (unsigned long long)client->word);
}

static void answer(struct client *client, const char *line)
{
    char text[64] = "what?\n";
    unsigned long long number = 0;
    int known = 1;
    if (strcmp(line, "next") == 0)
        number = ++counter;
    else if (strcmp(line, "time") == 0)
        number = now_ns();
    else if (strcmp(line, "realtime") == 0)
        number = clock_ns(CLOCK_REALTIME);
    else if (strcmp(line, "bench") == 0)
        number = bench_ns();
    else if (strncmp(line, "dirty ", 6) == 0)
        number = dirty_per_s = strtoull(line + 6, NULL, 10);
    else if (strcmp(line, "poweroff") == 0)
        known = reboot(RB_POWER_OFF) == 0;
    else if (strcmp(line, "reboot") == 0)
        known = reboot(RB_AUTOBOOT) == 0;
    else if (strcmp(line, "panic") == 0)
        known = write_text("/proc/sysrq-trigger", "c");
    else if (strcmp(line, "ignore-button") == 0)
        ignores_button = number = 1;
    else
        known = 0;
    if (strncmp(line, "next ", 5) == 0)
        next_with_word(client, line + 5, text, sizeof text);
    else if (known)
        snprintf(text, sizeof text, "%llu\n", number);
    /* A client that does not read is cut off: the next read says so. */
    if (write(client->fd, text, strlen(text)) < 0)
        shutdown(client->fd, SHUT_RDWR);
}

/* False when the client is gone. */
static int serve(struct client *client)
{
    ssize_t n = read(client->fd, client->line + client->used, sizeof client->line - 1 - client->used);
    char *end;
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    client->used += (size_t)n;
    client->line[client->used] = 0;
    while ((end = strchr(client->line, '\n'))) {
        *end = 0;
        answer(client, client->line);
        client->used -= (size_t)(end + 1 - client->line);
        memmove(client->line, end + 1, client->used + 1);
    }
    return client->used < sizeof client->line - 1;
}

static int listen_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 16) < 0) {
        perror("guest: listen");
        exit(1);
    }
    return fd;
}

static void take_new(int listen_fd)
{
    int one = 1, fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (nclients == MAX_CLIENTS) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    clients[nclients++] = (struct client){.fd = fd};
}

int main(int argc, char **argv)
{
    struct pollfd fds[MAX_CLIENTS + 1 + MAX_INPUTS];
    if (argc > 1)
        dirty_per_s = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        working_set = strtoull(argv[2], NULL, 10);
    if (working_set == 0 || working_set > SIZE_MAX / 4096)
        working_set = 1;
    memory = mmap(NULL, working_set * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("guest: memory");
        return 1;
    }
    /* A client that goes away in the middle of an answer must not end the guest. */
    signal(SIGPIPE, SIG_IGN);
    open_inputs();
    int listen_fd = listen_tcp();
    printf("understudy-guest: ready\n");
    fflush(stdout);
    for (;;) {
        fds[0] = (struct pollfd){.fd = listen_fd, .events = POLLIN};
        for (int i = 0; i < nclients; i++)
            fds[i + 1] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
        int polled = nclients;
        struct pollfd *buttons = fds + polled + 1;
        for (int i = 0; i < ninputs; i++)
            buttons[i] = (struct pollfd){.fd = inputs[i], .events = POLLIN};
        poll(fds, (nfds_t)(polled + 1 + ninputs), dirty_per_s ? TICK_MS : -1);
        dirty_some();
        for (int i = 0; i < ninputs; i++) {
            if (buttons[i].revents)
                look_at_button(inputs[i]);
        }
        for (int i = polled - 1; i >= 0; i--) {
            if (fds[i + 1].revents && !serve(&clients[i])) {
                close(clients[i].fd);
                clients[i] = clients[--nclients];
            }
        }
        if (fds[0].revents)
            take_new(listen_fd);
    }
}
