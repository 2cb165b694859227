/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Facts about this host that a pair must agree on, and that doctor shows. */
#include <fcntl.h>
#include <gio/gio.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/words.h"
#include "daemon/daemon.h"
#include "hv-hooks/qemu/cmdline/cmdline.h"

#define VERSION_MAX 200

char *host_qemu_version(const char *binary, GError **error)
{
    g_autofree char *output = NULL;
    const char *argv[] = {binary, "-version", NULL};
    int status = 0;
    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
                      &output, NULL, &status, NULL) ||
        status != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s could not be run: install QEMU or give its full path", binary);
        return NULL;
    }
    const char *version = strstr(output, "version ");
    if (!version) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s is not a QEMU", binary);
        return NULL;
    }
    /* With the packaging's part: two builds of one version may differ in their machines. */
    version += strlen("version ");
    return words_make_readable_len(version, strcspn(version, "\r\n"), VERSION_MAX);
}

void protection_set_string(char **field, const char *value)
{
    if (*field != protobuf_c_empty_string)
        free(*field);
    *field = value[0] ? strdup(value) : (char *)protobuf_c_empty_string;
}

static char *cpuinfo_line(const char *key)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL))
        return g_strdup("");
    char *line = strstr(text, key);
    char *colon = line ? strchr(line, ':') : NULL;
    if (!colon)
        return g_strdup("");
    colon[strcspn(colon, "\n")] = 0;
    return g_strstrip(g_strdup(colon + 1));
}

char *host_cpu_model(void)
{
    g_autofree char *model = cpuinfo_line("model name");
    g_autofree char *flags = cpuinfo_line("flags");
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, flags, -1);
    return g_strdup_printf("%s (features %.8s)", model, sum);
}

uint64_t host_memory_available_mib(void)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL))
        return 0;
    const char *line = strstr(text, "MemAvailable:");
    return line ? g_ascii_strtoull(line + strlen("MemAvailable:"), NULL, 10) / 1024 : 0;
}

bool host_has_kvm(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = fd >= 0 ? ioctl(fd, KVM_CREATE_VM, 0) : -1;
    if (vm >= 0)
        close(vm);
    if (fd >= 0)
        close(fd);
    return vm >= 0;
}

char *host_accel(const struct cmdline *line)
{
    bool falls_back = line->accel_or_tcg && strcmp(line->accel, "kvm") == 0 && !host_has_kvm();
    return g_strdup(falls_back ? "tcg" : line->accel);
}

char **host_argv(char **argv, size_t n_argv)
{
    char **copy = g_new0(char *, n_argv + 1);
    for (size_t i = 0; i < n_argv; i++)
        copy[i] = g_strdup(argv[i]);
    return copy;
}

struct cmdline *host_cmdline(const Understudy__Protection *protection, GError **error)
{
    g_auto(GStrv) argv = host_argv(protection->qemu_argv, protection->n_qemu_argv);
    return cmdline_parse((const char *const *)argv, error);
}

char *host_accel_of(const Understudy__Protection *protection)
{
    struct cmdline *line = host_cmdline(protection, NULL);
    char *accel = line ? host_accel(line) : g_strdup("");
    cmdline_free(line);
    return accel;
}
