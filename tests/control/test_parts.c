/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A replicator's parts: in which order they are made, connected and closed, and what is left of them when one
 * cannot be made. Every part is a line in the list of calls. The thread that watches the end is the linker's
 * wraps: it is run when the test wants it, and its minute does not pass.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/priority.h"
#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "replicator/control/term_file.h"
#include "replicator/control/trial.h"
#include "replicator/note.h"
#include "replicator/transport/tcp.h"
#include "tests/control/calls.h"
#include "tests/control/fake_core.h"

#define U(number)    ((unsigned)(number))
#define SOMETHING(p) ((void *)&(p))
#define DATA_PORT    4711
#define UDP_PORT     4712

static struct replicator r;
static struct fake_core core;
static struct link_security link_security; /* the last */
static struct hv_block blocks[2];
static const char *fails; /* the part that cannot be made, or NULL */
static bool with_disks, no_rdma;
static int listen_fd; /* the newest one that was given out */
static struct capture_thread_config capture_config;
static struct endpoint_rdma_config rdma_config;
static input_log_send send_frame;
static bool durable_applier;

/* Whether this part is the one that cannot be made. */
static bool is_refused(const char *part, GError **error)
{
    if (!fails || strcmp(fails, part) != 0)
        return false;
    errno = EMFILE;
    if (error)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "no %s", part);
    return true;
}

/* ---- the guest and its disks ---- */

void guest_events_run(struct replicator *of, enum run_event event, const char *reason)
{
    (void)of;
    called("run event %d %s", event, reason);
}
void guest_events_reset(struct replicator *of)
{
    (void)of;
    called("reset");
}
void guest_events_taken_over(struct replicator *of, enum machine_state state)
{
    (void)of;
    called("taken over %d", state);
}
void guest_disks_io_error(struct guest_disks *of, const struct machine_disk_error *error)
{
    assert_ptr_equal(of, &r.disks);
    called("io error %s", error->disk);
}
void guest_disks_io_resumed(struct guest_disks *of)
{
    assert_ptr_equal(of, &r.disks);
    called("io resumed");
}
void guest_disks_retry(struct guest_disks *of)
{
    assert_ptr_equal(of, &r.disks);
    called("retry");
}
bool guest_disks_open(struct guest_disks *of, const struct disks_config *config, GError **error)
{
    called("disks");
    assert_ptr_equal(of, &r.disks);
    assert_ptr_equal(of->sink, &r.sink);
    assert_ptr_equal(of->session, &r.session);
    assert_ptr_equal(of->gate, r.gate);
    assert_int_equal(of->durable_acks, r.config.durable_acks);
    assert_string_equal(config->vm_name, "web");
    assert_ptr_equal(config->list, r.config.disks);
    assert_int_equal(config->standby, r.config.role == SESSION_SECONDARY);
    if (is_refused("disks", error))
        return false;
    if (with_disks)
        of->set = SOMETHING(with_disks);
    return true;
}
void guest_disks_use(struct guest_disks *of, const struct guest_disks_parts *parts)
{
    of->parts = *parts;
    if (!parts->capture)
        g_clear_handle_id(&of->io_retry, g_source_remove);
}
void guest_disks_close(struct guest_disks *of)
{
    disks_close(g_steal_pointer(&of->set));
}
void guest_resume(struct replicator *of)
{
    assert_ptr_equal(of, &r);
    called("resume");
}
bool guest_start(struct replicator *of, GError **error)
{
    called("guest");
    if (is_refused("guest", error))
        return false;
    of->hv = SOMETHING(blocks);
    return true;
}
void guest_close(struct replicator *of)
{
    if (of->hv)
        called("~guest");
    of->hv = NULL;
}
unsigned hypervisor_nblocks(const struct hypervisor *hv)
{
    (void)hv;
    return G_N_ELEMENTS(blocks);
}
const struct hv_block *hypervisor_block(const struct hypervisor *hv, unsigned i)
{
    (void)hv;
    return &blocks[i];
}
unsigned disks_count(const struct disks *disks)
{
    return disks ? 2 : 0;
}
uint64_t disks_max_section_pages(unsigned ndisks)
{
    return ndisks * 100;
}
void disks_close(struct disks *disks)
{
    if (disks)
        called("~disks");
}

/* ---- the pipeline ---- */

