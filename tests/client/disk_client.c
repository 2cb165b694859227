/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client of the disk tests: hears over one TCP connection which operations the guest has made durable,
 * and writes down what it heard, for the checker (disk_check.c). tests/guest/disk_model.h says what the
 * operations are.
 *
 *   understudy-disk-client HOST LOG [--progress FILE] [--patience-s N]    until SIGTERM
 *   understudy-disk-client HOST --ask LINE               sends one line, prints the answer; exit status 1 for
 * a "bad" one
 *
 * It never connects again: a failover must be invisible to it. SIGTERM: the guest is told to stop and to
 * unmount, and what it then says of each stream must be what was heard, to the last accident. SIGINT: ends at
 * once, as if the guest had died. --progress keeps the number of operations heard so far in a file. A silence
 * longer than --patience-s (60) is the end of the connection.
 *
 * LOG: the guest's first line, then an operation a line, "t s accident", as heard. Prints JSON. Exit status 0
 * only if no operation was missing, repeated or refused by the disk, and the guest's last word agreed.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/guest/disk_model.h"

#define PATIENCE_S 60 /* a longer silence, and the connection counts as lost */
#define ASK_S      120

static volatile sig_atomic_t stop_asked, end_asked;

struct heard {
    FILE *log;
    int fd, progress_fd; /* progress_fd: or -1 */
    unsigned streams;
    uint64_t seq[MODEL_MAX_STREAMS], chain[MODEL_MAX_STREAMS];
    uint64_t operations, missing, repeated, refused, disagreed, resets, gap_ns, heard_ns, patience_ns;
    unsigned ends;
    bool begun, stopped;
    char complaint[256]; /* the first thing that was wrong */
};

static void on_signal(int number)
{
    if (number == SIGINT)
        end_asked = 1;
    else
        stop_asked = 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static int connect_to(const char *host)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list = NULL;
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return -1;
    memcpy(&address, list->ai_addr, sizeof address);
    freeaddrinfo(list);
    address.sin_port = htons(MODEL_PORT);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        fprintf(stderr, "client: %s port %u does not answer: %s\n", host, MODEL_PORT, strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

static int ask_once(const char *host, const char *question)
{
    char line[512];
    struct timeval patience = {.tv_sec = strcmp(question, "poweroff") == 0 ? 1 : ASK_S};
    int fd = connect_to(host);
    if (fd < 0)
        return 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    dprintf(fd, "%s\n", question);
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0)
        return strcmp(question, "poweroff") == 0 ? 0 : 1;
    line[n] = 0;
    fputs(line, stdout);
    return strncmp(line, "bad", 3) == 0;
}

static void complain(struct heard *heard, uint64_t *counter, const char *line)
{
    (*counter)++;
    if (!heard->complaint[0])
        snprintf(heard->complaint, sizeof heard->complaint, "%.200s", line);
}

static void hear_operation(struct heard *heard, unsigned t, uint64_t seq, uint64_t accident, const char *line)
{
    if (t >= heard->streams)
        complain(heard, &heard->disagreed, line);
    else if (seq <= heard->seq[t])
        complain(heard, &heard->repeated, line);
    else if (seq != heard->seq[t] + 1)
        complain(heard, &heard->missing, line);
    else {
        heard->seq[t] = seq;
        heard->chain[t] = model_chain(heard->chain[t], accident);
        heard->operations++;
    }
}

static void hear_line(struct heard *heard, const char *line)
{
    unsigned t;
    unsigned long long a, b;
    if (!heard->begun) {
        heard->begun = sscanf(line, "nonce %llu streams %u blocks %llu", &a, &heard->streams, &b) == 3 &&
                       heard->streams <= MODEL_MAX_STREAMS;
        if (!heard->begun)
            complain(heard, &heard->disagreed, line);
        fprintf(heard->log, "%s\n", line);
    } else if (sscanf(line, "end %u %llu %llu", &t, &a, &b) == 3) {
        heard->ends++;
        if (t >= heard->streams || heard->seq[t] != a || heard->chain[t] != b)
            complain(heard, &heard->disagreed, line);
    } else if (strcmp(line, "stopped") == 0) {
        heard->stopped = true;
    } else if (sscanf(line, "failed %u %llu", &t, &a) == 2) {
        complain(heard, &heard->refused, line);
    } else if (sscanf(line, "%u %llu %llu", &t, &a, &b) == 3) {
        fprintf(heard->log, "%s\n", line);
        hear_operation(heard, t, a, b, line);
    } else {
        complain(heard, &heard->disagreed, line);
    }
}

/* Fixed width, so that whoever reads it meanwhile sees a whole number. */
static void note_progress(const struct heard *heard)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%020llu\n", (unsigned long long)heard->operations);
    if (heard->progress_fd >= 0 && pwrite(heard->progress_fd, text, (size_t)len, 0) != len)
        perror("client: --progress");
}

