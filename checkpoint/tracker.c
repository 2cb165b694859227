/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scans for dirty pages (tracker.h). QEMU's log needs no scan: its bits are only moved to the dirty map. The
 * userfaultfd tracker scans main RAM with PAGEMAP_SCAN on /proc/PID/pagemap (Linux 6.7,
 * Documentation/admin-guide/mm/pagemap.rst) in two steps: it reads which pages were written since they were
 * protected, and then protects only those ranges again. The second step makes the scan safe while the guest
 * runs: a page is protected before its content is copied. Scanning and protecting everything in one call
 * would make KVM drop its mappings of the whole range.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "checkpoint/tracker.h"

/* <linux/fs.h> of Linux 6.7; Debian 12's headers are older. */
#ifndef PAGEMAP_SCAN
#define PAGE_IS_WRITTEN (1 << 1)
struct page_region {
    uint64_t start, end, categories;
};
struct pm_scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN          _IOWR('f', 16, struct pm_scan_arg)
#define PM_SCAN_WP_MATCHING   (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)
#endif

#define REGIONS 1024u

struct tracker {
    struct hypervisor *hv;
    enum hv_tracker kind;
    int pagemap;
    struct page_region regions[REGIONS];
};

int tracker_open(struct tracker **out, struct hypervisor *hv, enum hv_tracker kind)
{
    struct tracker *tracker = calloc(1, sizeof *tracker);
    if (!tracker)
        return -ENOMEM;
    tracker->hv = hv;
    tracker->kind = kind;
    tracker->pagemap = -1;
    if (kind == HV_TRACKER_UFFD) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/pagemap", (int)hypervisor_pid(hv));
        tracker->pagemap = open(path, O_RDONLY | O_CLOEXEC);
        if (tracker->pagemap < 0) {
            int status = -errno;
            free(tracker);
            return status;
        }
    }
    *out = tracker;
    return 0;
}

void tracker_close(struct tracker *tracker)
{
    if (!tracker)
        return;
    if (tracker->pagemap >= 0)
        close(tracker->pagemap);
    free(tracker);
}

static int protect(struct tracker *tracker, const struct page_region *region)
{
    struct page_region one;
    uint64_t start = region->start;
    while (start < region->end) {
        struct pm_scan_arg arg = {
            .size = sizeof arg,
            .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
            .start = start,
            .end = region->end,
            .vec = (uintptr_t)&one,
            .vec_len = 1,
            .category_mask = PAGE_IS_WRITTEN,
            .return_mask = PAGE_IS_WRITTEN,
        };
        if (ioctl(tracker->pagemap, PAGEMAP_SCAN, &arg) < 0)
            return -errno;
        if (arg.walk_end <= start)
            return -EPROTO;
        start = arg.walk_end;
    }
    return 0;
}

static int scan_block(struct tracker *tracker, struct dirty_map *map, unsigned i)
{
    const struct hv_block *block = hypervisor_block(tracker->hv, i);
    uint64_t start = block->host_addr, end = start + block->max_len;
    while (start < end) {
        struct pm_scan_arg arg = {
            .size = sizeof arg,
            .flags = PM_SCAN_CHECK_WPASYNC, /* -EPERM rather than silence where nothing is protected */
            .start = start,
            .end = end,
            .vec = (uintptr_t)tracker->regions,
            .vec_len = REGIONS,
            /* With just these masks a page without a mapping counts as written, unless its protection is
               remembered. */
            .category_mask = PAGE_IS_WRITTEN,
            .return_mask = PAGE_IS_WRITTEN,
        };
        long n = ioctl(tracker->pagemap, PAGEMAP_SCAN, &arg);
        if (n < 0)
            return -errno;
        for (long r = 0; r < n; r++) {
            const struct page_region *region = &tracker->regions[r];
            if (map) {
                for (uint64_t at = region->start; at < region->end; at += HV_PAGE_LEN)
                    dirty_map_set(map, i, (at - block->host_addr) / HV_PAGE_LEN);
            }
            int status = protect(tracker, region);
            if (status < 0)
                return status;
        }
        if (arg.walk_end <= start)
            return -EPROTO;
        start = arg.walk_end;
    }
    return 0;
}

static int scan(struct tracker *tracker, struct dirty_map *map)
{
    for (unsigned i = 0; i < hypervisor_nblocks(tracker->hv); i++) {
        int status = hypervisor_block(tracker->hv, i)->aux ? 0 : scan_block(tracker, map, i);
        if (status < 0)
            return status;
    }
    return 0;
}

int tracker_start(struct tracker *tracker)
{
    int status = hypervisor_track_start(tracker->hv, tracker->kind);
    return status < 0 || tracker->kind != HV_TRACKER_UFFD ? status : scan(tracker, NULL);
}

int tracker_stop(struct tracker *tracker)
{
    return hypervisor_track_stop(tracker->hv);
}

int tracker_harvest(struct tracker *tracker, struct dirty_map *map)
{
    int status = hypervisor_harvest(tracker->hv);
    return status < 0 ? status : tracker_take_in_pause(tracker, map);
}

int tracker_take_in_pause(struct tracker *tracker, struct dirty_map *map)
{
    dirty_map_take(map, tracker->hv);
    return tracker->kind == HV_TRACKER_UFFD ? scan(tracker, map) : 0;
}

const char *tracker_uffd_missing(void)
{
    static const char *const missing = "the kernel has no PAGEMAP_SCAN (Linux 6.7 or later is needed)";
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct page_region region;
    struct pm_scan_arg arg = {.size = sizeof arg,
                              .vec = (uintptr_t)&region,
                              .vec_len = 1,
                              .category_mask = PAGE_IS_WRITTEN,
                              .return_mask = PAGE_IS_WRITTEN};
    bool ok = fd >= 0 && ioctl(fd, PAGEMAP_SCAN, &arg) >= 0;
    if (fd >= 0)
        close(fd);
    return ok ? NULL : missing;
}
