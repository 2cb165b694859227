/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See trial_load.h. One thread, from the start of the throw-away QEMU to its end, with a main context of its
 * own: QEMU is killed by the kernel when this thread ends (child_process.h).
 *
 *   start QEMU -> hook ready, blocks listed, monitor open -> image held -> aux blocks, device state -> let go
 *
 * One at a time on a host: when many standbys come at once (its QEMU was upgraded), each waits for its turn.
 *
 * The image is held for the last step only. The load is bounded by what a takeover may take. QEMU exits on a
 * state that it cannot load; its last words say why.
 */
#include "hv-hooks/qemu/trial_load.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/words.h"
#include "hv-hooks/qemu/hook_client.h"
#include "hv-hooks/qemu/qemu_process.h"
#include "hv-hooks/qemu/qmp.h"
#include "hv-hooks/qemu/takeover.h"

#define START_MS     20000
#define MONITOR_MS   5000
#define LOAD_MS      5000 /* as a takeover in a planned failover */
#define LAST_WORD_MS 1000
#define NICE         1 /* behind the guests and what protects them */
#define TURN_MS      50
#define WHY_MAX      400

struct trial_load {
    const struct trial_load_config *config;
    GMainContext *context;
    struct hv_fds fds;
    struct hypervisor *hv;
    _Atomic bool cancelled;
    /* The running thread's own. */
    struct child_process *qemu;
    struct qmp *qmp;
    bool exited, monitor_closed, loaded, load_over;
    char *load_message;
    uint64_t load_us;
    char *log_path, *socket_path;
};

struct trial_load *trial_load_new(const struct trial_load_config *config, GError **error)
{
    struct trial_load *trial = g_new0(struct trial_load, 1);
    trial->config = config;
    trial->context = g_main_context_new();
    trial->log_path = g_build_filename(config->dir, "trial.log", NULL);
    trial->socket_path = g_build_filename(config->dir, "us-trial", NULL);
    int status = hv_fds_create_beside(&trial->fds, config->vm_name, config->ram_len, config->ram_fd);
    if (status == 0)
        status = hypervisor_open(&trial->hv, &trial->fds, config->ram_len);
    if (status == 0)
        return trial;
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "no memory for it: %s",
                g_strerror(-status));
    trial_load_free(trial);
    return NULL;
}

void trial_load_free(struct trial_load *trial)
{
    if (!trial)
        return;
    hypervisor_close(trial->hv);
    hv_fds_close(&trial->fds);
    g_main_context_unref(trial->context);
    g_free(trial->load_message);
    g_free(trial->log_path);
    g_free(trial->socket_path);
    g_free(trial);
}

void trial_load_cancel(struct trial_load *trial)
{
    atomic_store(&trial->cancelled, true);
    hypervisor_interrupt(trial->hv, true);
    g_main_context_wakeup(trial->context);
}

static void on_exit_of_qemu(struct child_process *process, int status, void *opaque)
{
    struct trial_load *trial = opaque;
    (void)process;
    (void)status;
    trial->exited = true;
}

static void on_monitor_closed(struct qmp *qmp, const GError *error, void *opaque)
{
    struct trial_load *trial = opaque;
    (void)qmp;
    (void)error;
    trial->monitor_closed = true;
}

static void on_loaded(bool ok, const char *message, uint64_t elapsed_us, void *opaque)
{
    struct trial_load *trial = opaque;
    trial->load_over = true;
    trial->load_message = g_strdup(message);
    trial->loaded = ok;
    trial->load_us = elapsed_us;
}

static gboolean on_time(gpointer opaque)
{
    *(bool *)opaque = true;
    return G_SOURCE_CONTINUE;
}

/* Iterates the main context until *flag is set, the trial is cancelled or timeout_ms have passed. Returns
 * *flag. */
static bool await(struct trial_load *trial, const bool *flag, unsigned timeout_ms)
{
    bool late = false;
    GSource *timer = g_timeout_source_new(timeout_ms);
    g_source_set_callback(timer, on_time, &late, NULL);
    g_source_attach(timer, trial->context);
    while (!*flag && !late && !atomic_load(&trial->cancelled))
        g_main_context_iteration(trial->context, TRUE);
    g_source_destroy(timer);
    g_source_unref(timer);
    return *flag;
}

/* Waits for the host's lock on trials, on the folder of all VMs' folders. -1: no lock; the trial runs
 * without. */
static int take_turn(struct trial_load *trial)
{
    g_autofree char *all = g_path_get_dirname(trial->config->dir);
    const bool never = false;
    int fd = open(all, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK &&
           !atomic_load(&trial->cancelled))
        await(trial, &never, TURN_MS); /* a lock that becomes free is no event */
    return fd;
}

static void on_greeted(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    (void)qmp;
    (void)value;
    *(bool *)opaque = error == NULL;
}

/* Returns whether the host may have later what it lacks now: memory, processes, descriptors. */
static bool may_pass(const GError *error)
{
    return g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK) || /* EAGAIN: too many processes */
           g_error_matches(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE) ||    /* ENOMEM, ENOSPC */
           g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TOO_MANY_OPEN_FILES);
}

/*
 * Starts QEMU, and waits until its blocks are known and its monitor answers. False, *why and *verdict if
 * not.
 */