static void note_gap(struct heard *heard)
{
    uint64_t now = now_ns(), gap = now - heard->heard_ns;
    if (gap > heard->gap_ns)
        heard->gap_ns = gap;
}

/* False when the connection is gone. */
static bool hear(struct heard *heard)
{
    static char buffer[65536];
    static size_t used;
    ssize_t n = recv(heard->fd, buffer + used, sizeof buffer - 1 - used, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    note_gap(heard);
    heard->heard_ns = now_ns();
    used += (size_t)n;
    buffer[used] = 0;
    char *line = buffer, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        hear_line(heard, line);
        line = end + 1;
    }
    used -= (size_t)(line - buffer);
    memmove(buffer, line, used + 1);
    note_progress(heard);
    return used < sizeof buffer - 1;
}

/* Until the guest has stopped, or this was told to end. */
static void listen_to(struct heard *heard)
{
    bool stop_sent = false, alive = dprintf(heard->fd, "watch\n") > 0;
    heard->heard_ns = now_ns();
    while (alive && !heard->stopped && !end_asked) {
        struct pollfd poll_fd = {.fd = heard->fd, .events = POLLIN};
        if (stop_asked && !stop_sent) {
            stop_sent = true;
            alive = dprintf(heard->fd, "stop\n") > 0;
        }
        int ready = poll(&poll_fd, 1, 50);
        if (ready > 0)
            alive = hear(heard) && alive;
        if (now_ns() - heard->heard_ns > heard->patience_ns)
            alive = false;
    }
    note_gap(heard);
    if (!alive)
        complain(heard, &heard->resets, "the connection broke, or nothing came for too long");
    if (heard->stopped && heard->ends != heard->streams)
        complain(heard, &heard->disagreed, "the guest stopped without a last word on each stream");
}

static bool take_options(struct heard *heard, int argc, char **argv)
{
    for (int i = 3; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--progress") == 0)
            heard->progress_fd = open(argv[i + 1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        else if (strcmp(argv[i], "--patience-s") == 0)
            heard->patience_ns = strtoull(argv[i + 1], NULL, 10) * 1000000000ull;
        else
            return false;
    }
    return argc >= 3 && argc % 2 == 1;
}

int main(int argc, char **argv)
{
    struct heard heard = {.progress_fd = -1, .patience_ns = PATIENCE_S * 1000000000ull};
    struct sigaction action = {.sa_handler = on_signal};
    if (argc == 4 && strcmp(argv[2], "--ask") == 0)
        return ask_once(argv[1], argv[3]);
    if (!take_options(&heard, argc, argv)) {
        fprintf(stderr, "usage: understudy-disk-client HOST LOG [--progress FILE] [--patience-s N]\n"
                        "       understudy-disk-client HOST --ask LINE\n");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    heard.log = fopen(argv[2], "we");
    heard.fd = heard.log ? connect_to(argv[1]) : -1;
    if (heard.fd < 0)
        return 1;
    listen_to(&heard);
    bool written = fclose(heard.log) == 0;
    json_t *json = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:f, s:s}", "operations", (json_int_t)heard.operations,
        "operations_missing", (json_int_t)heard.missing, "operations_repeated", (json_int_t)heard.repeated,
        "operations_refused", (json_int_t)heard.refused, "disagreements", (json_int_t)heard.disagreed,
        "tcp_resets", (json_int_t)heard.resets, "stopped", heard.stopped, "longest_gap_ms",
        (double)heard.gap_ns / 1e6, "first_complaint", heard.complaint);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
    return !written || heard.operations == 0 || heard.complaint[0];
}
