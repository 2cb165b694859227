/* SPDX-License-Identifier: GPL-2.0-or-later */
/* print_build [--trial LEN] VM_DIR RAM_FD QEMU ARGS...: the line that cmdline_build makes of it, each
 * argument ended by a zero byte. --trial: cmdline_build_trial, with each disk of LEN bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline.h"

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    uint64_t len[CMDLINE_DISKS_MAX];
    bool trial = argc > 2 && strcmp(argv[1], "--trial") == 0;
    for (size_t i = 0; trial && i < CMDLINE_DISKS_MAX; i++)
        len[i] = g_ascii_strtoull(argv[2], NULL, 10);
    argc -= trial ? 2 : 0;
    argv += trial ? 2 : 0;
    if (argc < 4)
        return 2;
    struct cmdline *line = cmdline_parse((const char *const *)argv + 3, &error);
    if (!line) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    g_auto(GStrv) built = trial ? cmdline_build_trial(line, atoi(argv[2]), argv[1], len, &error)
                                : cmdline_build(line, atoi(argv[2]), argv[1], false);
    if (!built) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    for (char **each = built; *each; each++)
        fwrite(*each, 1, strlen(*each) + 1, stdout);
    cmdline_free(line);
    return 0;
}
