/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For processes whose memory has keys. */
#ifndef UNDERSTUDY_COMMON_HIDE_H
#define UNDERSTUDY_COMMON_HIDE_H

/*
 * Lets no other process of this user look into this one, and no core file be written. Programs that it starts
 * are as they would be without it: no limit is set that they would inherit. Any thread; call it at the start.
 */
void process_hide(void);

#endif
