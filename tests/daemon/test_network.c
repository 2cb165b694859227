/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's network on both hosts: what is judged a fault, and which frames count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/network/network.h"
#include "hv-hooks/line.h"

static Understudy__NetworkTap a_tap(void)
{
    Understudy__NetworkTap tap = UNDERSTUDY__NETWORK_TAP__INIT;
    tap.id = (char *)"n0";
    tap.ifname = (char *)"tap0";
    return tap;
}

static Understudy__NetworkPort a_port(void)
{
    static uint8_t address[6] = {2, 0, 0, 0, 0, 1};
    Understudy__NetworkPort port = UNDERSTUDY__NETWORK_PORT__INIT;
    port.present = port.is_tap = port.up = port.bridge_up = true;
    port.mtu = port.bridge_mtu = 1500;
    port.bridge = (char *)"br0";
    port.bridge_kind = (char *)"bridge";
    port.bridge_address.data = address;
    port.bridge_address.len = sizeof address;
    return port;
}

/* The only fault of a pair, or NULL; in `last`. */
static char last[512];
static const char *only_fault(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *here,
                              const Understudy__NetworkPort *there, enum network_moment moment)
{
    struct network_findings *findings = network_findings_new();
    network_judge_host(tap, here, moment, NULL, findings);
    network_judge_host(tap, there, moment, "hostb", findings);
    network_judge_pair(tap, here, there, "hostb", findings);
    GPtrArray *list = findings->own->len ? findings->own : findings->faults;
    bool any = list->len > 0;
    assert_true(findings->own->len + findings->faults->len <= 1);
    g_strlcpy(last, any ? g_ptr_array_index(list, 0) : "", sizeof last);
    network_findings_free(findings);
    return any ? last : NULL;
}

static void assert_says(const char *text, const char *words)
{
    if (!text || !strstr(text, words))
        fail_msg("'%s' does not say '%s'", text ? text : "(nothing)", words);
}

static void test_equal_ports_are_well(void **state)
{
    Understudy__NetworkTap tap = a_tap();
    Understudy__NetworkPort here = a_port(), there = a_port();
    (void)state;
    assert_null(only_fault(&tap, &here, &there, NETWORK_BEFORE_START));
    there.bridge = (char *)"lan"; /* a bridge may have another name there */
    there.mtu = 9000;             /* and take longer frames */
    assert_null(only_fault(&tap, &here, &there, NETWORK_RUNNING));
    here.bridge = there.bridge = (char *)""; /* routed on both hosts: no bridge is missed */
    assert_null(only_fault(&tap, &here, &there, NETWORK_RUNNING));
}

static void test_each_lack_is_one_fault_that_names_its_host(void **state)
{
    Understudy__NetworkTap tap = a_tap();
    Understudy__NetworkPort well = a_port(), port;
    (void)state;
    port = a_port();
    port.up = false;
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "tap0 is down on hostb");
    assert_says(only_fault(&tap, &port, &well, NETWORK_RUNNING), "tap0 is down on this host");
    port = a_port();
    port.is_tap = false;
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "not a tap device on hostb");
    port = a_port();
    port.bridge_up = false;
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "bridge br0 on hostb, which is down");
    port = a_port();
    port.bridge = (char *)"";
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "in none on hostb");
    assert_says(only_fault(&tap, &port, &well, NETWORK_RUNNING), "in none on this host");
    port = a_port();
    port.mtu = 1499;
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "of 1499 on hostb");
    understudy__network_port__init(&port);
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "does not exist on hostb");
}

static void test_a_script_is_waited_for_only_until_qemu_runs(void **state)
{
    Understudy__NetworkTap tap = a_tap();
    Understudy__NetworkPort well = a_port(), port = a_port();
    (void)state;
    tap.scripted = true;
    port.up = false;
    assert_null(only_fault(&tap, &well, &port, NETWORK_BEFORE_START));
    assert_non_null(only_fault(&tap, &well, &port, NETWORK_RUNNING));
    understudy__network_port__init(&port);
    assert_null(only_fault(&tap, &port, &port, NETWORK_BEFORE_START));
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "does not exist");
}

static void test_a_helper_needs_its_bridge_only(void **state)
{
    Understudy__NetworkTap tap = a_tap();
    Understudy__NetworkPort well = a_port(), port;
    (void)state;
    tap.ifname = (char *)"";
    tap.bridge = (char *)"br0";
    well.present = false;
    assert_null(only_fault(&tap, &well, &well, NETWORK_RUNNING));
    understudy__network_port__init(&port);
    assert_says(only_fault(&tap, &well, &port, NETWORK_RUNNING), "the bridge br0 does not exist on hostb");
}

static void test_frames_that_do_not_arrive_are_a_fault(void **state)
{
    static const struct {
        uint32_t heard;
        const char *words;
    } cases[] = {{0, "does not arrive"}, {64, "shorter ones do"}, {1514, NULL}};
    Understudy__NetworkTap tap = a_tap();
    Understudy__NetworkPort port = a_port();
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct network_findings *findings = network_findings_new();
        network_judge_probe(&tap, &port, &port, cases[i].heard, network_frame_len(&port), "hostb", findings);
        assert_int_equal(findings->faults->len, cases[i].words ? 1 : 0);
        if (cases[i].words)
            assert_says(g_ptr_array_index(findings->faults, 0), cases[i].words);
        network_findings_free(findings);
    }
}