struct output_gate *gate_new(uint32_t hold_len)
{
    assert_true(hold_len > 0);
    called("gate");
    return SOMETHING(with_disks);
}
void gate_free(struct output_gate *gate)
{
    if (gate)
        called("~gate");
}
struct input_log *input_log_new(input_log_send send, void *opaque)
{
    assert_ptr_equal(opaque, &r);
    send_frame = send;
    called("input log");
    return SOMETHING(with_disks);
}
void input_log_free(struct input_log *log)
{
    if (log)
        called("~input log");
}
int staging_open(struct staging **out, uint32_t capacity_pages, size_t devstate_capacity)
{
    called("staging %u", capacity_pages);
    assert_true(devstate_capacity > 0);
    if (is_refused("staging", NULL))
        return -ENOMEM;
    *out = SOMETHING(with_disks);
    return 0;
}
void staging_close(struct staging *staging)
{
    if (staging)
        called("~staging");
}
int image_new(struct image **out, struct hypervisor *hv, size_t devstate_capacity)
{
    (void)devstate_capacity;
    called("image");
    assert_ptr_equal(hv, r.hv);
    if (is_refused("image", NULL))
        return -ENOMEM;
    *out = SOMETHING(with_disks);
    return 0;
}
void image_free(struct image *image)
{
    if (image)
        called("~image");
}
struct capture_thread *capture_thread_new(const struct capture_thread_config *config)
{
    called("capture");
    capture_config = *config;
    return is_refused("capture", NULL) ? NULL : SOMETHING(capture_config);
}
void capture_thread_free(struct capture_thread *thread)
{
    if (thread)
        called("~capture");
}
void capture_thread_room(void *thread)
{
    (void)thread;
}
void capture_thread_set_disk_sync(struct capture_thread *thread, struct disk_sync *sync)
{
    assert_ptr_equal(thread, r.capture);
    assert_ptr_equal(sync, r.disk_sync);
    called("sync to capture");
}
void capture_thread_set_sender(struct capture_thread *thread, struct sender *sender)
{
    assert_ptr_equal(thread, r.capture);
    assert_ptr_equal(sender, r.sender);
    called("sender to capture");
}
struct sender *sender_new(struct staging *staging, struct mailbox *control, struct histogram *epoch_bytes,
                          sender_room room, void *opaque)
{
    called("sender");
    assert_ptr_equal(staging, r.staging);
    assert_ptr_equal(control, &r.box);
    assert_ptr_equal(epoch_bytes, r.epoch_bytes);
    assert_ptr_equal(room, capture_thread_room);
    assert_ptr_equal(opaque, r.capture);
    return is_refused("sender", NULL) ? NULL : SOMETHING(with_disks);
}
void sender_free(struct sender *sender)
{
    if (sender)
        called("~sender");
}
struct applier *applier_new(struct image *image, struct disks *disks, bool durable_acks,
                            struct staging *staging, struct mailbox *control)
{
    called("applier");
    assert_ptr_equal(image, r.image);
    assert_ptr_equal(disks, r.disks.set);
    assert_ptr_equal(staging, r.staging);
    assert_ptr_equal(control, &r.box);
    durable_applier = durable_acks;
    return is_refused("applier", NULL) ? NULL : SOMETHING(with_disks);
}
void applier_free(struct applier *applier)
{
    if (applier)
        called("~applier");
}
struct disk_sync *disk_sync_new(struct disks *disks, struct staging *staging, void (*wake)(void *opaque),
                                void *opaque)
{
    called("disk sync");
    assert_ptr_equal(disks, r.disks.set);
    assert_ptr_equal(staging, r.staging);
    assert_ptr_equal(wake, capture_thread_room);
    assert_ptr_equal(opaque, r.capture);
    return is_refused("disk sync", NULL) ? NULL : SOMETHING(with_disks);
}
void disk_sync_free(struct disk_sync *sync)
{
    if (sync)
        called("~disk sync");
}
struct disk_answer *disk_answer_new(struct disks *disks, struct sender *sender, struct applier *applier,
                                    GError **error)
{
    called("disk answer");
    assert_ptr_equal(disks, r.disks.set);
    assert_ptr_equal(sender, r.sender);
    assert_ptr_equal(applier, r.applier);
    return is_refused("disk answer", error) ? NULL : SOMETHING(with_disks);
}
void disk_answer_free(struct disk_answer *of)
{
    if (of)
        called("~disk answer");
}
void actions_open_capture_stop(struct replicator *of)
{
    assert_non_null(of->capture);
    called("capture stop");
}
void capture_stop_clear(struct capture_stop *stop)
{
    assert_ptr_equal(stop, &r.capture_stop);
    called("~capture stop");
}
void trial_end(struct trial *trial)
{
    if (trial)
        called("~trial");
}

/* ---- the link, the paths and the rest ---- */

static void free_endpoint(struct endpoint *endpoint)
{
    called("~%s", endpoint->ops->name);
    g_free(endpoint);
}

static void set_secret(struct endpoint *endpoint, const uint8_t secret[SEAL_SECRET_LEN]);
static const struct endpoint_ops rdma_ops = {.name = "rdma", .set_secret = set_secret, .free = free_endpoint},
                                 tcp_ops = {.name = "tcp", .free = free_endpoint};

