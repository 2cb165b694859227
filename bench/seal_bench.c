/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast this processor seals and opens records (proto/seal.h): GB per second of processor time in one
 * thread, and nanoseconds for a short record. A few seconds.
 *
 *     seal_bench [MIB]     of each measurement (256)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/seal.h"

#define PAGE_LEN 4096u
#define PAGES    (SEAL_SEGMENT_LEN / PAGE_LEN)

static const struct seal_label label = {.kind = 2};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "seal_bench: %s\n", what);
    exit(1);
}

static struct seal *new_seal(enum seal_cipher cipher)
{
    static const uint8_t secret[SEAL_SECRET_LEN] = {1};
    struct seal *seal = seal_new(cipher, secret, &seal_limits_usual);
    if (!seal)
        fail("a cipher cannot be had");
    return seal;
}

/* Seals from pages that are not neighbours into a buffer, and opens there: the ways of the TCP transport. */
static void long_records(enum seal_cipher cipher, uint8_t *pages, uint8_t *out, unsigned records)
{
    struct seal *to = new_seal(cipher), *from = new_seal(cipher);
    struct iovec scattered[PAGES], whole = {out, SEAL_SEGMENT_LEN};
    double close_s = 0, open_s = 0, began;
    for (unsigned i = 0; i < PAGES; i++)
        scattered[i] = (struct iovec){pages + (size_t)(2 * i) * PAGE_LEN, PAGE_LEN};
    for (unsigned i = 0; i < records; i++) {
        began = seconds();
        if (seal_close_to(to, &label, scattered, PAGES, out) < 0)
            fail("a record cannot be sealed");
        close_s += seconds() - began;
        began = seconds();
        if (seal_open(from, &label, &whole, 1, out + SEAL_SEGMENT_LEN) < 0)
            fail("a record cannot be opened");
        open_s += seconds() - began;
    }
    double bytes = (double)records * SEAL_SEGMENT_LEN;
    printf("%-18s  seals %5.2f GB/s, opens %5.2f GB/s", seal_cipher_name(cipher), bytes / close_s / 1e9,
           bytes / open_s / 1e9);
    seal_free(to);
    seal_free(from);
}

static void short_records(enum seal_cipher cipher, uint8_t *out, unsigned records)
{
    struct seal *to = new_seal(cipher);
    const struct iovec iov = {out, 48};
    double began = seconds();
    for (unsigned i = 0; i < records; i++)
        if (seal_close(to, &label, &iov, 1, out + 64) < 0)
            fail("a record cannot be sealed");
    printf(", seals a header in %.0f ns\n", (seconds() - began) * 1e9 / records);
    seal_free(to);
}

int main(int argc, char **argv)
{
    int mib = argc == 2 ? atoi(argv[1]) : 256;
    uint8_t *pages = malloc(2 * (size_t)SEAL_SEGMENT_LEN), *out = malloc(SEAL_SEGMENT_LEN + SEAL_TAG_LEN);
    if (argc > 2 || mib < 1 || !pages || !out)
        fail("usage: seal_bench [MIB]");
    memset(pages, 0x5a, 2 * (size_t)SEAL_SEGMENT_LEN);
    const enum seal_cipher ciphers[] = {SEAL_AES_128_GCM, SEAL_CHACHA20_POLY1305};
    for (unsigned i = 0; i < 2; i++) {
        long_records(ciphers[i], pages, out, (unsigned)mib * 16);
        short_records(ciphers[i], out, 100000);
    }
    free(pages);
    free(out);
    return 0;
}
