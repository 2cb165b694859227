/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the pair lacks for a VM: which of the findings refuses a start, a move, or is only told. The linker
 * puts the test in the place of the peer and of what looks at the network.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/daemon.h"
#include "daemon/network/network.h"

struct network_findings *__wrap_network_check(Understudy__NetworkTap *const *taps, size_t n,
                                              enum network_moment moment, struct stream *stream,
                                              const char *peer, bool probe, GError **error);
char **__wrap_network_bridged_taps(void);
struct stream *__wrap_peer_connect(const char *host, uint16_t port, GError **error);
bool __wrap_files_ask_peer(struct stream *stream, const GPtrArray *facts, const char *peer,
                           const struct files_progress *progress, GError **error);

/* What there is to be found. */
static const char *own, *fault, *remark; /* NULL: nothing of it */
static const char *bridged;              /* a tap in a bridge, besides the VM's */
static bool peer_is_there, files_differ;
/* What was asked for. */
static unsigned nchecks, nprobes, nof_peer, nconnects;
static enum network_moment last_moment;
static char last_tap[16];

static void add(GPtrArray *list, const char *text)
{
    if (text)
        g_ptr_array_add(list, g_strdup(text));
}

struct network_findings *__wrap_network_check(Understudy__NetworkTap *const *taps, size_t n,
                                              enum network_moment moment, struct stream *stream,
                                              const char *peer, bool probe, GError **error)
{
    (void)error;
    assert_int_equal(n, 1);
    assert_int_equal(stream != NULL, peer != NULL);
    g_strlcpy(last_tap, taps[0]->ifname, sizeof last_tap);
    last_moment = moment;
    nchecks++;
    nprobes += probe;
    nof_peer += peer != NULL;
    struct network_findings *findings = network_findings_new();
    add(findings->own, own);
    add(findings->faults, peer ? fault : NULL);
    add(findings->remarks, remark);
    return findings;
}

char **__wrap_network_bridged_taps(void)
{
    const char *names[] = {"tap7", bridged, NULL};
    return g_strdupv((char **)names);
}

struct stream *__wrap_peer_connect(const char *host, uint16_t port, GError **error)
{
    assert_string_equal(host, "b");
    assert_int_equal(port, 7070);
    nconnects++;
    if (peer_is_there)
        return stream_new_plain(open("/dev/null", O_RDWR | O_CLOEXEC));
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "nobody answers");
    return NULL;
}

bool __wrap_files_ask_peer(struct stream *stream, const GPtrArray *facts, const char *peer,
                           const struct files_progress *progress, GError **error)
{
    (void)progress;
    assert_non_null(stream);
    assert_true(facts->len > 0);
    assert_string_equal(peer, "b");
    if (files_differ)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "other content");
    return !files_differ;
}

static char *firmware; /* the words of a file that is there */
static char *dir;

static int set_up(void **state)
{
    (void)state;
    own = fault = remark = bridged = NULL;
    peer_is_there = true;
    files_differ = false;
    nchecks = nprobes = nof_peer = nconnects = 0;
    return 0;
}

/* Its line has a tap device, if it is to have one. Static memory. */
static Understudy__Protection *protection(bool has_tap)
{
    static Understudy__Protection vm;
    static char *argv[3];
    argv[0] = (char *)"fakevm";
    argv[1] = (char *)"memory:64";
    argv[2] = (char *)"tap:lan@tap7";
    understudy__protection__init(&vm);
    vm.vm = (char *)"web";
    vm.qemu_argv = argv;
    vm.n_qemu_argv = has_tap ? 3 : 2;
    return &vm;
}

static bool is_fit(bool has_tap, GError **error)
{
    return pair_network_is_fit(protection(has_tap), "b", 7070, error);
}

static void test_a_vm_without_taps_is_fit_without_a_look(void **state)
{
    (void)state;
    fault = "the bridge is down";
    peer_is_there = false;
    assert_true(is_fit(false, NULL));
    assert_int_equal(nchecks + nconnects, 0);
}

static void test_a_fault_of_either_host_refuses_a_start_with_a_way_out(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    remark = "all is well";
    assert_true(is_fit(true, &error));
    assert_int_equal(nprobes, 1);
    assert_int_equal(last_moment, NETWORK_BEFORE_START);
    fault = "b's bridge is down";
    assert_false(is_fit(true, &error));
    assert_string_equal(error->message,
                        "VM web: b's bridge is down; or start it with --no-network-check, if you know "
                        "that the network works");
    g_clear_error(&error);
    own = "this bridge is down"; /* comes first: the other is of no use without it */
    assert_false(is_fit(true, &error));
    assert_non_null(strstr(error->message, "this bridge is down"));
    g_clear_error(&error);
    peer_is_there = false;
    assert_false(is_fit(true, &error));
    assert_string_equal(error->message, "nobody answers");
}

/* Frees it. */
static unsigned count(GPtrArray *faults, const char *first)
{
    unsigned n = faults->len;
    if (n)
        assert_string_equal(g_ptr_array_index(faults, 0), first);
    g_ptr_array_unref(faults);
    return n;
}

