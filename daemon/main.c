/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * understudyd's start and end: options, defaults, signals and the main loop. The daemon closes all
 * descriptors that it inherits, starts both sockets, and runs until a signal. VMs go on without it, unless
 * --drain hands them over first.
 */
#include <gio/gio.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/address.h"
#include "common/hide.h"
#include "common/log.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/trust/trust.h"
#include "proto/limits.h"

#define LEAVE_MS   60000
#define LEAVING_MS 50

struct ending {
    GMainLoop *loop;
    bool drain;
    gint64 until; /* 0: no signal yet */
};

static gboolean on_leaving(gpointer opaque)
{
    struct ending *ending = opaque;
    if (vms_count() > 0 && g_get_monotonic_time() < ending->until)
        return G_SOURCE_CONTINUE;
    g_main_loop_quit(ending->loop);
    return G_SOURCE_REMOVE;
}

/* Ends the daemon. With --drain, the first signal hands the VMs over first; the second one does not wait. */
static gboolean on_signal(gpointer opaque)
{
    struct ending *ending = opaque;
    if (ending->drain && !ending->until) {
        ending->until = g_get_monotonic_time() + LEAVE_MS * 1000;
        drain_set(true, false, NULL);
        g_timeout_add(LEAVING_MS, on_leaving, ending);
    } else {
        g_main_loop_quit(ending->loop);
    }
    return G_SOURCE_CONTINUE;
}

/* Returns the first of the candidates that exists, or the last one. GLib string. */
static char *find_file(char *const *candidates)
{
    int i = 0;
    while (candidates[i + 1] && g_access(candidates[i], R_OK) != 0)
        i++;
    return g_strdup(candidates[i]);
}

/* Finds a program of understudy: beside this one in a build tree, or where it is installed. GLib string. */
static char *find_part(const char *installed_dir, const char *built_dir, const char *name)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *self_dir = self ? g_path_get_dirname(self) : g_strdup(".");
    g_autofree char *relative = g_build_filename(self_dir, "..", built_dir, name, NULL);
    g_autofree char *built = g_canonicalize_filename(relative, NULL);
    g_autofree char *installed = g_build_filename(installed_dir, name, NULL);
    char *const candidates[] = {built, installed, NULL};
    return find_file(candidates);
}

/* Replaces the name in --listen by its address, since replicators do not resolve names. */
static bool resolve_listen(struct daemon_config *config, GError **error)
{
    struct addresses all;
    if (!config->listen_address)
        return true;
    if (addresses_resolve(&all, config->listen_address, 0, ADDRESS_OWN, AF_UNSPEC, error) < 0)
        return false;
    g_free(config->listen_address);
    config->listen_address = address_text((const struct sockaddr *)&all.list[0].storage, all.list[0].len);
    return true;
}

