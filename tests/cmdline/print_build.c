/* SPDX-License-Identifier: GPL-2.0-or-later */
/* print_build VM_DIR RAM_FD QEMU ARGS...: the line that cmdline_build makes of it, each argument ended by a
 * zero byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline.h"

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    if (argc < 4)
        return 2;
    struct cmdline *line = cmdline_parse((const char *const *)argv + 3, &error);
    if (!line) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    g_auto(GStrv) built = cmdline_build(line, atoi(argv[2]), argv[1], false);
    for (char **each = built; *each; each++)
        fwrite(*each, 1, strlen(*each) + 1, stdout);
    cmdline_free(line);
    return 0;
}
