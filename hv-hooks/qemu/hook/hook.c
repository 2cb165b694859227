/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libunderstudy-qemu.so, which is preloaded into an unpatched QEMU. The constructor checks that this is a
 * supported QEMU, maps the shared memory and adds one fd source to GLib's default main context, which QEMU's
 * main loop runs with the big lock held. All requests are carried out there. The hook reports that it is
 * ready (hello) when the loop runs for the first time, since the machine and its RAM exist by then.
 *
 * The library removes itself from the environment, so that QEMU's children (network scripts) do not load it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

static struct hook the_hook = {.uffd = -1, .scratch_fd = -1};

static int resume(struct hook *hook, char *message, size_t message_len)
{
    struct Error *error = NULL;
    if (hook->qemu.runstate_is_running())
        return 0;
    hook->qemu.qmp_cont(&error);
    if (!error)
        return 0;
    snprintf(message, message_len, "QEMU cannot resume the guest: %s", hook->qemu.error_get_pretty(error));
    hook->qemu.error_free(error);
    return -EINVAL;
}

static void run_request(struct hook *hook, uint32_t seq)
{
    struct hook_shm *shm = hook->shm;
    struct hook_result *result = &shm->result;
    int status = 0;
    memset(result, 0, sizeof *result);
    switch ((enum hook_request)shm->request_kind) {
    case HOOK_LIST_BLOCKS:
        status = hook_blocks_list(hook, result->message, sizeof result->message);
        break;
    case HOOK_TRACK_START:
        status = hook_track_start(hook, (enum hook_tracker)shm->request_tracker, result->message,
                                  sizeof result->message);
        break;
    case HOOK_TRACK_STOP:
        status = hook_track_stop(hook);
        break;
    case HOOK_HARVEST:
        result->dirty_pages = hook_harvest(hook);
        result->blocks_changed = hook_blocks_changed(hook);
        break;
    case HOOK_CHECKPOINT:
        hook_checkpoint(hook, seq);
        return;
    case HOOK_LOAD_AUX:
        status = hook_blocks_load_aux(hook, result->message, sizeof result->message);
        break;
    case HOOK_PAUSE:
        if (hook->qemu.runstate_is_running())
            hook->qemu.vm_stop(QEMU_RUN_STATE_PAUSED);
        break;
    case HOOK_RESUME:
        status = resume(hook, result->message, sizeof result->message);
        break;
    case HOOK_ADVANCE_CLOCK:
        status = hook_clock_advance(hook, shm->request_clock_ns);
        break;
    default:
        status = -ENOSYS;
        break;
    }
    result->status = status;
}

static gboolean on_kick(gint fd, GIOCondition condition, gpointer opaque)
{
    struct hook *hook = opaque;
    uint64_t count;
    (void)condition;
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        return G_SOURCE_REMOVE;
    uint32_t seq = atomic_load_explicit(&hook->shm->request_seq, memory_order_acquire);
    if (seq == hook->last_seq)
        return G_SOURCE_CONTINUE;
    hook->last_seq = seq;
    run_request(hook, seq);
    atomic_store_explicit(&hook->shm->done_seq, seq, memory_order_release);
    hook_futex_wake(&hook->shm->done_seq);
    return G_SOURCE_CONTINUE;
}

/* QEMU's QAPI types VersionInfo and VersionTriple. */
struct qemu_version_info {
    struct {
        int64_t major, minor, micro;
    } * qemu;
    char *package;
};

static void write_version(struct hook_shm *shm)
{
    struct qemu_version_info *(*query)(struct Error **) =
        (struct qemu_version_info * (*)(struct Error **)) dlsym(RTLD_DEFAULT, "qmp_query_version");
    struct qemu_version_info *info = query ? query(NULL) : NULL;
    if (info)
        snprintf(shm->qemu_version, sizeof shm->qemu_version, "%d.%d.%d", (int)info->qemu->major,
                 (int)info->qemu->minor, (int)info->qemu->micro);
    /* info is leaked: a few bytes, once. */
}

static void say_hello(struct hook *hook, uint32_t verdict, const char *message)
{
    hook->shm->qemu_pid = (uint32_t)getpid();
    write_version(hook->shm);
    snprintf(hook->shm->hello_message, sizeof hook->shm->hello_message, "%s", message);
    atomic_store_explicit(&hook->shm->hello, verdict, memory_order_release);
    hook_futex_wake(&hook->shm->hello);
}

G_NORETURN static void refuse(const char *message)
{
    if (the_hook.shm)
        say_hello(&the_hook, 2, message);
    fprintf(stderr, "understudy: %s\n", message);
    _exit(1); /* the guest has not done anything yet; QEMU's exit handlers may trip over what is half begun */
}

/*
 * Returns what prevents the machine's state from being saved whole, as QEMU tells its own migration; NULL
 * if nothing does. The save that checkpoints use does not ask: it would crash on a device without a
 * description of its state, or leave it out. Image formats that QEMU does not migrate are no obstacle:
 * disks are replicated below them.
 */
