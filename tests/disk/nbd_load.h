/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests to an NBD server, many in flight on one connection, as QEMU makes them: writes, zeroes,
 * trims and reads that overlap. Written data begins with a number that no other write has. A server that dies
 * is noticed, and what it has not answered can be sent again to the next one.
 */
#ifndef UNDERSTUDY_TESTS_NBD_LOAD_H
#define UNDERSTUDY_TESTS_NBD_LOAD_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>

enum { NBD_LOAD_DEPTH = 16, NBD_LOAD_TAG_LEN = 8 };

enum nbd_load_kind { LOAD_WRITE, LOAD_ZERO, LOAD_TRIM, LOAD_READ };

struct nbd_load_request {
    bool is_open; /* not answered yet */
    enum nbd_load_kind kind;
    uint64_t offset, tag;
    uint32_t len, flags;
    uint8_t *data;
    int64_t cookie;
};

struct nbd_load {
    struct nbd_handle *nbd;
    uint64_t export_len, random, next_tag;
    struct nbd_load_request requests[NBD_LOAD_DEPTH];
    uint64_t nanswered, nerrors;
    /* Called for each write that was answered without an error, if not NULL. */
    void (*on_written)(void *opaque, uint64_t tag);
    void *opaque;
};

void nbd_load_init(struct nbd_load *load, uint64_t seed);
void nbd_load_end(struct nbd_load *load);
/* Connects, and sends again what is open. False: the server died meanwhile. */
bool nbd_load_connect(struct nbd_load *load, const char *socket_path);
void nbd_load_disconnect(struct nbd_load *load);
uint64_t nbd_load_random(struct nbd_load *load, uint64_t below);
/* Fills the queue with one more request, waiting for a place if need be. False: the server died. */
bool nbd_load_issue(struct nbd_load *load);
/* Waits until all is answered. False: the server died. */
bool nbd_load_drain(struct nbd_load *load);

#endif