static bool parse_options(int *argc, char ***argv, struct daemon_config *config, GError **error)
{
    char *listen = NULL;
    gboolean version = FALSE;
    const GOptionEntry entries[] = {
        {"run-dir", 0, 0, G_OPTION_ARG_FILENAME, &config->run_dir,
         "Sockets and logs (default /run/understudy)", "DIR"},
        {"listen", 0, 0, G_OPTION_ARG_STRING, &listen,
         "Where peers reach this host (default all addresses, port 7070)", "ADDRESS[:PORT]"},
        {"nice", 0, 0, G_OPTION_ARG_INT, &config->nice,
         "Niceness of VMs, their replicators and disks' servers (default -10; 0: that of the daemon)", "N"},
        {"replicator", 0, 0, G_OPTION_ARG_FILENAME, &config->replicator, "The replicator's program", "FILE"},
        {"state-dir", 0, 0, G_OPTION_ARG_FILENAME, &config->state_dir,
         "Disks' journals and maps, terms, events (default /var/lib/understudy)", "DIR"},
        {"disk-plugin", 0, 0, G_OPTION_ARG_FILENAME, &config->disk_plugin, "The plugin for nbdkit", "FILE"},
        {"hook", 0, 0, G_OPTION_ARG_FILENAME, &config->hook, "The library loaded into QEMU", "FILE"},
        {"hooks-dir", 0, 0, G_OPTION_ARG_FILENAME, &config->hooks_dir,
         "Programs that are called at each event (default hooks.d in --etc-dir)", "DIR"},
        {"etc-dir", 0, 0, G_OPTION_ARG_FILENAME, &config->etc_dir,
         "This host's key, and the hosts that it trusts (default /etc/understudy)", "DIR"},
        {"qemu", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &config->qemu,
         "Programs that a peer's command lines may name (default /usr/bin/qemu-system-*; may be repeated)",
         "GLOB"},
        {"drain", 0, 0, G_OPTION_ARG_NONE, &config->drain,
         "When stopped, hand the VMs over first, for a minute at most (by default they go on without a "
         "daemon)",
         NULL},
        {"version", 0, 0, G_OPTION_ARG_NONE, &version, "Print the version", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- keep VMs alive when a host dies");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, error))
        return false;
    if (*argc > 1) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_UNKNOWN_OPTION,
                    "%s is not an option; 'understudyd --help' lists what there is", (*argv)[1]);
        return false;
    }
    if (version) {
        printf("understudyd %s\n", UNDERSTUDY_VERSION);
        exit(0);
    }
    if (config->nice < LIMIT_NICE_MIN || config->nice > LIMIT_NICE_MAX) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "--nice %d: give a number from %d to %d",
                    config->nice, LIMIT_NICE_MIN, LIMIT_NICE_MAX);
        return false;
    }
    for (char **pattern = config->qemu; pattern && *pattern; pattern++) {
        if (g_path_is_absolute(*pattern))
            continue;
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                    "--qemu %s: give full paths, for example --qemu '/opt/qemu/bin/qemu-system-*'", *pattern);
        return false;
    }
    config->port = DEFAULT_PORT;
    if (listen && !peer_split(listen, &config->listen_address, &config->port)) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                    "--listen %s is not ADDRESS or ADDRESS:PORT", listen);
        return false;
    }
    if (!resolve_listen(config, error))
        return false;
    if (!config->run_dir)
        config->run_dir = g_strdup("/run/understudy");
    if (!config->state_dir)
        config->state_dir = g_strdup("/var/lib/understudy");
    if (!config->etc_dir)
        config->etc_dir = g_strdup("/etc/understudy");
    if (!config->hooks_dir)
        config->hooks_dir = g_build_filename(config->etc_dir, "hooks.d", NULL);
    if (!config->disk_plugin)
        config->disk_plugin = find_part(UNDERSTUDY_LIBEXEC, "replicator", "nbdkit-understudy-plugin.so");
    if (!config->replicator)
        config->replicator = find_part(UNDERSTUDY_LIBEXEC, "replicator", "understudy-replicator");
    if (!config->hook)
        config->hook = find_part(UNDERSTUDY_LIBDIR, "hv-hooks", "libunderstudy-qemu.so");
    g_free(listen);
    return true;
}

static void log_start(const struct daemon_config *config)
{
    g_message("understudyd %s: commands at %s/control.sock, peers at %s port %u, state in %s",
              UNDERSTUDY_VERSION, config->run_dir,
              config->listen_address ? config->listen_address : "every address", config->port,
              config->state_dir);
    g_autofree char *key = key_text(trust_own_key(config->trust));
    g_message("this host's public key is %s; keys and trusted hosts are in %s", key, config->etc_dir);
    g_message("replicator %s, hook %s, disk plugin %s, niceness %d, hooks of events in %s",
              config->replicator, config->hook, config->disk_plugin, config->nice, config->hooks_dir);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct daemon_config config = {.nice = DEFAULT_NICE};
    log_open("understudyd");
    signal(SIGPIPE, SIG_IGN);
    /* A descriptor of the starting process (a lock, a pipe) would live as long as the VMs. */
    close_range(3, ~0u, 0);
    if (!parse_options(&argc, &argv, &config, &error)) {
        fprintf(stderr, "understudyd: %s\n", error->message);
        return 2;
    }
    process_hide(); /* its memory has this host's key */
    config.trust = trust_open(config.etc_dir, &error);
    if (!config.trust) {
        fprintf(stderr, "understudyd: %s\n", error->message);
        return 1;
    }
    config.door = trust_door(config.trust);
    if (g_mkdir_with_parents(config.run_dir, 0700) < 0 || !server_start(&config, &error)) {
        fprintf(stderr, "understudyd: %s\n", error ? error->message : "the run folder cannot be made");
        return 1;
    }
    log_start(&config);
    events_open(config.state_dir, config.hooks_dir);
    vms_init(&config);
    vm_watch_start();
    drain_init(&config);
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    struct ending ending = {.loop = loop, .drain = config.drain};
    g_unix_signal_add(SIGTERM, on_signal, &ending);
    g_unix_signal_add(SIGINT, on_signal, &ending);
    sd_notify(0, "READY=1");
    g_main_loop_run(loop);
    sd_notify(0, "STOPPING=1");
    g_message("understudyd ends; VMs and their protection go on");
    server_stop();
    vms_shutdown();
    events_close();
    return 0;
}
