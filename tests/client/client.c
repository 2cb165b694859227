/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client of the tests: plays ping-pong with the counter server in the guest over one TCP connection and
 * checks that every answer is the last one plus one, and that the guest remembers the word that it sent with
 * the last. It never connects again: a failover must be invisible to it.
 *
 *   understudy-test-client HOST PORT SECONDS [--think-us MAX] [--progress FILE] [--patience-s N]
 *   understudy-test-client HOST PORT --ask LINE
 *
 * SECONDS 0: until SIGTERM. --think-us: before each request it waits a random time up to MAX, so that
 * requests come at any phase of an epoch; without, each comes right after the answer before, which output
 * commit ties to an epoch's end. SIGUSR1 marks the moment from which silence is reported as the failover's
 * gap, and ends the clock measurement. A second connection samples the guest's clock ten times a second.
 * Requests reach the guest at once (only its output is held), so the smallest guest-time-minus-send-time of a
 * window is a good reading of its clock.
 * Told to stop, it waits for the answer that it is owed: one that does not come within --patience-s (30) is
 * lost. --progress keeps the number of answers so far in a file.
 * --ask LINE: sends one line, prints the answer, exits.
 *
 * Prints JSON. Exit status 0 only if nothing was lost, repeated, out of order or reset.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/histogram.h"

#define PATIENCE_S   30 /* a longer silence, and the connection counts as lost */
#define ASK_MS       20000
#define LAST_WORD_MS 500
#define SAMPLE_NS    100000000ull
#define MAX_SAMPLES  100000
#define WINDOW_NS    3000000000ull

static volatile sig_atomic_t stop_asked, marked;

struct sample {
    uint64_t sent_ns;
    int64_t offset_ns; /* guest clock minus ours */
};

struct clock_log {
    int fd;
    uint64_t sent_ns, next_ns;
    char line[64];
    size_t used, n;
    struct sample samples[MAX_SAMPLES];
};

struct play {
    int fd;
    uint64_t sent_ns, heard_ns, ask_ns, last_value;
    uint64_t think_ns; /* longest pause before a request */
    uint64_t patience_ns;
    uint64_t answers, lost, out_of_order, resets;
    uint64_t word; /* came with the last answer */
    uint64_t gap_ns, failover_gap_ns, rtt_sum_ns;
    bool waiting, forgotten;
    int progress_fd; /* or -1 */
    char line[64];
    size_t used;
    struct histogram *rtt_us;
};

static void on_signal(int number)
{
    if (number == SIGUSR1)
        marked = 1;
    else
        stop_asked = 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int one = 1;
    if (getaddrinfo(host, port, &hints, &list) != 0)
        return -1;
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, list->ai_addr, list->ai_addrlen) < 0) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static int ask_once(const char *host, const char *port, const char *question)
{
    char line[128];
    int fd = connect_to(host, port);
    if (fd < 0) {
        fprintf(stderr, "client: %s port %s does not answer: %s\n", host, port, strerror(errno));
        return 1;
    }
    /* A guest that powers itself off answers nothing, not even with a reset. */
    struct timeval patience = {
        .tv_sec = strcmp(question, "poweroff") == 0 || strcmp(question, "reboot") == 0 ? 1 : 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    dprintf(fd, "%s\n", question);
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0)
        return strcmp(question, "poweroff") == 0 || strcmp(question, "reboot") == 0 ? 0 : 1;
    line[n] = 0;
    fputs(line, stdout);
    return 0;
}

/*
 * A whole line of fd into line: 1, 0 not yet, -1 the connection is gone. Only one answer is ever owed, so
 * more bytes behind the line are an answer nobody asked for: 2, lest a repeated answer hide behind the first.
 */
