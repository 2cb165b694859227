#!/usr/bin/env bash
# GnuTLS: gnutls_aead_cipher_set_key gives a handle of AES-GCM a new key for the ciphertext, but not for the tag: on x86
# with AES instructions, what it makes then has tags that a new handle with the same key refuses, and the other way.
#
# Guess:     a handle whose key was set again does what a new handle with that key does. The manual says of the function
#            that it "will set a new key without re-initializing the context".
# Behaviour: the bytes are those of the new key, and the tag is another. GCM's tag depends on a value that is made of
#            the key by encrypting a block of zeroes; the second time, the code for x86 encrypts what the first key
#            left there. Two handles that have taken the same keys in the same order agree, so a test of one program
#            with itself finds nothing. ChaCha20-Poly1305 is right, and so is AES-GCM with GNUTLS_CPUID_OVERRIDE=0x1,
#            which is without the instructions: two hosts with different processors do not agree.
# Version:   GnuTLS 3.7.9 (Debian 12, libgnutls30 3.7.9-2+deb12u7).
# Matters:   a protocol that changes keys on one handle speaks with itself on like processors, until one side makes its
#            handle anew (after a restart), has another processor, or is another library: then each record is refused.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages or the instructions cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

if [ "$(uname -m)" != x86_64 ] || ! grep -qw aes /proc/cpuinfo || ! grep -qw pclmulqdq /proc/cpuinfo; then
    skip "this processor has no instructions for AES-GCM"
fi
unpack libgnutls30=3.7.9-2+deb12u7 libgnutls28-dev=3.7.9-2+deb12u7
cat >"$work/rekey.c" <<'C'
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

static unsigned char keys[2][32] = {{1}, {2}}, nonce[12], plain[32] = "thirty-two bytes of plain text..";

static void encrypt(gnutls_aead_cipher_hd_t handle, unsigned char out[48])
{
    size_t len = 48;
    if (gnutls_aead_cipher_encrypt(handle, nonce, 12, NULL, 0, 16, plain, 32, out, &len) < 0)
        printf("cannot encrypt\n");
}

static void look(const char *name, gnutls_cipher_algorithm_t cipher, unsigned key_len)
{
    gnutls_datum_t first = {keys[0], key_len}, second = {keys[1], key_len};
    gnutls_aead_cipher_hd_t again, fresh;
    unsigned char of_again[48], of_fresh[48], back[32];
    size_t len = sizeof back;
    gnutls_aead_cipher_init(&again, cipher, &first);
    gnutls_aead_cipher_init(&fresh, cipher, &second);
    if (gnutls_aead_cipher_set_key(again, &second) < 0)
        printf("the key cannot be set\n");
    encrypt(again, of_again);
    encrypt(fresh, of_fresh);
    int opened = gnutls_aead_cipher_decrypt(fresh, nonce, 12, NULL, 0, 16, of_again, 48, back, &len);
    printf("%s: ciphertext %s, tag %s, decrypted by a new handle: %s\n", name,
           memcmp(of_again, of_fresh, 32) ? "differs" : "is the same",
           memcmp(of_again + 32, of_fresh + 32, 16) ? "differs" : "is the same", gnutls_strerror(opened));
}

int main(void)
{
    printf("GnuTLS %s\n", gnutls_check_version(NULL));
    look("AES-128-GCM", GNUTLS_CIPHER_AES_128_GCM, 16);
    look("AES-256-GCM", GNUTLS_CIPHER_AES_256_GCM, 32);
    look("ChaCha20-Poly1305", GNUTLS_CIPHER_CHACHA20_POLY1305, 32);
    return 0;
}
C
cc -I"$work/root/usr/include" -I"$work/root/usr/include/x86_64-linux-gnu" -o "$work/rekey" "$work/rekey.c" \
    "$work/root/usr/lib/x86_64-linux-gnu/libgnutls.so.30"
output=$("$work/rekey")
echo "$output"
plain=$(GNUTLS_CPUID_OVERRIDE=0x1 "$work/rekey")
echo "without the instructions:"
echo "$plain"
refused='ciphertext is the same, tag differs, decrypted by a new handle: Decryption has failed.'
right='ciphertext is the same, tag is the same, decrypted by a new handle: Success.'
for name in AES-128-GCM AES-256-GCM; do
    grep -q "^$name: $refused\$" <<<"$output" || changed "$name: the tag follows the key"
    grep -q "^$name: $right\$" <<<"$plain" || changed "$name without the instructions: the tag does not follow the key"
done
grep -q "^ChaCha20-Poly1305: $right\$" <<<"$output" || changed "ChaCha20-Poly1305: the tag does not follow the key"
echo "GnuTLS 3.7.9: after gnutls_aead_cipher_set_key, AES-GCM on x86 has the old key's tags"
