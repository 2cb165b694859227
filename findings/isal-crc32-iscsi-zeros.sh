#!/usr/bin/env bash
# ISA-L: crc32_iscsi leaves both inversions of CRC-32C to the caller, while its siblings crc32_ieee and crc32_gzip_refl
# do theirs: started with 0, the CRC-32C of any number of zero bytes is 0.
#
# Guess:     the CRC functions of one header have one convention: start with 0, pass the last result to go on, and get
#            the value that the standard gives for "123456789" (iSCSI: e3069283).
# Behaviour: crc32_gzip_refl and crc32_ieee invert at the start and at the end. crc32_iscsi, the third in the header,
#            returns the bare register: 58e3fa20 from 0. The standard's value is ~crc32_iscsi(data, len, ~0). From 0,
#            zero bytes leave it at 0, so that a block of zeros of any length, a lost one and an added one are all
#            alike. (Its parameters stand in another order as well; the compiler tells.)
# Version:   ISA-L 2.30.0 (Debian 12, libisal-dev and libisal2 2.30.0-5).
# Matters:   pages of a guest's memory and blocks of disks are zero more often than not. A checksum from seed 0 over
#            them notices neither that one more nor that one fewer was sent, unless the length is checked elsewhere.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

unpack libisal2=2.30.0-5 libisal-dev=2.30.0-5
cat >"$work/crc.c" <<'C'
#include <isa-l/crc.h>
#include <stdio.h>

static unsigned char check[] = "123456789";
static unsigned char zeros[8192];

int main(void)
{
    printf("crc32_gzip_refl seed 0: %08x, of 4096 zeros: %08x\n", crc32_gzip_refl(0, check, 9),
           crc32_gzip_refl(0, zeros, 4096));
    printf("crc32_ieee seed 0: %08x, of 4096 zeros: %08x\n", crc32_ieee(0, check, 9), crc32_ieee(0, zeros, 4096));
    printf("crc32_iscsi seed 0: %08x, of 4096 zeros: %08x, of 8192: %08x\n", crc32_iscsi(check, 9, 0),
           crc32_iscsi(zeros, 4096, 0), crc32_iscsi(zeros, 8192, 0));
    printf("crc32_iscsi inverted twice: %08x, of 4096 zeros: %08x, of 8192: %08x\n", ~crc32_iscsi(check, 9, ~0U),
           ~crc32_iscsi(zeros, 4096, ~0U), ~crc32_iscsi(zeros, 8192, ~0U));
    return 0;
}
C
cc -I"$work/root/usr/include" -o "$work/crc" "$work/crc.c" -L"$LD_LIBRARY_PATH" -lisal
output=$("$work/crc")
echo "$output"
grep -q '^crc32_gzip_refl seed 0: cbf43926, of 4096 zeros: c71c0011$' <<<"$output" ||
    changed "crc32_gzip_refl is not the CRC-32 of RFC 1952"
grep -q '^crc32_ieee seed 0: fc891918, ' <<<"$output" || changed "crc32_ieee does not invert"
grep -q '^crc32_iscsi seed 0: 58e3fa20, of 4096 zeros: 00000000, of 8192: 00000000$' <<<"$output" ||
    changed "crc32_iscsi inverts now"
grep -q '^crc32_iscsi inverted twice: e3069283, of 4096 zeros: 98f94189, ' <<<"$output" ||
    changed "two inversions do not give the iSCSI value"
echo "ISA-L 2.30.0: crc32_iscsi does not invert, and zeros are invisible to it from seed 0"