static void test_only_frames_between_plain_bridges_say_anything(void **state)
{
    Understudy__NetworkPort here = a_port(), there = a_port();
    (void)state;
    assert_true(network_can_probe(&here, &there));
    there.vlan_filtering = true;
    assert_false(network_can_probe(&here, &there));
    there = a_port();
    there.bridge_kind = (char *)"openvswitch";
    assert_false(network_can_probe(&here, &there));
    there = a_port();
    there.bridge_address.len = 0;
    assert_false(network_can_probe(&here, &there));
}

static void test_only_frames_of_this_probe_count(void **state)
{
    static const uint8_t nonce[NETWORK_NONCE_LEN] = {1, 2, 3}, other[NETWORK_NONCE_LEN] = {1, 2, 4};
    static const uint8_t to[6] = {2, 0, 0, 0, 0, 1}, from[6] = {2, 0, 0, 0, 0, 2};
    uint8_t frame[1514];
    uint32_t want = 0;
    (void)state;
    network_probe_fill(frame, sizeof frame, to, from, nonce, 3, sizeof frame);
    assert_int_equal(network_probe_parse(frame, sizeof frame, nonce, 3, &want), sizeof frame);
    assert_int_equal(want, sizeof frame);
    assert_int_equal(network_probe_parse(frame, 64, nonce, 3, &want), 64);
    assert_int_equal(network_probe_parse(frame, 63, nonce, 3, &want), 0); /* cut off */
    assert_int_equal(network_probe_parse(frame, sizeof frame, nonce, 2, &want), 0);
    assert_int_equal(network_probe_parse(frame, sizeof frame, other, 3, &want), 0);
    frame[12] = 8, frame[13] = 0; /* an IPv4 packet */
    assert_int_equal(network_probe_parse(frame, sizeof frame, nonce, 3, &want), 0);
}

static void test_names_that_are_no_interfaces_are_not_fit(void **state)
{
    (void)state;
    assert_true(network_name_is_fit("tap0"));
    assert_true(network_name_is_fit("br-lan.7"));
    assert_false(network_name_is_fit(""));
    assert_false(network_name_is_fit("../tap0"));
    assert_false(network_name_is_fit("a b"));
    assert_false(network_name_is_fit("\033[31mred"));
    assert_false(network_name_is_fit("sixteen-letters!"));
}

static void test_tap_devices_are_found_on_the_line(void **state)
{
    static const struct {
        const char *line, *id, *ifname, *bridge;
        bool scripted;
    } cases[] = {
        {"-netdev tap,id=a,ifname=t0,script=no,downscript=no", "a", "t0", "", false},
        {"-netdev tap,id=a,ifname=t0,script=", "a", "t0", "", false},
        {"-netdev tap,id=a,ifname=t0", "a", "t0", "", true},
        {"-netdev tap,id=a,ifname=t0,script=/up", "a", "t0", "", true},
        {"-netdev {\"type\":\"tap\",\"id\":\"a\",\"ifname\":\"t0\",\"script\":\"no\"}", "a", "t0", "", false},
        {"-netdev tap,id=a", "a", "", "", true},
        {"-netdev tap,id=a,helper=/h,br=lan", "a", "", "lan", true},
        {"-netdev bridge,id=a", "a", "", "br0", true},
        {"-nic tap,ifname=t0,script=no", "us-net0", "t0", "", false},
        {"-netdev user,id=a", NULL, NULL, NULL, false},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strconcat("qemu -m 64 -nodefaults ", cases[i].line, NULL);
        g_auto(GStrv) argv = g_strsplit(text, " ", -1);
        struct line *line = line_parse((const char *const *)argv, NULL);
        assert_non_null(line);
        g_autoptr(GPtrArray) taps = network_taps(line);
        assert_int_equal(taps->len, cases[i].id ? 1 : 0);
        if (taps->len) {
            const Understudy__NetworkTap *tap = g_ptr_array_index(taps, 0);
            assert_string_equal(tap->id, cases[i].id);
            assert_string_equal(tap->ifname, cases[i].ifname);
            assert_string_equal(tap->bridge, cases[i].bridge);
            assert_int_equal(tap->scripted, cases[i].scripted);
        }
        line_free(line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_ports_are_well),
        cmocka_unit_test(test_each_lack_is_one_fault_that_names_its_host),
        cmocka_unit_test(test_a_script_is_waited_for_only_until_qemu_runs),
        cmocka_unit_test(test_a_helper_needs_its_bridge_only),
        cmocka_unit_test(test_frames_that_do_not_arrive_are_a_fault),
        cmocka_unit_test(test_only_frames_between_plain_bridges_say_anything),
        cmocka_unit_test(test_only_frames_of_this_probe_count),
        cmocka_unit_test(test_names_that_are_no_interfaces_are_not_fit),
        cmocka_unit_test(test_tap_devices_are_found_on_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
