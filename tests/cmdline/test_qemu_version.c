/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which QEMU is later, what each calls a machine, and what the administrator is told. */
#include <glib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hv-hooks/qemu/qemu_version.h"

#define BOOKWORM  "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)"
#define BACKPORTS "10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)"

static const char help_7_2[] =
    "Supported machines are:\n"
    "microvm              microvm (i386)\n"
    "pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\n"
    "pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)\n"
    "pc-i440fx-7.1        Standard PC (i440FX + PIIX, 1996)\n"
    "q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)\n"
    "pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)\n";

static void test_versions_are_numbers_and_not_words(void **state)
{
    (void)state;
    assert_int_equal(qemu_version_relate(BOOKWORM, BOOKWORM), QEMU_SAME);
    assert_int_equal(qemu_version_relate(BOOKWORM, BACKPORTS), QEMU_LATER);
    assert_int_equal(qemu_version_relate(BACKPORTS, BOOKWORM), QEMU_EARLIER);
    assert_int_equal(qemu_version_relate("7.2.9", "7.2.22"), QEMU_LATER);
    assert_int_equal(qemu_version_relate("10.0.13", "10.0.2"), QEMU_EARLIER);
    assert_int_equal(qemu_version_relate("10.2.0", "11.0.0"), QEMU_LATER);
}

static void test_another_build_is_neither_earlier_nor_later(void **state)
{
    (void)state;
    assert_int_equal(qemu_version_relate(BOOKWORM, "7.2.22 (Debian 1:7.2+dfsg-7+deb12u19)"),
                     QEMU_OTHER_BUILD);
    assert_int_equal(qemu_version_relate("7.2.22 (x)", BOOKWORM), QEMU_OTHER_BUILD);
}

static void test_what_is_no_version_is_unknown(void **state)
{
    static const char *const others[] = {"", "git", "-7.2.22", "7", "x7.2.22"};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        assert_int_equal(qemu_version_relate(BOOKWORM, others[i]), QEMU_UNKNOWN);
        assert_int_equal(qemu_version_relate(others[i], BOOKWORM), QEMU_UNKNOWN);
    }
}

static void assert_pinned(const char *type, const char *expected)
{
    g_autofree char *pinned = qemu_machine_pinned(help_7_2, type);
    if (expected)
        assert_string_equal(pinned, expected);
    else
        assert_null(pinned);
}

static void test_an_alias_becomes_the_machine_type_that_it_stands_for(void **state)
{
    (void)state;
    assert_pinned("pc", "pc-i440fx-7.2");
    assert_pinned("q35", "pc-q35-7.2");
    assert_pinned("", "pc-i440fx-7.2");
    assert_pinned("pc-i440fx-7.1", "pc-i440fx-7.1");
    assert_pinned("microvm", "microvm");
}

static void test_a_machine_type_that_is_not_listed_is_not_made_up(void **state)
{
    (void)state;
    assert_pinned("pc-i440fx-10.0", NULL);
    assert_pinned("pc-i440fx-7", NULL);
    g_autofree char *pinned = qemu_machine_pinned("", "pc");
    assert_null(pinned);
}

static void test_only_types_with_a_version_are_the_same_everywhere(void **state)
{
    (void)state;
    assert_true(qemu_machine_has_version("pc-i440fx-7.2"));
    assert_true(qemu_machine_has_version("pc-q35-10.0"));
    assert_false(qemu_machine_has_version("pc"));
    assert_false(qemu_machine_has_version("microvm"));
    assert_false(qemu_machine_has_version("isa-debug"));
}

static void test_the_warning_says_that_the_way_back_is_closed(void **state)
{
    (void)state;
    g_autofree char *none = qemu_version_warning(BOOKWORM, BOOKWORM);
    g_autofree char *later = qemu_version_warning(BOOKWORM, BACKPORTS);
    g_autofree char *build = qemu_version_warning(BOOKWORM, "7.2.22 (other)");
    assert_null(none);
    assert_non_null(strstr(later, "cannot come back"));
    assert_non_null(strstr(later, BACKPORTS));
    assert_null(strstr(build, "cannot come back"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_are_numbers_and_not_words),
        cmocka_unit_test(test_another_build_is_neither_earlier_nor_later),
        cmocka_unit_test(test_what_is_no_version_is_unknown),
        cmocka_unit_test(test_an_alias_becomes_the_machine_type_that_it_stands_for),
        cmocka_unit_test(test_a_machine_type_that_is_not_listed_is_not_made_up),
        cmocka_unit_test(test_only_types_with_a_version_are_the_same_everywhere),
        cmocka_unit_test(test_the_warning_says_that_the_way_back_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
