/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: the reader of QEMU's command lines, which also reads those that another host sends. The
 * input is a line's words, each ended by a newline. A line that is taken can be built, in each of its forms,
 * and is still taken when it is read again; one that is refused is refused in words.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline.h"
#include "hv-hooks/qemu/cmdline/run_events.h"

#define RAM_FD    10
#define NDISK_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* GLib strv; a NUL ends the words. */
static char **words_of(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    return g_strsplit(text, "\n", -1);
}

static void check_taken(const struct cmdline *line)
{
    assert(line->binary && line->accel && line->machine && line->ram_bytes);
    for (guint i = 0; i < line->disks->len; i++)
        assert(((const struct cmdline_disk *)g_ptr_array_index(line->disks, i))->id);
    for (guint i = 0; i < line->nics->len; i++)
        assert(g_ptr_array_index(line->nics, i));
    /* What runs a program stands in the line. */
    assert(!line->runs || line->runs[0] == '-');
}

static void build_all(struct cmdline *line)
{
    static const uint64_t disk_len[NDISK_MAX];
    GError *error = NULL;
    cmdline_enforce_cpu(line);
    for (guint i = 0; i < line->disks->len; i++)
        cmdline_set_format(line, i, "raw");
    g_auto(GStrv) primary = cmdline_build(line, RAM_FD, "/run/vm", false);
    g_auto(GStrv) standby = cmdline_build(line, RAM_FD, "/run/vm", true);
    assert(primary && standby && strcmp(primary[0], line->binary) == 0);
    assert(g_strv_length(standby) > g_strv_length(primary));
    if (line->disks->len > NDISK_MAX)
        return;
    g_auto(GStrv) trial = cmdline_build_trial(line, RAM_FD, "/run/vm", disk_len, &error);
    assert(!trial == !!error);
    g_clear_error(&error);
}

/* Files that are named from somewhere become absolute, and a line stays what it was otherwise. */
static void read_again(const char *const *argv, const struct cmdline *line)
{
    g_auto(GStrv) absolute = cmdline_absolute(argv, "/nowhere");
    assert(g_strv_length(absolute) == g_strv_length((char **)argv));
    struct cmdline *again = cmdline_parse((const char *const *)absolute, NULL);
    assert(again);
    assert(again->ram_bytes == line->ram_bytes && again->disks->len == line->disks->len &&
           again->nics->len == line->nics->len && !again->runs == !line->runs);
    cmdline_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    GError *error = NULL;
    struct run_actions actions;
    g_auto(GStrv) words = words_of(data, size);
    const char *const *argv = (const char *const *)words;
    struct cmdline *line = cmdline_parse(argv, &error);
    assert(!line == !!error);
    assert(!error || error->message[0]);
    g_clear_error(&error);
    run_actions_read(&actions, argv);
    if (!line)
        return 0;
    check_taken(line);
    read_again(argv, line);
    build_all(line);
    cmdline_free(line);
    return 0;
}
