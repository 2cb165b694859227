/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chooses the hypervisor of a command line, and does what is the same for each hypervisor. */
#include "hv-hooks/line.h"

#include "hv-hooks/line_ops.h"
#include "hv-hooks/program.h"

/* program may be NULL. */
static const struct line_ops *ops_of(const char *program)
{
    for (size_t i = 0; line_hypervisors[i]; i++) {
        if (program_is_one_of(program, line_hypervisors[i]->programs))
            return line_hypervisors[i];
    }
    return line_hypervisors[0];
}

static void free_tap(gpointer opaque)
{
    struct line_tap *tap = opaque;
    g_free(tap->id);
    g_free(tap->ifname);
    g_free(tap->bridge);
    g_free(tap);
}

static void free_disk(gpointer opaque)
{
    struct line_disk *disk = opaque;
    g_free(disk->id);
    g_free(disk->path);
    g_free(disk->format);
    g_free(disk);
}

struct line *line_parse(const char *const *argv, GError **error)
{
    struct line *line = g_new0(struct line, 1);
    line->ops = ops_of(argv[0]);
    line->program = g_strdup(argv[0]);
    line->nics = g_ptr_array_new_with_free_func(g_free);
    line->taps = g_ptr_array_new_with_free_func(free_tap);
    line->files = g_ptr_array_new_with_free_func(g_free);
    line->disks = g_ptr_array_new_with_free_func(free_disk);
    if (!line->ops->parse(line, argv, error))
        g_clear_pointer(&line, line_free);
    return line;
}

void line_free(struct line *line)
{
    if (!line)
        return;
    if (line->own)
        line->ops->free_own(line->own);
    g_free(line->program);
    g_free(line->accel);
    g_free(line->runs);
    g_ptr_array_unref(line->nics);
    g_ptr_array_unref(line->taps);
    g_ptr_array_unref(line->files);
    g_ptr_array_unref(line->disks);
    g_free(line);
}

char **line_absolute(const char *const *argv, const char *cwd)
{
    return ops_of(argv[0])->absolute(argv, cwd);
}

void line_set_format(struct line *line, guint disk, const char *format)
{
    struct line_disk *each = g_ptr_array_index(line->disks, disk);
    g_free(each->format);
    each->format = g_strdup(format);
    line->ops->set_format(line, disk, format);
}

void line_enforce_cpu(struct line *line)
{
    line->ops->enforce_cpu(line);
}

char **line_build(const struct line *line, const char *vm_dir, bool standby)
{
    return line->ops->build(line, vm_dir, standby);
}

char **line_build_trial(const struct line *line, const char *vm_dir, const uint64_t *disk_len, GError **error)
{
    return line->ops->build_trial(line, vm_dir, disk_len, error);
}

/* Asks every hypervisor, since the line's program may be a script, and then the process has another name. */
bool line_was_built(const char *bytes, size_t len)
{
    for (size_t i = 0; line_hypervisors[i]; i++) {
        if (line_hypervisors[i]->was_built(bytes, len))
            return true;
    }
    return false;
}

void line_run_actions(const char *const *argv, struct run_actions *actions)
{
    ops_of(argv[0])->run_actions(argv, actions);
}

enum run_verdict run_verdict_of(const struct run_actions *actions, enum run_event event)
{
    switch (event) {
    case RUN_EVENT_SHUTDOWN:
        return actions->shutdown_pauses ? RUN_STANDS : RUN_ENDED;
    case RUN_EVENT_PANIC_END:
        return RUN_ENDED;
    case RUN_EVENT_QUIT:
        return RUN_LOST;
    case RUN_EVENT_PANICKED:
        /* A shutdown that pauses makes a panic pause too. */
        return actions->panic_ignored                              ? RUN_GOES_ON
               : actions->panic_pauses || actions->shutdown_pauses ? RUN_STANDS
                                                                   : RUN_ENDED;
    case RUN_EVENT_WATCHDOG:
        return actions->watchdog_ends ? RUN_ENDED : RUN_STANDS;
    case RUN_EVENT_WATCHDOG_DONE:
        return RUN_GOES_ON;
    }
    return RUN_GOES_ON;
}

const struct line_program *line_default_program(void)
{
    return &line_hypervisors[0]->usual;
}

char **line_peer_programs(void)
{
    GPtrArray *patterns = g_ptr_array_new();
    for (size_t i = 0; line_hypervisors[i]; i++) {
        for (const char *const *each = line_hypervisors[i]->peer_programs; *each; each++)
            g_ptr_array_add(patterns, g_strdup(*each));
    }
    g_ptr_array_add(patterns, NULL);
    return (char **)g_ptr_array_free(patterns, FALSE);
}

char *line_version(const char *program, GError **error)
{
    return ops_of(program)->version(program, error);
}

char **line_pin(const struct line *line, const char *const *argv, GError **error)
{
    return line->ops->pin(line, argv, error);
}

bool line_can_move(const struct line *line, const char *theirs, const char *ours, GError **error)
{
    return line->ops->can_move(line, theirs, ours, error);
}

char *line_version_warning(const char *program, const char *primary, const char *standby)
{
    return ops_of(program)->version_warning(primary, standby);
}
