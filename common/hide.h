/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Protects the memory of processes that hold keys. */
#ifndef UNDERSTUDY_COMMON_HIDE_H
#define UNDERSTUDY_COMMON_HIDE_H

/*
 * Keeps other processes of the same user from reading this process's memory, and the kernel from writing a
 * core file of it. Programs that it starts are not affected: no limit is set that they would inherit. Any
 * thread; call it at the start.
 */
void process_hide(void);

#endif