static void set_secret(struct endpoint *endpoint, const uint8_t secret[SEAL_SECRET_LEN])
{
    called("secret %u to %s", secret[0], endpoint->ops->name);
}

static struct endpoint *new_endpoint(const struct endpoint_ops *ops)
{
    struct endpoint *endpoint = g_new0(struct endpoint, 1);
    endpoint->ops = ops;
    return endpoint;
}

struct endpoint *endpoint_rdma_new(const struct endpoint_rdma_config *config, GError **error)
{
    called("rdma %u", config->listen_port);
    rdma_config = *config;
    if (is_refused("rdma", error))
        return NULL;
    if (no_rdma)
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "no device");
    return no_rdma ? NULL : new_endpoint(&rdma_ops);
}
struct endpoint *endpoint_tcp_new(int fd, unsigned stall_ms)
{
    assert_true(stall_ms > 0);
    assert_int_equal(fd, listen_fd);
    called("tcp%s", fd >= 0 ? " listens" : "");
    return new_endpoint(&tcp_ops);
}
bool endpoint_rdma_check(const char *peer_host, const char *listen_address, size_t staging_len,
                         GError **error)
{
    called("check %s %s %u MiB", peer_host ? peer_host : "-", listen_address ? listen_address : "-",
           U(staging_len >> 20));
    return !is_refused("check", error);
}
int transport_tcp_listen(const char *address, uint16_t *port, GError **error)
{
    called("listen %s", address);
    if (is_refused("listen", error))
        return -EADDRINUSE;
    *port = DATA_PORT;
    listen_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(listen_fd >= 0);
    return listen_fd;
}
struct link *link_new(struct mailbox *control, struct staging *staging, struct endpoint *const *endpoints,
                      unsigned nendpoints, GError **error)
{
    assert_ptr_equal(control, &r.box);
    assert_ptr_equal(staging, r.staging);
    g_autoptr(GString) names = g_string_new(NULL);
    for (unsigned i = 0; i < nendpoints; i++)
        g_string_append_printf(names, " %s", endpoints[i]->ops->name);
    called("link%s", names->str);
    return is_refused("link", error) ? NULL : SOMETHING(with_disks);
}
void link_free(struct link *link)
{
    if (link)
        called("~link");
}
void link_set_peer(struct link *link, const char *host, const char *port)
{
    assert_ptr_equal(link, r.link);
    called("link to %s %s", host, port);
}
void link_set_security(struct link *link, const struct link_security *security)
{
    assert_ptr_equal(link, r.link);
    link_security = *security;
    called("%s link", security->sealed ? "sealed" : "plain");
}
void drop_peer_end(struct replicator *of)
{
    assert_ptr_equal(of, &r);
    of->drop.source = 0;
}
void paths_set_secret(struct paths *paths, const uint8_t secret[SEAL_SECRET_LEN])
{
    assert_ptr_equal(paths, r.paths);
    called("secret %u to paths", secret[0]);
}
bool heartbeats_start(struct replicator *of, GError **error)
{
    called("heartbeats");
    if (is_refused("heartbeats", error))
        return false;
    of->paths = SOMETHING(with_disks);
    return true;
}
void paths_free(struct paths *paths)
{
    if (paths)
        called("~paths");
}
uint16_t paths_port(const struct paths *paths)
{
    (void)paths;
    return UDP_PORT;
}
void paths_set_peer(struct paths *paths, const char *host, uint16_t port)
{
    assert_ptr_equal(paths, r.paths);
    called("paths to %s %u", host, port);
}
struct term_file *term_file_open(const char *path, const uint8_t *token, size_t token_len,
                                 struct mailbox *control, uint64_t *term, GError **error)
{
    called("term file %s", path);
    assert_memory_equal(token, r.config.token, token_len);
    assert_int_equal(token_len, sizeof r.config.token);
    assert_ptr_equal(control, &r.box);
    if (is_refused("term file", error))
        return NULL;
    *term = 14;
    return SOMETHING(with_disks);
}
void term_file_close(struct term_file *file)
{
    if (file)
        called("~term file");
}
struct arbiter *arbiter_none_new(void)
{
    called("arbiter");
    return is_refused("arbiter", NULL) ? NULL : SOMETHING(with_disks);
}
void arbiter_free(struct arbiter *arbiter)
{
    if (arbiter)
        called("~arbiter");
}
void channel_listening(struct channel *channel, guint16 data_port, guint16 udp_port)
{
    (void)channel;
    assert_true(r.session_begun);
    called("listening %u %u", data_port, udp_port);
}
void channel_free(struct channel *channel)
{
    if (channel)
        called("~channel");
}
unsigned priority_set_nice(pid_t pid, int nice)
{
    assert_int_equal(pid, getpid());
    called("nice %d", nice);
    return 1;
}