static void test_a_vm_that_runs_is_told_what_a_takeover_would_meet(void **state)
{
    Understudy__Protection *vm = protection(true);
    (void)state;
    own = "this bridge is down";
    fault = "b's bridge is down";
    assert_int_equal(count(pair_network_faults(vm, "b", 7070, true, false), own), 2);
    assert_int_equal(nprobes, 1);
    assert_int_equal(last_moment, NETWORK_RUNNING);
    assert_int_equal(count(pair_network_faults(vm, "b", 7070, true, true), fault), 1); /* a move to b */
    assert_int_equal(count(pair_network_faults(vm, NULL, 0, false, false), own), 1);
    peer_is_there = false; /* another matter: what is here is told all the same */
    assert_int_equal(count(pair_network_faults(vm, "b", 7070, false, false), own), 1);
    assert_int_equal(count(pair_network_faults(vm, "b", 7070, false, true), own), 0);
    peer_is_there = true;
    nprobes = 0;
    vm->network_unchecked = true; /* frames say nothing there, as the administrator knows */
    assert_int_equal(count(pair_network_faults(vm, "b", 7070, true, false), own), 2);
    assert_int_equal(nprobes, 0);
    assert_int_equal(count(pair_network_faults(protection(false), "b", 7070, true, false), own), 0);
}

/* ---- doctor ---- */

static Understudy__Findings *findings_of(const char *peer, char **argv, size_t n_argv,
                                         Understudy__Protection *vm, GError **error)
{
    Understudy__PairRequest request = UNDERSTUDY__PAIR_REQUEST__INIT;
    g_autoptr(GPtrArray) vms = g_ptr_array_new();
    request.peer = (char *)peer;
    request.argv = argv;
    request.n_argv = n_argv;
    request.cwd = (char *)"/";
    if (vm)
        g_ptr_array_add(vms, vm);
    return pair_findings(&request, vms, error);
}

/* The level of the finding of that text. */
static int level_of(const Understudy__Findings *findings, const char *what, const char *text)
{
    for (size_t i = 0; i < findings->n_findings; i++) {
        const Understudy__Finding *finding = findings->findings[i];
        if (strcmp(finding->what, what) == 0 && strstr(finding->text, text))
            return (int)finding->level;
    }
    return -1;
}

static void test_doctor_tells_faults_of_vms_and_only_warns_of_other_taps(void **state)
{
    (void)state;
    own = "this bridge is down";
    fault = "b's bridge is down";
    remark = "the MTU is well";
    bridged = "tap9";
    Understudy__Findings *findings = findings_of("b", NULL, 0, protection(true), NULL);
    assert_non_null(findings);
    assert_int_equal(level_of(findings, "network of web", own), 2);
    assert_int_equal(level_of(findings, "network of web", fault), 2);
    assert_int_equal(level_of(findings, "network of web", remark), 0);
    assert_int_equal(level_of(findings, "files of web", "0 files are the same"), 0);
    assert_int_equal(level_of(findings, "network", fault), 1);
    assert_int_equal(nchecks, 2); /* tap7 is the VM's: once */
    assert_string_equal(last_tap, "tap9");
    understudy__findings__free_unpacked(findings, NULL);
}

static void test_doctor_looks_at_a_line_as_before_a_start(void **state)
{
    char *argv[] = {(char *)"fakevm", (char *)"memory:64", (char *)"tap:lan@tap7", firmware};
    (void)state;
    for (int differ = 0; differ < 2; differ++) {
        files_differ = differ;
        Understudy__Findings *findings = findings_of("b:7070", argv, G_N_ELEMENTS(argv), NULL, NULL);
        assert_non_null(findings);
        assert_int_equal(last_moment, NETWORK_BEFORE_START);
        assert_int_equal(
            level_of(findings, "files", differ ? "the peer b refused: other content" : "1 files are"),
            differ ? 2 : 0);
        understudy__findings__free_unpacked(findings, NULL);
    }
}

static void test_doctor_s_request_that_cannot_be_answered_is_a_sentence(void **state)
{
    char *argv[] = {(char *)"fakevm", (char *)"nonsense"};
    g_autoptr(GError) peer = NULL, line = NULL, gone = NULL;
    (void)state;
    assert_null(findings_of("[", NULL, 0, NULL, &peer));
    assert_string_equal(peer->message, "--peer [ is not HOST or HOST:PORT");
    assert_null(findings_of("b", argv, G_N_ELEMENTS(argv), NULL, &line));
    assert_non_null(strstr(line->message, "this means nothing"));
    peer_is_there = false;
    assert_null(findings_of("b", NULL, 0, protection(true), &gone));
    assert_string_equal(gone->message, "nobody answers");
}

static int make_firmware(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("us-pair-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "a.fw", NULL);
    firmware = g_strdup_printf("firmware:%s", path);
    return dir && g_file_set_contents(path, "words", -1, NULL) ? 0 : -1;
}

static int remove_firmware(void **state)
{
    g_autofree char *path = g_build_filename(dir, "a.fw", NULL);
    (void)state;
    g_unlink(path);
    g_rmdir(dir);
    g_free(dir);
    g_free(firmware);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_vm_without_taps_is_fit_without_a_look, set_up),
        cmocka_unit_test_setup(test_a_fault_of_either_host_refuses_a_start_with_a_way_out, set_up),
        cmocka_unit_test_setup(test_a_vm_that_runs_is_told_what_a_takeover_would_meet, set_up),
        cmocka_unit_test_setup(test_doctor_tells_faults_of_vms_and_only_warns_of_other_taps, set_up),
        cmocka_unit_test_setup(test_doctor_looks_at_a_line_as_before_a_start, set_up),
        cmocka_unit_test_setup(test_doctor_s_request_that_cannot_be_answered_is_a_sentence, set_up),
    };
    return cmocka_run_group_tests(tests, make_firmware, remove_firmware);
}
