/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: what an unknown sender may say first on a sealed link, and records on one that is up. The
 * first byte chooses. Bytes that were not sealed with the right key are never taken.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/seal.h"
#include "proto/seal_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_record(const uint8_t *secret, const uint8_t *data, size_t size)
{
    struct seal *seal =
        seal_new(size % 2 ? SEAL_AES_128_GCM : SEAL_CHACHA20_POLY1305, secret, &seal_limits_usual);
    uint8_t *bytes = malloc(size + 1);
    if (seal && bytes && size > SEAL_TAG_LEN) {
        const struct iovec iov = {bytes, size - SEAL_TAG_LEN};
        const struct seal_label label = {.kind = data[0]};
        memcpy(bytes, data, size);
        assert(seal_open(seal, &label, &iov, 1, bytes + iov.iov_len) == -EBADMSG);
    }
    free(bytes);
    seal_free(seal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t secret[SEAL_SECRET_LEN] = {1, 2, 3};
    struct seal_meeting meeting;
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0:
        if (seal_opening_take(&meeting, secret, data + 1, size - 1) == 0)
            assert(memcmp(meeting.opening, data + 1, SEAL_HANDSHAKE_LEN) == 0);
        break;
    case 1:
        assert(seal_opening_make(&meeting, secret, 1, 6) == 0);
        assert(seal_answer_take(&meeting, secret, data + 1, size - 1) <
               0); /* it has a nonce that nobody knows */
        break;
    case 2:
        if (size - 1 >= SEAL_TICKET_LEN)
            seal_ticket_check(secret, data + 1);
        break;
    default:
        open_record(secret, data + 1, size - 1);
        break;
    }
    return 0;
}