/* ---- the thread that watches the end ---- */

static GThreadFunc watch;
static gpointer watch_opaque;
static gulong slept_us;
static jmp_buf at_exit;
static bool may_exit;

EXPORTED GThread *__wrap_g_thread_try_new(const gchar *name, GThreadFunc func, gpointer data, GError **error);
EXPORTED void __wrap_g_usleep(gulong us);
void __wrap__exit(int status);
void __real__exit(int status);

GThread *__wrap_g_thread_try_new(const gchar *name, GThreadFunc func, gpointer data, GError **error)
{
    (void)name;
    (void)error;
    called("watch");
    watch = func;
    watch_opaque = data;
    return NULL;
}
void __wrap_g_usleep(gulong us)
{
    slept_us = us;
}
void __wrap__exit(int status)
{
    if (may_exit)
        longjmp(at_exit, status);
    __real__exit(status);
}

/* ---- a VM's order, taken ---- */

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&rdma_config, 0, sizeof rdma_config);
    fails = NULL;
    with_disks = no_rdma = durable_applier = false;
    listen_fd = -1;
    assert_int_equal(mailbox_open(&r.box), 0);
    r.config.role = SESSION_PRIMARY;
    r.config.vm_name = (char *)"web";
    r.config.state_dir = (char *)"/var/lib/web";
    r.config.listen_address = (char *)"192.0.2.1";
    r.config.peer_host = g_strdup("192.0.2.2");
    r.config.peer_data_port = 81;
    r.config.peer_udp_port = 82;
    r.config.ram_bytes = 256u << 20;
    r.config.term = 6;
    r.config.silence_ms = 100;
    r.config.heartbeat_ms = 10;
    r.config.epoch_ms = 21;
    r.config.deadline_ms = 22;
    r.config.nice = -5;
    memset(r.config.token, 0x5a, sizeof r.config.token);
    r.config.sealed = true;
    memset(r.config.secret, 0x5b, sizeof r.config.secret);
    blocks[0].max_len = 512 * HV_PAGE_LEN;
    blocks[1].max_len = 4 * HV_PAGE_LEN;
    fake_core_open(&core, &r.sink);
    calls_begin();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    parts_close(&r);
    g_free(r.config.peer_host);
    calls_end();
    return 0;
}

/* The guest's machine is ready. */
static void configure_and_begin(void)
{
    parts_configured(&r);
    g_string_truncate(calls, 0);
    r.guest_observer->ready(&r);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

#define PIPELINE                                                                                             \
    "term file /var/lib/web/term; staging 1542; image; capture; sender; applier; disk sync; "                \
    "sync to capture; sender to capture; capture stop; disk answer; arbiter; heartbeats; "

static void assert_given_up(const char *words)
{
    assert_non_null(sink_last_error(&r.sink));
    assert_non_null(strstr(sink_last_error(&r.sink), words));
    assert_int_equal(core.ngiven_up, 1);
    assert_int_equal(core.nevents, 0);
    assert_false(r.session_begun);
}

static void test_what_needs_no_hypervisor_comes_first(void **state)
{
    (void)state;
    parts_configured(&r);
    assert_calls("gate; input log; disks; guest; ");
    assert_non_null(r.guest_observer);
    assert_in_range(r.since_us, 1, g_get_monotonic_time());
    assert_int_equal(core.ngiven_up, 0);
    assert_int_equal(core.nevents, 0);
}

static void test_rdma_that_must_be_is_looked_for_before_a_guest_is_started(void **state)
{
    (void)state;
    r.config.transport = TRANSPORT_RDMA;
    parts_configured(&r);
    assert_calls("gate; input log; check 192.0.2.2 192.0.2.1 321 MiB; disks; guest; ");
    tear_down(state);
    set_up(state);
    r.config.transport = TRANSPORT_RDMA;
    r.config.role = SESSION_SECONDARY; /* it is dialled */
    parts_configured(&r);
    assert_calls("gate; input log; check - 192.0.2.1 321 MiB; disks; guest; ");
}

static void test_a_guest_that_cannot_be_started_ends_the_process(void **state)
{
    static const char *const parts[][2] = {{"check", "gate; input log; check 192.0.2.2 192.0.2.1 321 MiB; "},
                                           {"disks", "gate; input log; disks; "},
                                           {"guest", "gate; input log; disks; guest; "}};
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        fails = parts[i][0];
        r.config.transport = i == 0 ? TRANSPORT_RDMA : TRANSPORT_AUTO;
        parts_configured(&r);
        assert_calls(parts[i][1]);
        assert_given_up(fails);
        tear_down(state);
        set_up(state);
    }
}