static bool start(struct trial_load *trial, enum trial_verdict *verdict, char **why)
{
    g_autoptr(GError) error = NULL;
    bool greeted = false;
    const struct qemu_start qemu = {
        .argv = trial->config->argv,
        .hook_path = trial->config->hook_path,
        .fds = &trial->fds,
        .log_path = trial->log_path,
        .nice = NICE,
        .throw_away = true,
    };
    *verdict = TRIAL_FAILED;
    trial->qemu = qemu_process_start(&qemu, on_exit_of_qemu, trial, &error);
    if (!trial->qemu) {
        *verdict = may_pass(error) ? TRIAL_NOT_BEGUN : TRIAL_FAILED;
        *why = g_strdup(error->message);
        return false;
    }
    hypervisor_set_pid(trial->hv, child_process_pid(trial->qemu));
    int status = hypervisor_wait_ready(trial->hv, START_MS);
    if (status == 0)
        status = hypervisor_list_blocks(trial->hv);
    if (status < 0) {
        *why = g_strdup(hypervisor_last_message(trial->hv));
        return false;
    }
    trial->qmp = qmp_open(trial->socket_path, MONITOR_MS, trial->context, on_monitor_closed, trial);
    qmp_execute(trial->qmp, "query-status", NULL, -1, on_greeted, &greeted);
    if (!await(trial, &greeted, MONITOR_MS)) {
        *why = g_strdup("its monitor did not answer");
        g_clear_pointer(&trial->qmp, qmp_close); /* which may still answer here */
    }
    return greeted;
}

static enum trial_verdict load(struct trial_load *trial, const struct machine_image *image, char **why)
{
    g_autoptr(GError) error = NULL;
    if (hypervisor_load_aux(trial->hv, image->used_len, image->nblocks, LOAD_MS) < 0) {
        *why = g_strdup(hypervisor_last_message(trial->hv));
        return TRIAL_FAILED;
    }
    struct standby *standby =
        standby_load(trial->qmp, image->devstate, image->devstate_len, LOAD_MS, on_loaded, trial, &error);
    if (!standby) {
        *why = g_strdup(error->message);
        return TRIAL_FAILED;
    }
    if (!await(trial, &trial->load_over, LOAD_MS + MONITOR_MS)) {
        standby_cancel(standby);
        return TRIAL_UNDECIDED;
    }
    if (trial->loaded)
        return TRIAL_LOADED;
    *why = g_strdup(trial->load_message);
    return TRIAL_FAILED;
}

static enum trial_verdict try(struct trial_load *trial, char **why)
{
    const struct trial_source *source = &trial->config->source;
    struct machine_image image = {0};
    enum trial_verdict verdict;
    if (!start(trial, &verdict, why))
        return verdict;
    if (atomic_load(&trial->cancelled))
        return TRIAL_UNDECIDED;
    if (!source->hold(trial->hv, &image, why, source->opaque))
        return *why ? TRIAL_FAILED : TRIAL_UNDECIDED;
    verdict = load(trial, &image, why);
    source->let_go(source->opaque);
    return verdict;
}

/* Ends QEMU: by an order of its monitor, or by a kill if it does not obey. */
static void end(struct trial_load *trial)
{
    if (trial->qmp && !trial->monitor_closed)
        qmp_execute(trial->qmp, "quit", NULL, -1, NULL, NULL);
    if (trial->qemu)
        await(trial, &trial->exited, LAST_WORD_MS);
    g_clear_pointer(&trial->qmp, qmp_close);
    g_clear_pointer(&trial->qemu, child_process_free); /* kills what is left */
}

/* What QEMU printed last, line after line, without its name before each. NULL: nothing. */
static char *last_lines(const struct trial_load *trial)
{
    g_autofree char *log = NULL, *name = g_path_get_basename(trial->config->argv[0]);
    g_autofree char *before = g_strconcat(name, ": ", NULL);
    GString *out = g_string_new(NULL);
    if (g_file_get_contents(trial->log_path, &log, NULL, NULL)) {
        size_t len = strlen(log);
        g_auto(GStrv) lines = g_strsplit(len > WHY_MAX ? log + len - WHY_MAX : log, "\n", -1);
        /* The first is a part of a line, where something was left out. */
        for (char **line = lines + (len > WHY_MAX && lines[0] && lines[1]); *line; line++) {
            const char *words = g_str_has_prefix(*line, before) ? *line + strlen(before) : *line;
            if (words[0])
                g_string_append_printf(out, "%s%s", out->len ? "; " : "", words);
        }
    }
    return g_string_free(out, out->len == 0);
}

/* QEMU's own words, where it had any. Takes why. */
static char *say_why(const struct trial_load *trial, char *why)
{
    g_autofree char *known = why, *said = last_lines(trial);
    return words_make_readable(said ? said : known ? known : "it did not say why", WHY_MAX);
}

void trial_load_run(struct trial_load *trial, struct trial_report *report)
{
    gint64 began_us = g_get_monotonic_time();
    char *why = NULL;
    g_main_context_push_thread_default(trial->context);
    g_unlink(trial->log_path);
    g_unlink(trial->socket_path);
    int turn = take_turn(trial);
    enum trial_verdict verdict = atomic_load(&trial->cancelled) ? TRIAL_UNDECIDED : try(trial, &why);
    end(trial);
    if (turn >= 0)
        close(turn);
    if (verdict != TRIAL_LOADED && atomic_load(&trial->cancelled))
        verdict = TRIAL_UNDECIDED;
    char *said = NULL;
    if (verdict == TRIAL_FAILED)
        said = say_why(trial, g_steal_pointer(&why));
    else if (verdict == TRIAL_NOT_BEGUN)
        said = words_make_readable(why, WHY_MAX);
    *report = (struct trial_report){
        .verdict = verdict,
        .load_us = trial->load_us,
        .total_us = (uint64_t)(g_get_monotonic_time() - began_us),
        .why = said,
    };
    g_free(why);
    g_unlink(trial->log_path);
    g_unlink(trial->socket_path);
    g_main_context_pop_thread_default(trial->context);
}
