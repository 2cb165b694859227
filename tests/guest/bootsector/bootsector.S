/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest in 512 bytes, for tests: it writes to memory in an order that a test can check in any snapshot of it.
 *
 * Parameters (as --defsym): PAGES, how many pages a round dirties; BASE, the first page's address; STRIDE, bytes from one
 * to the next; IDLE, 1 to wait for a timer interrupt (18 a second) after each round; KVMCLOCK, 1 to switch kvmclock on (its CPU must have it).
 *
 * One round: add 1 to the first word of each page, in ascending order; then to the round counter; then note the clocks.
 * So in a snapshot taken at one instant the pages hold n+1 up to some page and n from there on, and the round counter holds
 * n (or n+1 where every page does). A page lost from the snapshot shows as a step where there must be none.
 *
 *   0x8000  u32 magic 0x54534b42 once the rounds begin     0x8008  u64 time-stamp counter
 *   0x9000  kvmclock's pvclock_vcpu_time_info, with KVMCLOCK
 *   0x8004  u32 rounds                                     0x8010  u32 HPET main counter (10 ns units), 0 without HPET
 */
        .code16
        .globl _start
_start: cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ss
        movw    $0x7c00, %sp
        movw    %ax, %ds
        inb     $0x92, %al              /* A20 on, not the reset bit */
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $0x92
        lgdtl   gdt_pointer             /* into protected mode and back: the segments keep their 4 GiB limit */
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        jmp     1f
1:      movw    $8, %bx
        movw    %bx, %ds
        andb    $0xfe, %al
        movl    %eax, %cr0
        jmp     2f
2:      xorw    %bx, %bx
        movw    %bx, %ds

        movl    $BASE, %edi             /* every counter starts at zero */
        movl    $PAGES, %ecx
        jecxz   4f
3:      movl    $0, (%edi)
        addl    $STRIDE, %edi
        decl    %ecx
        jnz     3b
4:      movl    $0xfed00010, %edi       /* HPET: run */
        orl     $1, (%edi)
        .if KVMCLOCK
        movl    $0x40000000, %eax       /* under KVM: have it keep kvmclock at 0x9000 */
        cpuid
        cmpl    $0x4b4d564b, %ebx
        jne     7f
        movl    $0x4b564d01, %ecx
        movl    $0x9001, %eax
        xorl    %edx, %edx
        wrmsr
        .endif
7:      movl    $0, 0x8004
        movl    $0x54534b42, 0x8000

round:  movl    $BASE, %edi
        movl    $PAGES, %ecx
        jecxz   6f
5:      incl    (%edi)
        addl    $STRIDE, %edi
        decl    %ecx
        jnz     5b
6:      incl    0x8004
        rdtsc
        movl    %eax, 0x8008
        movl    %edx, 0x800c
        movl    $0xfed000f0, %edi
        movl    (%edi), %eax
        movl    %eax, 0x8010
        movw    0x8004, %ax             /* the screen: video memory is not main RAM */
        movl    $0xb8000, %edi
        movw    %ax, (%edi)
        .if IDLE
        sti
        hlt
        cli
        .endif
        jmp     round

        .balign 8
gdt:    .quad   0
        .quad   0x00cf92000000ffff      /* data, base 0, limit 4 GiB */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
        .org    510
        .word   0xaa55