static void test_a_primary_dials_by_rdma_first(void **state)
{
    (void)state;
    configure_and_begin();
    assert_calls(PIPELINE
                 "rdma 0; tcp; link rdma tcp; sealed link; link to 192.0.2.2 81; paths to 192.0.2.2 82; "
                 "listening 0 4712; nice -5; ");
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_START);
    assert_true(r.session_begun);
    assert_int_equal(r.data_port, 0);
    assert_int_equal(r.udp_port, UDP_PORT);
    assert_string_equal(rdma_config.peer_host, "192.0.2.2");
    assert_string_equal(rdma_config.listen_address, "192.0.2.1");
    assert_ptr_equal(rdma_config.staging, r.staging);
    assert_memory_equal(rdma_config.token, r.config.token, sizeof rdma_config.token);
    assert_true(rdma_config.stall_ms > 0);
}

static void test_a_standby_listens_at_one_port_by_both(void **state)
{
    (void)state;
    r.config.role = SESSION_SECONDARY;
    g_clear_pointer(&r.config.peer_host, g_free);
    configure_and_begin();
    assert_calls("listen 192.0.2.1; " PIPELINE
                 "rdma 4711; tcp listens; link rdma tcp; sealed link; listening 4711 4712; nice -5; ");
    assert_int_equal(r.data_port, DATA_PORT);
    assert_true(is_open(listen_fd));
    close(listen_fd); /* the endpoint's here */
}

static void test_the_capture_has_what_it_was_ordered_with(void **state)
{
    (void)state;
    with_disks = true;
    r.config.tracker = HV_TRACKER_UFFD;
    configure_and_begin();
    assert_ptr_equal(capture_config.hv, r.hv);
    assert_ptr_equal(capture_config.staging, r.staging);
    assert_ptr_equal(capture_config.gate, r.gate);
    assert_ptr_equal(capture_config.input_log, r.input_log);
    assert_ptr_equal(capture_config.disks, r.disks.set);
    assert_ptr_equal(capture_config.control, &r.box);
    assert_int_equal(capture_config.epoch_ms, 21);
    assert_int_equal(capture_config.deadline_ms, 22);
    assert_int_equal(capture_config.tracker, HV_TRACKER_UFFD);
    assert_non_null(strstr(calls->str, "staging 1742; ")); /* and room for the disks' section */
}

/* ---- transports ---- */

static void test_tcp_alone_asks_for_no_rdma(void **state)
{
    (void)state;
    r.config.transport = TRANSPORT_TCP;
    configure_and_begin();
    assert_null(strstr(calls->str, "rdma"));
    assert_non_null(strstr(calls->str, "tcp; link tcp; "));
    assert_null(r.transport_why);
}

/* Its number is reserved, and nobody may come in by it. */
static void test_rdma_alone_listens_at_no_tcp_port(void **state)
{
    (void)state;
    r.config.transport = TRANSPORT_RDMA;
    r.config.role = SESSION_SECONDARY;
    configure_and_begin();
    assert_non_null(strstr(calls->str, "rdma 4711; link rdma; "));
    assert_false(is_open(listen_fd));
}

static void test_a_host_without_rdma_says_why_and_takes_tcp(void **state)
{
    (void)state;
    no_rdma = true;
    configure_and_begin();
    assert_non_null(strstr(calls->str, "rdma 0; tcp; link tcp; "));
    assert_string_equal(r.transport_why, "no device");
    assert_int_equal(core.ngiven_up, 0);
}

static void test_rdma_that_must_be_and_is_not_ends_the_process(void **state)
{
    (void)state;
    r.config.transport = TRANSPORT_RDMA;
    r.config.role = SESSION_SECONDARY;
    no_rdma = true;
    configure_and_begin();
    assert_given_up("no device");
    assert_false(is_open(listen_fd));
}

/* ---- what cannot be made ---- */

static void test_whatever_cannot_be_made_is_told_and_closes_the_port(void **state)
{
    static const char *const parts[] = {"listen",      "term file", "staging",   "image",
                                        "capture",     "sender",    "applier",   "disk sync",
                                        "disk answer", "arbiter",   "heartbeats"};
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        r.config.role = SESSION_SECONDARY;
        fails = parts[i];
        configure_and_begin();
        assert_non_null(strstr(calls->str, fails));
        assert_given_up("VM web: ");
        if (i > 0)
            assert_false(is_open(listen_fd));
        assert_null(strstr(calls->str, "link"));
        tear_down(state);
        set_up(state);
    }
}

/* The port is the endpoint's by then. */
static void test_a_link_that_cannot_be_made_ends_the_process(void **state)
{
    (void)state;
    fails = "link";
    r.config.role = SESSION_SECONDARY;
    configure_and_begin();
    assert_given_up("no link");
    assert_true(is_open(listen_fd));
    close(listen_fd);
}