static int read_line(int fd, char *line, size_t capacity, size_t *used)
{
    ssize_t n = recv(fd, line + *used, capacity - 1 - *used, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -1;
    *used += (size_t)n;
    line[*used] = 0;
    const char *end = strchr(line, '\n');
    if (!end)
        return *used == capacity - 1 ? -1 : 0;
    bool more = (size_t)(end + 1 - line) < *used;
    *used = 0;
    return more ? 2 : 1;
}

static void note_gap(struct play *play, uint64_t now)
{
    uint64_t gap = now - play->heard_ns;
    if (gap > play->gap_ns)
        play->gap_ns = gap;
    if (marked && gap > play->failover_gap_ns)
        play->failover_gap_ns = gap;
}

/* Fixed width, so that whoever reads it meanwhile sees a whole number. */
static void note_progress(const struct play *play)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%020llu\n", (unsigned long long)play->answers);
    if (play->progress_fd >= 0 && pwrite(play->progress_fd, text, (size_t)len, 0) != len)
        perror("client: --progress");
}

/* False when the connection is gone. */
static bool hear(struct play *play)
{
    int got = read_line(play->fd, play->line, sizeof play->line, &play->used);
    if (got <= 0)
        return got == 0;
    char *end;
    uint64_t now = now_ns(), value = strtoull(play->line, &end, 10);
    if (strcmp(play->line, "forgotten\n") == 0) {
        play->lost++; /* the last answer: it is as if it had never been given */
        play->forgotten = true;
        return true;
    }
    play->word = strtoull(end, NULL, 10);
    if (value <= play->last_value || got == 2)
        play->out_of_order++;
    else if (play->answers > 0 && value != play->last_value + 1)
        play->lost += value - play->last_value - 1;
    play->last_value = value;
    play->answers++;
    note_gap(play, now);
    histogram_record(play->rtt_us, (now - play->sent_ns) / 1000);
    play->heard_ns = now;
    play->rtt_sum_ns += now - play->sent_ns;
    play->ask_ns = now + (play->think_ns ? (uint64_t)(drand48() * (double)play->think_ns) : 0);
    play->waiting = false;
    note_progress(play);
    return true;
}

static bool ask(struct play *play)
{
    char line[64];
    int len = snprintf(line, sizeof line, "next %llu\n", (unsigned long long)play->word);
    play->sent_ns = now_ns();
    play->waiting = true;
    return send(play->fd, line, (size_t)len, MSG_NOSIGNAL) == len;
}

static void sample_clock(struct clock_log *log, uint64_t now)
{
    if (log->fd < 0 || log->sent_ns || now < log->next_ns || log->n == MAX_SAMPLES || marked)
        return;
    log->sent_ns = now;
    log->next_ns = now + SAMPLE_NS;
    if (send(log->fd, "time\n", 5, MSG_NOSIGNAL) != 5)
        log->fd = -1;
}

static void hear_clock(struct clock_log *log)
{
    int got = read_line(log->fd, log->line, sizeof log->line, &log->used);
    if (got < 0)
        log->fd = -1;
    if (got <= 0)
        return;
    uint64_t guest = strtoull(log->line, NULL, 10);
    if (!marked)
        log->samples[log->n++] =
            (struct sample){.sent_ns = log->sent_ns, .offset_ns = (int64_t)(guest - log->sent_ns)};
    log->sent_ns = 0;
}

/* The smallest offset among the samples of a window, and when. */
static struct sample best_of(const struct clock_log *log, uint64_t from_ns, uint64_t to_ns)
{
    struct sample best = {.offset_ns = INT64_MAX};
    for (size_t i = 0; i < log->n; i++) {
        const struct sample *s = &log->samples[i];
        if (s->sent_ns >= from_ns && s->sent_ns <= to_ns && s->offset_ns < best.offset_ns)
            best = *s;
    }
    return best;
}

/* Guest clock against ours: parts per million, negative when the guest is slow. */
static json_t *drift_ppm(const struct clock_log *log)
{
    if (log->n < 10)
        return json_null();
    uint64_t begin = log->samples[0].sent_ns, end = log->samples[log->n - 1].sent_ns;
    uint64_t window = end - begin < 3 * WINDOW_NS ? (end - begin) / 3 : WINDOW_NS;
    struct sample first = best_of(log, begin, begin + window), last = best_of(log, end - window, end);
    if (last.sent_ns <= first.sent_ns)
        return json_null();
    return json_real((double)(last.offset_ns - first.offset_ns) * 1e6 /
                     (double)(last.sent_ns - first.sent_ns));
}

