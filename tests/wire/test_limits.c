/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a VM's options may be: at each limit, and one step outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/limits.h"

static Understudy__Protection usual(void)
{
    Understudy__Protection p = UNDERSTUDY__PROTECTION__INIT;
    p.epoch_ms = limits[LIMIT_EPOCH_MS].usual;
    p.deadline_ms = limits[LIMIT_DEADLINE_MS].usual;
    p.silence_ms = limits[LIMIT_SILENCE_MS].usual;
    p.heartbeat_ms = limits[LIMIT_HEARTBEAT_MS].usual;
    return p;
}

static void accepted(Understudy__Protection p)
{
    GError *error = NULL;
    if (!limits_hold(&p, &error))
        fail_msg("refused: %s", error->message);
}

static void refused(Understudy__Protection p, const char *sentence)
{
    g_autoptr(GError) error = NULL;
    assert_false(limits_hold(&p, &error));
    assert_string_equal(error->message, sentence);
}

static void test_each_number_is_refused_outside_its_limits_and_named(void **state)
{
    (void)state;
    accepted(usual());
    for (int which = 0; which < LIMITS_N; which++) {
        const unsigned values[] = {limits[which].least - 1, limits[which].least, limits[which].most,
                                   limits[which].most + 1};
        for (size_t i = 0; i < 4; i++) {
            Understudy__Protection p = usual();
            /* Where the heartbeat is not what is tried, it fits any silence, and the other way round. */
            p.heartbeat_ms = 1;
            p.silence_ms = limits[LIMIT_SILENCE_MS].most;
            uint32_t *fields[] = {&p.epoch_ms, &p.deadline_ms, &p.silence_ms, &p.heartbeat_ms};
            *fields[which] = values[i];
            g_autofree char *sentence =
                g_strdup_printf("%s %u: give a number from %u to %u", limits[which].option, values[i],
                                limits[which].least, limits[which].most);
            if (i == 0 || i == 3)
                refused(p, sentence);
            else
                accepted(p);
        }
    }
}

static void test_a_silence_of_fewer_than_three_heartbeats_is_refused(void **state)
{
    Understudy__Protection p = usual();
    (void)state;
    p.silence_ms = 29;
    refused(p, "--silence-ms 29: give three heartbeats (--heartbeat-ms 10) or more");
    p.silence_ms = 30;
    accepted(p);
}

static void test_words_that_mean_nothing_are_refused(void **state)
{
    Understudy__Protection p = usual();
    (void)state;
    p.tracker = (char *)"nose";
    refused(p, "--tracker nose: give one of auto, qemu-log, uffd");
    p.tracker = (char *)"uffd";
    p.transport = (char *)"pigeon";
    refused(p, "--transport pigeon: give one of auto, rdma, tcp");
    p.transport = (char *)"rdma";
    accepted(p);
    p.on_peer_loss = (Understudy__PeerLoss)2;
    refused(p, "--on-peer-loss: this version of understudy does not know the choice 2");
    p.on_peer_loss = UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD;
    p.durability = (Understudy__Durability)-1;
    refused(p, "--durability: this version of understudy does not know the choice -1");
}

/* The guest would have devices whose frames go nowhere. */
static void test_a_vm_with_more_network_devices_than_there_is_room_for_is_refused(void **state)
{
    Understudy__Protection p = usual();
    (void)state;
    p.nnics = LIMIT_NICS;
    accepted(p);
    p.nnics++;
    refused(p, "the VM has 17 network devices, and 16 are the limit");
    p = usual();
    p.n_heartbeat_paths = LIMIT_HEARTBEAT_PATHS + 1;
    refused(p, "the VM has 4 heartbeat paths, and 3 are the limit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_number_is_refused_outside_its_limits_and_named),
        cmocka_unit_test(test_a_silence_of_fewer_than_three_heartbeats_is_refused),
        cmocka_unit_test(test_words_that_mean_nothing_are_refused),
        cmocka_unit_test(test_a_vm_with_more_network_devices_than_there_is_room_for_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