static void test_few_descriptors_are_told_as_such(void **state)
{
    (void)state;
    fails = "sender";
    configure_and_begin();
    assert_given_up(g_strerror(EMFILE));
    assert_non_null(strstr(sink_last_error(&r.sink), "LimitNOFILE="));
}

/* ---- the session ---- */

static void test_the_session_is_as_it_was_ordered(void **state)
{
    const struct session_config *config = &r.session.config;
    (void)state;
    configure_and_begin();
    uint64_t run = config->run;
    assert_int_equal(config->role, SESSION_PRIMARY);
    assert_int_equal(r.session.term, 6);
    assert_int_not_equal(run, 0);
    assert_int_equal(config->on_peer_loss, SESSION_ON_PEER_LOSS_CONTINUE);
    assert_int_equal(config->silence_ms, 100);
    assert_int_equal(config->heartbeat_ms, 10);
    assert_in_range(config->query_base, g_get_real_time() - 60 * G_USEC_PER_SEC, g_get_real_time());
    assert_false(config->other_paths);
    assert_true(config->keeps_terms);
    assert_int_equal(config->used_term, 14);
    assert_false(config->disks);
    assert_false(config->durable_acks);
    assert_false(config->untried);
    tear_down(state);
    set_up(state);
    configure_and_begin();
    assert_int_not_equal(config->run, run); /* another process's */
}

static void test_a_standbys_session_waits_for_its_trial_and_its_disks(void **state)
{
    static char *trial[] = {(char *)"qemu", NULL};
    const struct session_config *config = &r.session.config;
    (void)state;
    with_disks = true;
    r.config.role = SESSION_SECONDARY;
    r.config.on_peer_loss = SESSION_ON_PEER_LOSS_HOLD;
    r.config.nheartbeat_paths = 1;
    r.config.trial_argv = trial;
    r.config.durable_acks = true;
    configure_and_begin();
    close(listen_fd);
    assert_int_equal(config->role, SESSION_SECONDARY);
    assert_int_equal(config->on_peer_loss, SESSION_ON_PEER_LOSS_HOLD);
    assert_true(config->other_paths);
    assert_true(config->disks);
    assert_true(config->durable_acks);
    assert_true(durable_applier);
    assert_true(config->untried);
    assert_int_equal(config->ack_timeout_ms, 15000);
}

/* The other host's disks count, not the VM's wish. */
static void test_acks_of_a_vm_without_disks_are_never_durable(void **state)
{
    (void)state;
    r.config.durable_acks = true;
    configure_and_begin();
    assert_false(r.session.config.durable_acks);
    assert_false(durable_applier);
}

/* ---- the peer ---- */

static void test_a_peer_that_moves_before_there_is_a_link_is_remembered(void **state)
{
    (void)state;
    parts_configured(&r);
    g_string_truncate(calls, 0);
    parts_peer_moved(&r, "192.0.2.9", 91, 92);
    assert_calls("");
    r.guest_observer->ready(&r);
    assert_non_null(strstr(calls->str, "link to 192.0.2.9 91; paths to 192.0.2.9 92; "));
}

static void test_a_peer_that_moves_is_dialled_there(void **state)
{
    (void)state;
    configure_and_begin();
    g_string_truncate(calls, 0);
    parts_peer_moved(&r, "192.0.2.9", 65535, 92);
    assert_calls("link to 192.0.2.9 65535; paths to 192.0.2.9 92; ");
    assert_string_equal(r.config.peer_host, "192.0.2.9");
    parts_peer_moved(&r, "192.0.2.9", 0, 92); /* it dials */
    assert_calls("paths to 192.0.2.9 92; ");
    parts_peer_moved(&r, "192.0.2.9", 91, 0);
    assert_calls("link to 192.0.2.9 91; ");
}

/* ---- the secret ---- */

static bool is_wiped(const uint8_t *secret)
{
    for (unsigned i = 0; i < SEAL_SECRET_LEN; i++)
        if (secret[i] != 0)
            return false;
    return true;
}

static void test_the_parts_have_the_secret_and_nobody_else_keeps_it(void **state)
{
    (void)state;
    configure_and_begin();
    assert_true(link_security.sealed);
    assert_int_equal(link_security.secret[0], 0x5b);
    assert_true(rdma_config.sealed);
    assert_int_equal(rdma_config.secret[SEAL_SECRET_LEN - 1], 0x5b);
    assert_true(is_wiped(r.config.secret));
}

