/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A firmware for QEMU's -bios that copies the boot sector inside it ("sector.bin" on the assembler's include path) to
 * 0x7c00 and starts it. It needs no timer, no interrupt and no disk: the guest runs at once, also where SeaBIOS now and
 * then waits for ever (under a nested or paravirtual KVM). It leaves the screen writable at 0xb8000, as SeaBIOS does.
 */
        .code16
        .org    0
copy:   cli
        cld
        movw    $0x3c4, %dx             /* VGA: all planes, chained: plain bytes */
        movw    $0x0f02, %ax
        outw    %ax, %dx
        movw    $0x0e04, %ax
        outw    %ax, %dx
        movw    $0xf000, %ax
        movw    %ax, %ds
        xorw    %ax, %ax
        movw    %ax, %es
        movw    $sector, %si
        movw    $0x7c00, %di
        movw    $256, %cx
        rep movsw
        ljmp    $0, $0x7c00
        .balign 16
sector: .incbin "sector.bin"

        .org    0xfff0                  /* the reset vector */
        ljmp    $0xf000, $copy
        .org    0x10000
