/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Facts about this host that a pair must agree on, and that doctor shows. */
#include <fcntl.h>
#include <gio/gio.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "hv-hooks/line.h"

void protection_set_string(char **field, const char *value)
{
    if (*field != protobuf_c_empty_string)
        free(*field);
    *field = value[0] ? strdup(value) : (char *)protobuf_c_empty_string;
}

Understudy__Protection *protection_copy(const Understudy__Protection *protection)
{
    size_t len = understudy__protection__get_packed_size(protection);
    g_autofree uint8_t *packed = g_malloc(len);
    understudy__protection__pack(protection, packed);
    return understudy__protection__unpack(NULL, len, packed);
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

char *host_accel(const struct line *line)
{
    bool falls_back = line->accel_otherwise && strcmp(line->accel, "kvm") == 0 && !host_has_kvm();
    return g_strdup(falls_back ? line->accel_otherwise : line->accel);
}

char **host_argv(char **argv, size_t n_argv)
{
    char **copy = g_new0(char *, n_argv + 1);
    for (size_t i = 0; i < n_argv; i++)
        copy[i] = g_strdup(argv[i]);
    return copy;
}

const char *host_program(const Understudy__Protection *protection)
{
    return protection->n_qemu_argv ? protection->qemu_argv[0] : NULL;
}

struct line *host_line(const Understudy__Protection *protection, GError **error)
{
    g_auto(GStrv) argv = host_argv(protection->qemu_argv, protection->n_qemu_argv);
    return line_parse((const char *const *)argv, error);
}

char *host_accel_of(const Understudy__Protection *protection)
{
    struct line *line = host_line(protection, NULL);
    char *accel = line ? host_accel(line) : g_strdup("");
    line_free(line);
    return accel;
}
