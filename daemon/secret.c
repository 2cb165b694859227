/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes a VM's secret, from which its replicators derive the keys of their links and heartbeats. The daemon
 * of the host where the VM runs makes one for each standby, and sends it to the other daemon inside TLS with
 * the request for the standby. So the keys of one standby's links do not open those of the next one, and
 * recorded heartbeats of one standby cannot be replayed to the next one's primary.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/daemon.h"
#include "proto/seal_derive.h"

void protection_set_secret(Understudy__Protection *protection, const uint8_t *secret)
{
    ProtobufCBinaryData *own = &protection->secret;
    if (own->len != SEAL_SECRET_LEN) {
        free(own->data);
        own->data = malloc(SEAL_SECRET_LEN); /* protobuf-c frees it */
        own->len = SEAL_SECRET_LEN;
        if (!own->data)
            g_error("no memory for a secret");
    }
    memcpy(own->data, secret, SEAL_SECRET_LEN);
}

void protection_new_secret(Understudy__Protection *protection)
{
    uint8_t secret[SEAL_SECRET_LEN];
    if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret)
        g_error("no random numbers"); /* cannot happen for so few once the kernel has booted */
    protection_set_secret(protection, secret);
    explicit_bzero(secret, sizeof secret);
}

bool protection_has_secret(const Understudy__Protection *protection)
{
    return protection->link_security == UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE ||
           protection->secret.len == SEAL_SECRET_LEN;
}