static char *what_cannot_be_saved(struct hook *hook)
{
    struct Error *error = NULL;
    if (!hook->qemu.migration_is_blocked || !hook->qemu.migration_is_blocked(&error))
        return NULL;
    const char *why = error ? hook->qemu.error_get_pretty(error) : "it does not say why";
    char *message =
        strstr(why, "format used by node")
            ? NULL
            : g_strdup_printf("QEMU cannot save this guest, so leave out or replace what is in the way: %s",
                              why);
    if (error)
        hook->qemu.error_free(error);
    return message;
}

static gboolean on_first_loop(gpointer opaque)
{
    struct hook *hook = opaque;
    if (!hook_blocks_exist(hook)) {
        g_timeout_add(10, on_first_loop, hook);
        return G_SOURCE_REMOVE;
    }
    g_autofree char *blocked = what_cannot_be_saved(hook);
    if (blocked)
        refuse(blocked);
    if (hook_prove_save(hook) == -EPROTO) {
        char message[HOOK_MESSAGE_LEN];
        write_version(hook->shm);
        snprintf(message, sizeof message, HOOK_NO_STREAM, hook->shm->qemu_version);
        refuse(message);
    }
    const char *trouble = hook_clock_probe(hook);
    g_autofree char *message =
        trouble ? g_strdup_printf("the guest's clock loses the length of each pause: %s", trouble)
                : g_strdup("");
    hook_signals_pass_on(hook->replicator_pid);
    say_hello(hook, 1, message);
    return G_SOURCE_REMOVE;
}

static int env_fd(const char *env, const char *key)
{
    const char *at = strstr(env, key);
    return at ? atoi(at + strlen(key)) : -1;
}

/* Whether the header describes areas that lie inside the mapping, in order. */
static bool header_is_sane(const struct hook_shm *shm, uint64_t len)
{
    return shm->magic == HOOK_SHM_MAGIC && shm->version == HOOK_SHM_VERSION && shm->shm_len == len &&
           shm->bitmaps_off >= sizeof *shm && shm->bitmaps_off <= len &&
           shm->bitmaps_len <= len - shm->bitmaps_off &&
           shm->aux_off >= shm->bitmaps_off + shm->bitmaps_len && shm->aux_off <= len &&
           shm->aux_len <= len - shm->aux_off;
}

__attribute__((constructor)) static void hook_start(void)
{
    const char *env = getenv(HOOK_ENV);
    struct hook *hook = &the_hook;
    struct stat st;
    if (!env)
        return;
    /* Does nothing in other processes than QEMU (a shell in between, an ldd): the real one starts later. */
    if (!hook_process_is_qemu())
        return;
    int shm_fd = env_fd(env, "shm=");
    if (fstat(env_fd(env, "ram="), &st) == 0) {
        hook->ram_dev = (uint64_t)st.st_dev;
        hook->ram_ino = (uint64_t)st.st_ino;
    }
    hook->devstate_fd = env_fd(env, "devstate=");
    hook->kick_fd = env_fd(env, "kick=");
    unsetenv(HOOK_ENV);
    unsetenv("LD_PRELOAD");
    if (shm_fd < 0 || fstat(shm_fd, &st) < 0 || (uint64_t)st.st_size < sizeof *hook->shm)
        refuse("the hook's shared memory is missing: start QEMU with 'understudy run'");
    hook->shm_len = (size_t)st.st_size;
    void *map = mmap(NULL, hook->shm_len, PROT_READ | PROT_WRITE, MAP_SHARED, shm_fd, 0);
    if (map == MAP_FAILED)
        refuse("the hook's shared memory cannot be mapped");
    hook->shm = map;
    if (!header_is_sane(hook->shm, hook->shm_len)) {
        hook->shm = NULL;
        refuse("the hook and the replicator are of different versions: install one version of understudy");
    }
    hook->replicator_pid = env_fd(env, "replicator=");
    fcntl(hook->devstate_fd, F_SETFD, FD_CLOEXEC);
    fcntl(hook->kick_fd, F_SETFD, FD_CLOEXEC);
    fcntl(shm_fd, F_SETFD, FD_CLOEXEC);
    const char *missing = NULL;
    if (hook_find_symbols(&hook->qemu, &missing) < 0) {
        char message[HOOK_MESSAGE_LEN];
        write_version(hook->shm);
        snprintf(message, sizeof message,
                 "this QEMU (version %s) lacks the function %s that checkpoints need: use QEMU 7.2 to 11.1",
                 hook->shm->qemu_version, missing);
        refuse(message);
    }
    if (!hook_run_states_are_known(&hook->qemu))
        refuse("this QEMU counts its run states in a way that is not known: use QEMU 7.2 to 11.1");
    g_unix_fd_add_full(G_PRIORITY_HIGH, hook->kick_fd, G_IO_IN, on_kick, hook, NULL);
    g_idle_add_full(G_PRIORITY_HIGH, on_first_loop, hook, NULL);
}
