/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names by which QEMU's lines are known. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_LINE_H
#define UNDERSTUDY_HV_HOOKS_QEMU_LINE_H

/* Patterns of the base names of its programs, NULL at the end. */
extern const char *const qemu_programs[];

#endif