static void test_a_link_that_need_not_be_sealed_is_not(void **state)
{
    (void)state;
    r.config.sealed = false;
    configure_and_begin();
    assert_false(link_security.sealed);
    assert_false(rdma_config.sealed);
    g_string_truncate(calls, 0);
    parts_new_secret(&r, (const uint8_t[SEAL_SECRET_LEN]){0});
    assert_calls("");
}

static void test_a_new_secret_reaches_all_that_use_it(void **state)
{
    const uint8_t secret[SEAL_SECRET_LEN] = {77, 1};
    (void)state;
    configure_and_begin();
    g_string_truncate(calls, 0);
    parts_new_secret(&r, secret);
    assert_calls("sealed link; secret 77 to paths; secret 77 to rdma; ");
    assert_memory_equal(link_security.secret, secret, sizeof secret);
    assert_true(is_wiped(r.config.secret));
}

static void test_a_new_secret_before_there_is_a_link_is_remembered(void **state)
{
    const uint8_t secret[SEAL_SECRET_LEN] = {77, 1};
    (void)state;
    parts_configured(&r);
    parts_new_secret(&r, secret);
    r.guest_observer->ready(&r);
    assert_memory_equal(link_security.secret, secret, sizeof secret);
}

/* ---- what the machine tells, and the frames ---- */

static void test_what_the_machine_tells_goes_to_the_parts_that_it_concerns(void **state)
{
    const struct machine_disk_error error = {.disk = "vda", .reason = "", .stops = true};
    g_autofree char *run_event = g_strdup_printf("run event %d guest-shutdown; ", RUN_EVENT_SHUTDOWN);
    (void)state;
    parts_configured(&r);
    g_string_truncate(calls, 0);
    r.guest_observer->run_event(&r, RUN_EVENT_SHUTDOWN, "guest-shutdown");
    assert_calls(run_event);
    r.guest_observer->was_reset(&r);
    assert_calls("reset; ");
    r.guest_observer->disk_error(&r, &error);
    assert_calls("io error vda; ");
    r.guest_observer->resumed(&r);
    assert_calls("io resumed; ");
}

static void take_over(enum machine_state state, const char *words, const char *expected)
{
    const struct machine_takeover result = {.ok = true, .state = state, .words = words};
    g_autofree char *all = g_strdup_printf("%staken over %d; ", expected, state);
    r.guest_observer->taken_over(&r, &result);
    assert_calls(all);
}

static void test_a_guest_that_stood_still_there_does_so_here(void **state)
{
    (void)state;
    parts_configured(&r);
    g_string_truncate(calls, 0);
    take_over(MACHINE_RUNS, "running", "");
    take_over(MACHINE_DISK_ERROR, "io-error", "retry; ");
    assert_null(sink_last_error(&r.sink));
    take_over(MACHINE_PAUSED, "paused", "");
    assert_non_null(strstr(sink_last_error(&r.sink), "(QEMU's run state: paused)"));
}

static void test_the_disks_resume_the_guest_where_it_is_and_as_long_as_it_is(void **state)
{
    (void)state;
    parts_configured(&r);
    g_string_truncate(calls, 0);
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.disks.resume(r.disks.opaque);
    assert_calls("resume; ");
    r.quitting = true; /* it is fenced, for one */
    r.disks.resume(r.disks.opaque);
    r.quitting = false;
    r.session.state = SESSION_STANDBY;
    r.disks.resume(r.disks.opaque);
    assert_calls("");
}

static void test_the_disks_get_the_parts_once_there_are_all(void **state)
{
    (void)state;
    with_disks = true;
    parts_configured(&r);
    assert_null(r.disks.parts.capture);
    r.guest_observer->ready(&r);
    assert_ptr_equal(r.disks.parts.capture, r.capture);
    assert_ptr_equal(r.disks.parts.applier, r.applier);
    assert_ptr_equal(r.disks.parts.sync, r.disk_sync);
    assert_ptr_equal(r.disks.parts.answer, r.disk_answer);
}

static void test_a_frame_that_the_guest_received_is_copied_to_the_peer(void **state)
{
    const uint8_t frame[100] = {1};
    (void)state;
    parts_configured(&r);
    r.session.term = 6;
    send_frame(&r, 2, 9, frame, sizeof frame);
    assert_int_equal(core.nmessages, 1);
    assert_int_equal(core.messages[0].type, MESSAGE_FRAMES);
    assert_int_equal(core.messages[0].term, 6);
    assert_int_equal(core.messages[0].epoch, 9);
    assert_int_equal(core.messages[0].arg, 2);
    assert_int_equal(core.messages[0].len, sizeof frame);
    send_frame(&r, 2, 9, frame, TRANSPORT_MAX_PAYLOAD + 1);
    assert_int_equal(core.nmessages, 1); /* no message has room for it */
}

/* ---- the end ---- */

static unsigned nfreed;

