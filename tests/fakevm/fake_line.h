/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hypervisor that does not exist, whose command lines look like nothing of QEMU's: words KEY:VALUE.
 *
 *   memory:MIB          needed
 *   disk:ID@PATH        one that the guest may write; disk:ID@PATH%FORMAT says its format
 *   tap:ID@IFNAME       a NIC
 *   firmware:PATH       both hosts need it; its name must end in .fw
 *   speed:kvm|slow|any  any: KVM, or slow where that does not work
 *   processor:own       the host's own, to the last feature
 *   end:stand           a guest that shuts down stands still
 */
#ifndef UNDERSTUDY_TESTS_FAKEVM_FAKE_LINE_H
#define UNDERSTUDY_TESTS_FAKEVM_FAKE_LINE_H

#include "hv-hooks/line_ops.h"

extern const struct line_ops line_ops_fakevm;

#endif
