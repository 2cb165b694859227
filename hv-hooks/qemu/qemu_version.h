/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compares two hosts' QEMUs and their machine types: whether a guest may go from one host's QEMU to the
 * other's. The device state of a machine type with a version loads in the same and in any later QEMU, never
 * in an earlier one.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_VERSION_H
#define UNDERSTUDY_HV_HOOKS_QEMU_VERSION_H

#include <glib.h>
#include <stdbool.h>

enum qemu_relation {
    QEMU_SAME,        /* to the last letter */
    QEMU_OTHER_BUILD, /* the same version of QEMU, packaged otherwise */
    QEMU_LATER,
    QEMU_EARLIER,
    QEMU_UNKNOWN, /* at least one of them says nothing that can be compared */
};

/* The program's version, with the packaging's part: "7.2.22 (Debian 1:7.2+dfsg-7)". NULL and a sentence. Runs
 * the program, and waits for it; so does qemu_machine_ask. */
char *qemu_version_ask(const char *binary, GError **error);

/* What ours is, seen from theirs. Both as qemu_version_ask says them. */
enum qemu_relation qemu_version_relate(const char *theirs, const char *ours);

/*
 * Returns the machine type with a version that type ("" is QEMU's default) stands for, by what `-machine
 * help` prints: "pc" is pc-i440fx-7.2 in QEMU 7.2. NULL: help does not list it.
 */
char *qemu_machine_pinned(const char *help, const char *type);

/* Whether the type means the same machine in each QEMU that has it: "pc-i440fx-7.2", not "pc" or "microvm".
 */
bool qemu_machine_has_version(const char *type);

/* Runs the program for its help, and does the same. NULL and a sentence. */
char *qemu_machine_ask(const char *binary, const char *type, GError **error);

/* Returns a sentence for the administrator if the standby's QEMU is not the primary's, or NULL. */
char *qemu_version_warning(const char *primary, const char *standby);

#endif
