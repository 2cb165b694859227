/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See nbd_load.h. One thread; libnbd's asynchronous calls. */
#include "nbd_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEN (1u << 20)
#define HOT_LEN (192u << 10) /* where most requests go, so that they overlap */

void nbd_load_init(struct nbd_load *load, uint64_t seed)
{
    *load = (struct nbd_load){.random = seed * 2654435761u + 88172645463325252ull, .next_tag = 1};
    for (unsigned i = 0; i < NBD_LOAD_DEPTH; i++)
        load->requests[i].data = malloc(MAX_LEN);
}

void nbd_load_end(struct nbd_load *load)
{
    for (unsigned i = 0; i < NBD_LOAD_DEPTH; i++)
        free(load->requests[i].data);
    nbd_load_disconnect(load);
}

void nbd_load_disconnect(struct nbd_load *load)
{
    if (load->nbd)
        nbd_close(load->nbd);
    load->nbd = NULL;
}

uint64_t nbd_load_random(struct nbd_load *load, uint64_t below)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return (load->random >> 11) % below;
}

static bool send_request(struct nbd_load *load, struct nbd_load_request *request)
{
    switch (request->kind) {
    case LOAD_WRITE:
        request->cookie =
            nbd_aio_pwrite(load->nbd, request->data, request->len, request->offset, NBD_NULL_COMPLETION, 0);
        break;
    case LOAD_ZERO:
        request->cookie =
            nbd_aio_zero(load->nbd, request->len, request->offset, NBD_NULL_COMPLETION, request->flags);
        break;
    case LOAD_TRIM:
        request->cookie = nbd_aio_trim(load->nbd, request->len, request->offset, NBD_NULL_COMPLETION, 0);
        break;
    case LOAD_READ:
        request->cookie =
            nbd_aio_pread(load->nbd, request->data, request->len, request->offset, NBD_NULL_COMPLETION, 0);
        break;
    }
    return request->cookie >= 0;
}

bool nbd_load_connect(struct nbd_load *load, const char *socket_path)
{
    nbd_load_disconnect(load);
    load->nbd = nbd_create();
    if (!load->nbd || nbd_add_meta_context(load->nbd, "base:allocation") < 0 ||
        nbd_connect_unix(load->nbd, socket_path) < 0) {
        fprintf(stderr, "nbd_load: %s\n", nbd_get_error());
        return false;
    }
    load->export_len = (uint64_t)nbd_get_size(load->nbd);
    for (unsigned i = 0; i < NBD_LOAD_DEPTH; i++) {
        if (load->requests[i].is_open && !send_request(load, &load->requests[i]))
            return false;
    }
    return true;
}

/* Takes the answers that are there. False: the connection is gone; what has no answer stays open. */
static bool take_answers(struct nbd_load *load)
{
    for (unsigned i = 0; i < NBD_LOAD_DEPTH; i++) {
        struct nbd_load_request *request = &load->requests[i];
        if (!request->is_open)
            continue;
        int status = nbd_aio_command_completed(load->nbd, (uint64_t)request->cookie);
        if (status == 0)
            continue;
        if (status < 0 && (nbd_aio_is_dead(load->nbd) || nbd_aio_is_closed(load->nbd)))
            return false;
        request->is_open = false;
        load->nanswered++;
        if (status < 0)
            load->nerrors++;
        else if (request->kind == LOAD_WRITE && load->on_written)
            load->on_written(load->opaque, request->tag);
    }
    return true;
}

/* Waits until something happens. */
static bool pump(struct nbd_load *load)
{
    bool alive = nbd_poll(load->nbd, -1) >= 0;
    return take_answers(load) && alive;
}

static struct nbd_load_request *find_place(struct nbd_load *load)
{
    for (unsigned i = 0; i < NBD_LOAD_DEPTH; i++) {
        if (!load->requests[i].is_open)
            return &load->requests[i];
    }
    return NULL;
}

static void choose(struct nbd_load *load, struct nbd_load_request *request)
{
    uint64_t dice = nbd_load_random(load, 100);
    request->kind = dice < 70 ? LOAD_WRITE : dice < 80 ? LOAD_ZERO : dice < 90 ? LOAD_TRIM : LOAD_READ;
    request->flags = dice % 2 ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
    dice = nbd_load_random(load, 100);
    uint64_t within = dice < 70 ? HOT_LEN : load->export_len;
    uint64_t longest = dice < 70 ? 16384 : dice < 98 ? 65536 : MAX_LEN;
    if (longest > within)
        longest = within;
    request->len = (uint32_t)(NBD_LOAD_TAG_LEN + nbd_load_random(load, longest - NBD_LOAD_TAG_LEN + 1));
    request->offset = nbd_load_random(load, within - request->len + 1);
    if (dice % 3 == 0) { /* as a file system would */
        request->len = (request->len + 4095) & ~4095u;
        request->offset &= ~4095ull;
    }
    if (request->len > load->export_len - request->offset)
        request->len = (uint32_t)(load->export_len - request->offset);
}

bool nbd_load_issue(struct nbd_load *load)
{
    struct nbd_load_request *request;
    while (!(request = find_place(load))) {
        if (!pump(load))
            return false;
    }
    choose(load, request);
    if (request->kind == LOAD_WRITE) {
        request->tag = load->next_tag++;
        memset(request->data, (int)(request->tag * 37), request->len);
        memcpy(request->data, &request->tag, NBD_LOAD_TAG_LEN);
    }
    request->is_open = true;
    return send_request(load, request);
}

bool nbd_load_drain(struct nbd_load *load)
{
    for (unsigned i = 0; i < NBD_LOAD_DEPTH; i++) {
        while (load->requests[i].is_open) {
            if (!pump(load))
                return false;
        }
    }
    return true;
}
