/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A library in the hook's place that does nothing. */
extern const int no_hook;
const int no_hook = 1;