static void free_transport(struct transport *transport)
{
    nfreed++;
    g_free(transport);
}

static struct connection *new_connection(void)
{
    static const struct transport_ops ops = {.free = free_transport};
    struct transport *transport = g_new0(struct transport, 1);
    transport->ops = &ops;
    return connection_new(transport, 1);
}

static gboolean never(gpointer opaque)
{
    (void)opaque;
    fail();
    return G_SOURCE_REMOVE;
}

static void test_a_part_is_closed_when_no_other_needs_it(void **state)
{
    struct note *note = note_new(NOTE_LINK_UP, NULL, 0);
    (void)state;
    with_disks = true;
    configure_and_begin();
    g_string_truncate(calls, 0);
    nfreed = 0;
    note->connection = new_connection(); /* nobody has taken it out */
    mailbox_post(&r.box, &note->letter);
    r.connection = new_connection();
    r.trial = SOMETHING(with_disks);
    r.channel = SOMETHING(with_disks);
    r.split = g_strdup("both ran it");
    r.guest_event = g_strdup("it was reset");
    r.trial_text = g_strdup("it was tried");
    r.tick_source = g_timeout_add(0, never, NULL);
    r.disks.io_retry = g_timeout_add(0, never, NULL);
    parts_close(&r);
    assert_calls("watch; ~capture stop; ~trial; ~capture; ~disk sync; ~disk answer; ~sender; ~link; "
                 "~applier; ~paths; ~guest; ~disks; ~term file; ~gate; ~input log; ~image; ~tcp; ~rdma; "
                 "~staging; ~arbiter; ~channel; ");
    assert_int_equal(nfreed, 2);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    g_free(r.config.peer_host);
    calls_end();
    set_up(state);
}

static void test_a_process_without_an_order_has_little_to_close(void **state)
{
    (void)state;
    parts_close(&r);
    assert_calls("watch; ~capture stop; ");
    g_free(r.config.peer_host);
    calls_end();
    set_up(state);
}

static void test_storage_that_hangs_holds_the_end_up_for_a_minute(void **state)
{
    (void)state;
    parts_close(&r);
    assert_ptr_equal(watch_opaque, &r);
    slept_us = 0;
    may_exit = true;
    int status = setjmp(at_exit);
    if (status == 0)
        watch(watch_opaque);
    may_exit = false;
    assert_int_equal(status, 1);
    assert_int_equal(slept_us, 60 * G_USEC_PER_SEC);
    g_free(r.config.peer_host);
    calls_end();
    set_up(state);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_needs_no_hypervisor_comes_first),
        TEST(test_rdma_that_must_be_is_looked_for_before_a_guest_is_started),
        TEST(test_a_guest_that_cannot_be_started_ends_the_process),
        TEST(test_a_primary_dials_by_rdma_first),
        TEST(test_a_standby_listens_at_one_port_by_both),
        TEST(test_the_capture_has_what_it_was_ordered_with),
        TEST(test_tcp_alone_asks_for_no_rdma),
        TEST(test_rdma_alone_listens_at_no_tcp_port),
        TEST(test_a_host_without_rdma_says_why_and_takes_tcp),
        TEST(test_rdma_that_must_be_and_is_not_ends_the_process),
        TEST(test_whatever_cannot_be_made_is_told_and_closes_the_port),
        TEST(test_a_link_that_cannot_be_made_ends_the_process),
        TEST(test_few_descriptors_are_told_as_such),
        TEST(test_the_session_is_as_it_was_ordered),
        TEST(test_a_standbys_session_waits_for_its_trial_and_its_disks),
        TEST(test_acks_of_a_vm_without_disks_are_never_durable),
        TEST(test_a_peer_that_moves_before_there_is_a_link_is_remembered),
        TEST(test_a_peer_that_moves_is_dialled_there),
        TEST(test_the_parts_have_the_secret_and_nobody_else_keeps_it),
        TEST(test_a_link_that_need_not_be_sealed_is_not),
        TEST(test_a_new_secret_reaches_all_that_use_it),
        TEST(test_a_new_secret_before_there_is_a_link_is_remembered),
        TEST(test_what_the_machine_tells_goes_to_the_parts_that_it_concerns),
        TEST(test_a_guest_that_stood_still_there_does_so_here),
        TEST(test_the_disks_resume_the_guest_where_it_is_and_as_long_as_it_is),
        TEST(test_the_disks_get_the_parts_once_there_are_all),
        TEST(test_a_frame_that_the_guest_received_is_copied_to_the_peer),
        TEST(test_a_part_is_closed_when_no_other_needs_it),
        TEST(test_a_process_without_an_order_has_little_to_close),
        TEST(test_storage_that_hangs_holds_the_end_up_for_a_minute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
