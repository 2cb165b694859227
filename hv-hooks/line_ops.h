/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The functions by which a hypervisor implements line.h, which says what each one does. Each hypervisor has a
 * struct line_ops, declared here, and a row in line_hypervisors (line_table.c).
 */
#ifndef UNDERSTUDY_HV_HOOKS_LINE_OPS_H
#define UNDERSTUDY_HV_HOOKS_LINE_OPS_H

#include "hv-hooks/line.h"

struct line_ops {
    const char *const *programs; /* patterns ('*', '?') of the base names of its programs, NULL at the end */
    /* Default patterns (fnmatch's, where '*' does not match '/') of the paths of programs that another host's
     * lines may name. NULL at the end. */
    const char *const *peer_programs;
    struct line_program usual;

    /*
     * Fills line. line->program is set, and its arrays exist and are empty. accel and runs are GLib strings,
     * the const char * fields are static. After false and error, the caller frees the line as a complete one.
     */
    bool (*parse)(struct line *line, const char *const *argv, GError **error);
    void (*free_own)(void *own); /* never NULL */
    char **(*absolute)(const char *const *argv, const char *cwd);
    /* line->disks has the format already. */
    void (*set_format)(struct line *line, guint disk, const char *format);
    void (*enforce_cpu)(struct line *line);
    char **(*build)(const struct line *line, const char *vm_dir, bool standby);
    char **(*build_trial)(const struct line *line, const char *vm_dir, const uint64_t *disk_len,
                          GError **error);
    bool (*was_built)(const char *bytes, size_t len);
    void (*run_actions)(const char *const *argv, struct run_actions *actions);

    char *(*version)(const char *program, GError **error);
    char **(*pin)(const struct line *line, const char *const *argv, GError **error);
    bool (*can_move)(const struct line *line, const char *theirs, const char *ours, GError **error);
    char *(*version_warning)(const char *primary, const char *standby);
};

extern const struct line_ops line_ops_qemu; /* hv-hooks/qemu/qemu_line.c */

/* All hypervisors, NULL at the end. The first one also gets each program whose name no pattern matches, since
 * users install it under any name. */
extern const struct line_ops *const line_hypervisors[];

#endif
