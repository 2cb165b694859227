/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names and addresses: families, digits without a server, and sockets for both families. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <gio/gio.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include "common/address.h"
#include "replicator/transport/tcp.h"

static bool has_ipv6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static char *text_of(const char *host, enum address_kind kind, int family)
{
    struct addresses all;
    if (addresses_resolve(&all, host, 7, kind, family, NULL) < 0)
        return g_strdup("none");
    assert_int_equal(address_port(&all.list[0]), 7);
    return address_text((struct sockaddr *)&all.list[0].storage, all.list[0].len);
}

static void test_digits_are_taken_as_they_are(void **state)
{
    static const struct {
        const char *host;
        int family;
        const char *text;
    } cases[] = {
        {"10.77.0.2", AF_UNSPEC, "10.77.0.2"},
        {"10.77.0.2", AF_INET, "10.77.0.2"},
        {"10.77.0.2", AF_INET6, "10.77.0.2"}, /* mapped, and shown as what it is */
        {"fd00::2", AF_INET6, "fd00::2"},
        {"fd00::2", AF_UNSPEC, "fd00::2"},
        {"fd00::2", AF_INET, "none"},
        {"localhost", AF_UNSPEC, "none"}, /* a name waits for a server */
        {"", AF_UNSPEC, "none"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = text_of(cases[i].host, ADDRESS_DIGITS, cases[i].family);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_the_other_family_is_told_as_such(void **state)
{
    struct addresses all;
    g_autoptr(GError) error = NULL;
    (void)state;
    assert_int_equal(addresses_resolve(&all, "fd00::2", 7, ADDRESS_DIGITS, AF_INET, &error), -EAFNOSUPPORT);
    assert_non_null(error);
}

static void test_a_port_is_a_number(void **state)
{
    (void)state;
    assert_int_equal(address_port_of("7070"), 7070);
    assert_int_equal(address_port_of("0"), 0);
    assert_int_equal(address_port_of("65536"), 0);
    assert_int_equal(address_port_of("http"), 0);
}

static int send_to(int family, const char *host, uint16_t port)
{
    struct addresses all;
    assert_int_equal(addresses_resolve(&all, host, port, ADDRESS_DIGITS, family, NULL), 0);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ssize_t n = sendto(fd, "x", 1, 0, (struct sockaddr *)&all.list[0].storage, all.list[0].len);
    close(fd);
    return n == 1 ? 0 : -errno;
}

/* The socket does not block: waits for one packet, and tells from where it came. GLib string. */
static char *expect_one(int fd)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    char byte;
    assert_int_equal(poll(&pfd, 1, 10000), 1);
    assert_int_equal(recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&from, &len), 1);
    return address_text((struct sockaddr *)&from, len);
}

static void test_every_address_means_both_families_for_datagrams(void **state)
{
    uint16_t port = 0;
    int family = 0, fd = address_bind_datagram(NULL, &port, &family, NULL);
    (void)state;
    assert_true(fd >= 0);
    assert_int_not_equal(port, 0);
    assert_int_equal(send_to(AF_INET, "127.0.0.1", port), 0);
    g_autofree char *from = expect_one(fd);
    assert_string_equal(from, "127.0.0.1");
    if (has_ipv6()) {
        assert_int_equal(family, AF_INET6);
        assert_int_equal(send_to(AF_INET6, "::1", port), 0);
        g_autofree char *from_6 = expect_one(fd);
        assert_string_equal(from_6, "::1");
    }
    close(fd);
}

static void test_every_address_means_both_families_for_connections(void **state)
{
    uint16_t port = 0;
    int listener = transport_tcp_listen(NULL, &port, NULL);
    (void)state;
    assert_true(listener >= 0);
    g_autofree char *service = g_strdup_printf("%u", port);
    const char *const hosts[] = {"127.0.0.1", "::1"};
    for (unsigned i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        int fd = -1;
        assert_int_equal(transport_tcp_connect(hosts[i], service, 5000, &fd, NULL), 0);
        int accepted = accept(listener, NULL, NULL);
        g_autofree char *here = address_of_peer(fd), *there = address_of_peer(accepted);
        assert_string_equal(here, hosts[i]);
        assert_string_equal(there, hosts[i]);
        close(accepted);
        close(fd);
    }
    close(listener);
}

/* localhost is both in /etc/hosts of most machines: whichever comes first, the one that listens is found. */
static void test_all_addresses_of_a_name_are_tried(void **state)
{
    struct addresses all;
    (void)state;
    if (addresses_resolve(&all, "localhost", 7, ADDRESS_NAME, AF_UNSPEC, NULL) < 0 || all.n < 2)
        skip();
    for (unsigned i = 0; i < all.n; i++) {
        uint16_t port = 0;
        g_autofree char *one = address_text((struct sockaddr *)&all.list[i].storage, all.list[i].len);
        int fd = -1, listener = transport_tcp_listen(one, &port, NULL);
        assert_true(listener >= 0);
        g_autofree char *service = g_strdup_printf("%u", port);
        assert_int_equal(transport_tcp_connect("localhost", service, 5000, &fd, NULL), 0);
        close(fd);
        close(listener);
    }
}

static void test_a_port_is_shared_only_when_it_is_asked_for(void **state)
{
    uint16_t port = 0, same, other = 0;
    int family;
    (void)state;
    int first = address_bind_datagram("127.0.0.1", &port, &family, NULL);
    same = port;
    int second = address_bind_datagram("127.0.0.2", &same, &family, NULL);
    int third = address_bind_datagram("127.0.0.1", &other, &family, NULL);
    assert_true(first >= 0 && second >= 0 && third >= 0);
    assert_int_equal(same, port);
    assert_int_not_equal(other, port);
    g_autoptr(GError) error = NULL;
    assert_true(address_bind_datagram("192.0.2.1", &other, &family, &error) < 0);
    assert_non_null(strstr(error->message, "192.0.2.1"));
    close(first);
    close(second);
    close(third);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digits_are_taken_as_they_are),
        cmocka_unit_test(test_the_other_family_is_told_as_such),
        cmocka_unit_test(test_a_port_is_a_number),
        cmocka_unit_test(test_every_address_means_both_families_for_datagrams),
        cmocka_unit_test(test_every_address_means_both_families_for_connections),
        cmocka_unit_test(test_all_addresses_of_a_name_are_tried),
        cmocka_unit_test(test_a_port_is_shared_only_when_it_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
