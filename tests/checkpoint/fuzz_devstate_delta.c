/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer target: any delta against any old length stays inside the state's buffer. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/devstate_delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { CAPACITY = 1024 };
    size_t len = size ? data[0] * 4u : 0;
    uint8_t *state = calloc(1, CAPACITY), *before = calloc(1, CAPACITY);
    uint8_t *again = malloc(devstate_delta_bound(CAPACITY));
    assert(state && before && again);
    memset(before, 0x5a, len);
    memcpy(state, before, len);
    size_t before_len = len;
    if (devstate_delta_apply(state, &len, CAPACITY, data, size) == 0) {
        assert(len <= CAPACITY);
        /* What it made can be encoded again, and gives the same. */
        ssize_t n =
            devstate_delta_encode(again, devstate_delta_bound(CAPACITY), state, len, before, before_len);
        assert(n >= 4);
        size_t check_len = before_len;
        assert(devstate_delta_apply(before, &check_len, CAPACITY, again, (size_t)n) == 0);
        assert(check_len == len && memcmp(before, state, len) == 0);
    }
    free(state);
    free(before);
    free(again);
    return 0;
}