/* How long there is nothing to do but listen: until the next request, at most 50 ms. */
static struct timespec patience_for(const struct play *play, uint64_t now)
{
    uint64_t left = 50000000;
    if (!play->waiting && play->ask_ns < now + left)
        left = play->ask_ns > now ? play->ask_ns - now : 0;
    return (struct timespec){.tv_nsec = (long)left};
}

/* Plays until told to stop. */
static void run(struct play *play, struct clock_log *log, double seconds)
{
    uint64_t until = seconds > 0 ? now_ns() + (uint64_t)(seconds * 1e9) : UINT64_MAX;
    bool over = false;
    play->heard_ns = now_ns();
    /* Every way out passes the end: the silence before a broken connection counts too. */
    while (!play->forgotten && (!over || play->waiting)) {
        uint64_t now = now_ns();
        over = stop_asked || now >= until;
        sample_clock(log, now);
        bool broken = !over && !play->waiting && now >= play->ask_ns && !ask(play);
        struct pollfd fds[2] = {{.fd = play->fd, .events = POLLIN}, {.fd = log->fd, .events = POLLIN}};
        struct timespec patience = patience_for(play, now);
        ppoll(fds, 2, &patience, NULL);
        if (fds[1].revents && log->fd >= 0)
            hear_clock(log);
        broken = broken || (fds[0].revents && !hear(play));
        if (!broken && play->waiting && now_ns() - play->sent_ns > play->patience_ns) {
            play->lost++;
            break;
        }
        if (broken) {
            play->resets++;
            break;
        }
    }
    note_gap(play, now_ns());
}

static bool take_options(struct play *play, int argc, char **argv)
{
    play->progress_fd = -1;
    play->patience_ns = PATIENCE_S * 1000000000ull;
    for (int i = 4; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--think-us") == 0)
            play->think_ns = strtoull(argv[i + 1], NULL, 10) * 1000;
        else if (strcmp(argv[i], "--patience-s") == 0)
            play->patience_ns = strtoull(argv[i + 1], NULL, 10) * 1000000000ull;
        else if (strcmp(argv[i], "--progress") == 0)
            play->progress_fd = open(argv[i + 1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        else
            return false;
    }
    return argc >= 4 && argc % 2 == 0;
}

int main(int argc, char **argv)
{
    static struct clock_log log;
    struct play play = {.rtt_us = histogram_new()};
    struct sigaction action = {.sa_handler = on_signal};
    if (argc == 5 && strcmp(argv[3], "--ask") == 0)
        return ask_once(argv[1], argv[2], argv[4]);
    if (!take_options(&play, argc, argv)) {
        fprintf(stderr, "usage: understudy-test-client HOST PORT SECONDS [--think-us MAX] [--progress FILE] "
                        "[--patience-s N]\n"
                        "       understudy-test-client HOST PORT --ask LINE\n");
        return 2;
    }
    srand48((long)now_ns());
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    play.fd = connect_to(argv[1], argv[2]);
    log.fd = connect_to(argv[1], argv[2]);
    if (play.fd < 0 || log.fd < 0) {
        fprintf(stderr, "client: %s port %s does not answer: %s\n", argv[1], argv[2], strerror(errno));
        return 1;
    }
    run(&play, &log, strtod(argv[3], NULL));
    json_t *json = json_pack(
        "{s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:f, s:o, s:I}", "answers_total", (json_int_t)play.answers,
        "answers_lost", (json_int_t)play.lost, "answers_out_of_order", (json_int_t)play.out_of_order,
        "tcp_resets", (json_int_t)play.resets, "longest_gap_ms", (double)play.gap_ns / 1e6, "client_gap_ms",
        (double)play.failover_gap_ns / 1e6, "rtt_us_p50", (json_int_t)histogram_percentile(play.rtt_us, 50),
        "rtt_us_p99", (json_int_t)histogram_percentile(play.rtt_us, 99), "rtt_us_mean",
        play.answers ? (double)play.rtt_sum_ns / 1e3 / (double)play.answers : 0.0, "guest_clock_drift_ppm",
        drift_ppm(&log), "last_answer", (json_int_t)play.last_value);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
    histogram_free(play.rtt_us);
    return play.answers == 0 || play.lost || play.out_of_order || play.resets;
}
