#!/usr/bin/env bash
# QEMU and jansson: QEMU's monitor writes numbers above 2^63 - 1, and jansson then refuses the whole answer.
#
# Guess:     QMP is JSON and jansson a JSON library for C with 64-bit integers: what one writes the other reads; at
#            worst a number is rounded.
# Behaviour: values of the type uint64 are written unsigned; the size of a PC's system memory region is
#            18446744073709551615. json_loads fails with "too big integer" and returns nothing of the line. The flag
#            JSON_DECODE_INT_AS_REAL reads it, and makes every other integer of the line a double.
# Version:   QEMU 7.2 (Debian 12, qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3), jansson 2.14 (libjansson4 and
#            libjansson-dev 2.14-2).
# Matters:   to a monitor client such a line is no JSON. One that closes the connection on it, as one does with a peer
#            that talks nonsense, loses its VM's monitor by asking for a property.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

unpack libjansson4=2.14-2 libjansson-dev=2.14-2
cat >"$work/read.c" <<'C'
#include <jansson.h>
#include <stdio.h>

static const char *read_with(size_t flags)
{
    static char text[1000];
    static json_error_t problem;
    rewind(stdin);
    json_t *answer = json_loadf(stdin, flags | JSON_DISABLE_EOF_CHECK, &problem);
    if (!answer)
        return problem.text;
    const json_t *value = json_object_get(answer, "return");
    snprintf(text, sizeof text, "%s %.0f", json_is_integer(value) ? "integer" : "real", json_number_value(value));
    json_decref(answer);
    return text;
}

int main(void)
{
    printf("plain: %s\n", read_with(0));
    printf("as real: %s\n", read_with(JSON_DECODE_INT_AS_REAL));
    return 0;
}
C
cc -I"$work/root/usr/include" -o "$work/read" "$work/read.c" -L"$LD_LIBRARY_PATH" -ljansson
qemu_start -S -machine pc

# size REGION: asks for the size of a memory region and lets jansson read the answer, into $reading.
size() {
    qmp '{"execute":"qom-get","arguments":{"path":"/machine/unattached/'"$1"'","property":"size"}}'
    printf '%s\n' "$answer" >"$work/answer"
    reading=$("$work/read" <"$work/answer")
    echo "$1: ${answer%$'\r'}"
    echo "$reading"
}
size 'io[0]'
grep -q '^plain: integer 65536$' <<<"$reading" || changed "the size of the I/O ports is read otherwise"
size 'system[0]'
[[ $answer == *18446744073709551615* ]] || changed "QEMU writes the size of the system memory otherwise"
grep -q '^plain: too big integer' <<<"$reading" || changed "jansson reads it"
grep -q '^as real: real 18446744073709551616$' <<<"$reading" || changed "JSON_DECODE_INT_AS_REAL reads it otherwise"
echo "QEMU 7.2 writes an integer for which jansson 2.14 refuses the line"
