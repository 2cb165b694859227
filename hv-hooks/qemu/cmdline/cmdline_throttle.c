/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds limits on disk requests, which are refused. Each checkpoint stops the guest, and QEMU drains its
 * disks first. During that, its throttle groups let every request through that waits (tg->restart and
 * io_limits_disabled in block/throttle-groups.c, QEMU 7.2 to 10.0). This happens fifty times a second, so a
 * limit of 50 requests a second became 400.
 */
#include "hv-hooks/qemu/cmdline/cmdline_throttle.h"

#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline_keys.h"
#include "hv-hooks/qemu/cmdline/cmdline_refusal.h"

/* "iops-total", "bps-read-max", "iops_rd", ... after one of the prefixes that QEMU has for them. */
static bool is_limit(const char *key)
{
    static const char *const prefixes[] = {"throttling.", "limits.", "x-"};
    static const char *const units[] = {"iops", "bps"};
    static const char *const whats[] = {"", "-total", "-read", "-write", "_rd", "_wr"};
    static const char *const ends[] = {"", "-max", "_max"};
    for (size_t i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        if (g_str_has_prefix(key, prefixes[i])) {
            key += strlen(prefixes[i]);
            break;
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(units) * G_N_ELEMENTS(whats) * G_N_ELEMENTS(ends); i++) {
        g_autofree char *name = g_strconcat(units[i % 2], whats[i / 2 % G_N_ELEMENTS(whats)],
                                            ends[i / 2 / G_N_ELEMENTS(whats)], NULL);
        if (strcmp(key, name) == 0)
            return true;
    }
    return false;
}

/* 0 is no limit, in all its spellings. */
static bool is_zero(const char *value)
{
    return value[0] && strspn(value, "0.") == strcspn(value, "bBkKmMgGtTpPeE");
}

bool cmdline_throttle_check(const char *option, const char *value, const GPtrArray *keys, GError **error)
{
    for (guint i = 0; i < keys->len; i++) {
        const struct cmdline_key *key = g_ptr_array_index(keys, i);
        if (is_limit(key->key) && !is_zero(key->value))
            return UNSUPPORTED(
                "-%s %s: each checkpoint drains QEMU's queue of the disk and lets every waiting "
                "request through, so the limit %s would not hold; leave it out, and set one on "
                "the storage behind the image",
                option, value, key->key);
    }
    return true;
}
