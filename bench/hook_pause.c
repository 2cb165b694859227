/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hook alone: starts QEMU with the hook, takes N checkpoints at a fixed period without copying pages, and
 * prints the parts of the pause. What this shows is the floor that the engine's own work is added to.
 *
 *   hook_pause HOOK.so RAM_MIB COUNT PERIOD_MS -- qemu-system-x86_64 ARGS...
 * QEMU's own arguments must not name memory; this program adds it.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook_client.h"

enum { CHILD_SHM = 60, CHILD_DEVSTATE, CHILD_KICK, CHILD_RAM };

static pid_t start_qemu(char **argv, const char *hook, const struct hv_fds *fds, uint64_t ram_len)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct hv_fds inside = {
        .shm = CHILD_SHM, .devstate = CHILD_DEVSTATE, .kick = CHILD_KICK, .ram = CHILD_RAM};
    dup2(fds->shm, inside.shm);
    dup2(fds->devstate, inside.devstate);
    dup2(fds->kick, inside.kick);
    dup2(fds->ram, inside.ram);
    g_autoptr(GPtrArray) line = g_ptr_array_new();
    for (char **arg = argv; *arg; arg++)
        g_ptr_array_add(line, *arg);
    g_ptr_array_add(line, (char *)"-m");
    g_ptr_array_add(line, g_strdup_printf("%" G_GUINT64_FORMAT "M", ram_len >> 20));
    g_ptr_array_add(line, (char *)"-object");
    g_ptr_array_add(line, g_strdup_printf("memory-backend-file,id=ram0,size=%" G_GUINT64_FORMAT
                                          ",share=on,mem-path=/proc/self/fd/%d",
                                          ram_len, inside.ram));
    g_ptr_array_add(line, (char *)"-machine");
    g_ptr_array_add(line, (char *)"memory-backend=ram0");
    g_ptr_array_add(line, NULL);
    g_autofree char *hook_env = hv_fds_environment(&inside);
    setenv("UNDERSTUDY_HOOK", hook_env, 1);
    setenv("LD_PRELOAD", hook, 1);
    execvp(argv[0], (char **)line->pdata);
    _exit(127);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *name, double *us, size_t n)
{
    qsort(us, n, sizeof *us, compare);
    printf("%-10s p50 %8.1f us   p99 %8.1f us   max %8.1f us\n", name, us[n / 2], us[n * 99 / 100],
           us[n - 1]);
}

int main(int argc, char **argv)
{
    if (argc < 7 || strcmp(argv[5], "--") != 0) {
        fprintf(stderr, "usage: hook_pause HOOK.so RAM_MIB COUNT PERIOD_MS -- qemu-system-x86_64 ARGS...\n");
        return 2;
    }
    uint64_t ram_len = strtoull(argv[2], NULL, 10) << 20;
    size_t count = strtoull(argv[3], NULL, 10);
    long period_ms = strtol(argv[4], NULL, 10);
    struct hv_fds fds;
    struct hypervisor *hv = NULL;
    if (hv_fds_create(&fds, "bench", ram_len) < 0 || hypervisor_open(&hv, &fds, ram_len) < 0) {
        fprintf(stderr, "no memory\n");
        return 1;
    }
    pid_t pid = start_qemu(argv + 6, argv[1], &fds, ram_len);
    hypervisor_set_pid(hv, pid);
    int status = hypervisor_wait_ready(hv, 10000);
    if (status == 0)
        status = hypervisor_list_blocks(hv);
    if (status == 0)
        status = hypervisor_track_start(hv, HV_TRACKER_QEMU_LOG);
    double *part[6];
    for (int i = 0; i < 6; i++)
        part[i] = g_new0(double, count + 1);
    uint64_t devstate_len = 0, dirty = 0;
    size_t n = 0;
    g_usleep(2000000); /* let firmware settle; this is a bench */
    for (; status == 0 && n < count; n++) {
        struct hv_checkpoint c;
        status = hypervisor_checkpoint_begin(hv, 20000, false);
        if (status == 0)
            hypervisor_checkpoint_copied(hv);
        if (status == 0)
            status = hypervisor_checkpoint_finish(hv, &c);
        if (status < 0)
            break;
        uint64_t parts[6] = {c.stop_ns, c.harvest_ns, c.save_ns, c.copy_wait_ns, c.resume_ns, c.pause_ns};
        for (int i = 0; i < 6; i++)
            part[i][n] = (double)parts[i] / 1000;
        devstate_len = c.devstate_len;
        dirty += c.dirty_pages;
        g_usleep((gulong)period_ms * 1000);
    }
    if (status < 0)
        fprintf(stderr, "failed: %s: %s\n", strerror(-status), hypervisor_last_message(hv));
    static const char *const names[] = {"stop", "harvest", "save", "copy wait", "resume", "pause"};
    if (n > 0) {
        printf("QEMU %s, %s MiB, %zu checkpoints, %u RAM blocks, device state %" G_GUINT64_FORMAT
               " bytes, %.1f dirty pages\n",
               hypervisor_version(hv), argv[2], n, hypervisor_nblocks(hv), devstate_len,
               (double)dirty / (double)n);
        for (int i = 0; i < 6; i++)
            report(names[i], part[i], n);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    hypervisor_close(hv);
    hv_fds_close(&fds);
    return status < 0;
}
