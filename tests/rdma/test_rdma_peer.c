/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A peer that dies half-way or means harm, over a real device: it speaks verbs itself, knows the token where
 * it should, and writes what it likes. Whatever it does, the receiving side ends the connection and has
 * staged nothing; and the next, honest connection works. Environment: see test_transport_rdma.c.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>

#include "proto/crc32c.h"
#include "proto/rdma_wire.h"
#include "replicator/transport/rdma/rdma.h"
#include "tests/rdma/ends.h"

#define TOKEN     7
#define NPAGES    5u
#define NDATA     3u
#define DELTA_LEN 4u /* a delta of no records: the total length alone */
#define META_LEN  (RDMA_WIRE_COMMIT_LEN + WIRE_EPOCH_LEN + 8 * NPAGES + DELTA_LEN)
#define BUFFER    4096u

/* What the hostile side sends; a test changes it as it likes. */
struct forged {
    struct wire_epoch epoch;
    uint64_t index[NPAGES];
    uint8_t delta[DELTA_LEN];
    struct rdma_wire_commit record;
    uint32_t immediate; /* page of the ring */
    bool crc_is_right;
};

struct raw {
    struct rdma_cm_id *id;
    struct ibv_mr *mr;
    uint8_t *buffer; /* receives in its first half, sends in its second */
    struct rdma_wire_grant grant;
};

/* Both sides: an endpoint that listens, and what it made of the raw peer. */
struct scene {
    struct staging *staging;
    struct endpoint *endpoint;
    struct transport *transport;
    uint16_t port;
    struct raw raw;
    struct blocked receiving;
    pthread_t receiver;
};

/* 0 or -errno. The private data as given. */
static int raw_connect(struct raw *raw, uint16_t port, const void *private, uint8_t private_len)
{
    struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP}, *found = NULL;
    struct ibv_qp_init_attr attr = {
        .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1}, .sq_sig_all = 1};
    struct rdma_conn_param parameters = {.private_data = private,
                                         .private_data_len = private_len,
                                         .responder_resources = 1,
                                         .initiator_depth = 1,
                                         .retry_count = 7,
                                         .rnr_retry_count = 6};
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    *raw = (struct raw){0};
    assert_int_equal(rdma_getaddrinfo(dial_address(), service, &hints, &found), 0);
    assert_int_equal(rdma_create_ep(&raw->id, found, NULL, &attr), 0);
    rdma_freeaddrinfo(found);
    raw->buffer = calloc(2, BUFFER);
    assert_non_null(raw->buffer);
    raw->mr = rdma_reg_msgs(raw->id, raw->buffer, 2 * BUFFER);
    assert_non_null(raw->mr);
    assert_int_equal(rdma_post_recv(raw->id, NULL, raw->buffer, BUFFER, raw->mr), 0);
    return rdma_connect(raw->id, &parameters) == 0 ? 0 : -errno;
}

/* Goes without a word to librdmacm, which would wait for the other side; the kernel says goodbye. */
static void raw_close(struct raw *raw)
{
    if (!raw->id)
        return;
    if (raw->mr)
        rdma_dereg_mr(raw->mr);
    rdma_destroy_ep(raw->id);
    free(raw->buffer);
    *raw = (struct raw){0};
}

static void open_listener(struct scene *scene)
{
    *scene = (struct scene){.staging = new_staging(CAPACITY), .port = new_port()};
    scene->endpoint = make_endpoint(scene->staging, PATIENT_MS, listen_address(), scene->port, TOKEN);
}

static void close_scene(struct scene *scene)
{
    raw_close(&scene->raw);
    if (scene->transport)
        scene->transport->ops->free(scene->transport);
    endpoint_free(scene->endpoint);
    staging_close(scene->staging);
}

/* Connected, with the right token. */
static void open_scene(struct scene *scene)
{
    uint8_t token[WIRE_TOKEN_LEN], private[RDMA_WIRE_PRIVATE_LEN];
    struct accepting accepting;
    pthread_t thread;
    open_listener(scene);
    memset(token, TOKEN, sizeof token);
    rdma_wire_private_encode(token, private);
    accepting = (struct accepting){.endpoint = scene->endpoint};
    assert_int_equal(pthread_create(&thread, NULL, accept_one, &accepting), 0);
    assert_int_equal(raw_connect(&scene->raw, scene->port, private, sizeof private), 0);
    pthread_join(thread, NULL);
    assert_int_equal(accepting.status, 0);
    scene->transport = accepting.transport;
}

static void start_receiving(struct scene *scene, struct staging *staging)
{
    scene->receiving = (struct blocked){.transport = scene->transport, .staging = staging};
    assert_int_equal(pthread_create(&scene->receiver, NULL, block, &scene->receiving), 0);
}

/* The receiving side starts to receive; the raw peer reads its grant. */
static void begin(struct scene *scene)
{
    struct ibv_wc wc;
    start_receiving(scene, scene->staging);
    assert_int_equal(rdma_get_recv_comp(scene->raw.id, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.byte_len, RDMA_WIRE_PREFIX_LEN + RDMA_WIRE_GRANT_LEN);
    assert_int_equal(rdma_wire_grant_decode(&scene->raw.grant, scene->raw.buffer + RDMA_WIRE_PREFIX_LEN,
                                            RDMA_WIRE_GRANT_LEN),
                     0);
    assert_int_equal(rdma_post_recv(scene->raw.id, NULL, scene->raw.buffer, BUFFER, scene->raw.mr), 0);
}

/* What the receiver made of it. */
static int received(struct scene *scene)
{
    pthread_join(scene->receiver, NULL);
    return scene->receiving.status;
}

/* It refused what came, and nothing of that is left. */
static void end_refused(struct scene *scene, const char *what)
{
    int status = received(scene);
    if (status != -EPROTO)
        fail_msg("%s: %d", what, status);
    assert_empty(scene->staging);
    close_scene(scene);
}

static enum ibv_wc_status raw_await_sent(struct raw *raw)
{
    struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
    assert_int_equal(rdma_get_send_comp(raw->id, &wc), 1);
    return wc.status;
}

static enum ibv_wc_status raw_write(struct raw *raw, const void *bytes, size_t len, uint64_t address,
                                    uint32_t rkey)
{
    uint8_t *at = raw->buffer + BUFFER;
    memcpy(at, bytes, len);
    assert_int_equal(rdma_post_write(raw->id, NULL, at, len, raw->mr, 0, address, rkey), 0);
    return raw_await_sent(raw);
}

static enum ibv_wc_status raw_send(struct raw *raw, const void *bytes, size_t len)
{
    uint8_t *at = raw->buffer + BUFFER;
    memcpy(at, bytes, len);
    assert_int_equal(rdma_post_send(raw->id, NULL, at, len, raw->mr, 0), 0);
    return raw_await_sent(raw);
}

/* A write of nothing, which needs no key, with an immediate: what was written before counts. */
static void raw_commit(struct raw *raw, uint32_t immediate)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
                             .send_flags = IBV_SEND_SIGNALED,
                             .imm_data = htonl(immediate)},
                       *bad;
    assert_int_equal(ibv_post_send(raw->id->qp, &wr, &bad), 0);
    raw_await_sent(raw); /* what became of it is the receiver's to say */
}

/* An epoch that would be taken: five pages, two of them zero. */
static struct forged good_forgery(void)
{
    struct forged forged = {.epoch = {.kind = STAGED_EPOCH,
                                      .npages = NPAGES,
                                      .ndata = NDATA,
                                      .nblocks = 1,
                                      .delta_len = DELTA_LEN},
                            .crc_is_right = true};
    for (unsigned i = 0; i < NPAGES; i++)
        forged.index[i] = page_ref_make(0, i, i >= NDATA ? PAGE_REF_ZERO : 0);
    forged.record =
        (struct rdma_wire_commit){.header = {.type = MESSAGE_EPOCH,
                                             .term = 1,
                                             .epoch = 1,
                                             .payload_len = wire_epoch_payload_len(&forged.epoch)},
                                  .commit = {.term = 1, .epoch = 1, .npages = NPAGES, .ndata = NDATA}};
    return forged;
}

/* Commit record, counts, index, device state; then pages; no immediate. */
static void raw_write_epoch(struct raw *raw, struct forged *forged)
{
    uint8_t meta[META_LEN], page[STAGING_PAGE_LEN], *parts = meta + RDMA_WIRE_COMMIT_LEN;
    wire_epoch_encode(&forged->epoch, parts);
    memcpy(parts + WIRE_EPOCH_LEN, forged->index, sizeof forged->index);
    memcpy(parts + WIRE_EPOCH_LEN + sizeof forged->index, forged->delta, DELTA_LEN);
    if (forged->crc_is_right)
        forged->record.commit.crc = crc32c(0, parts, META_LEN - RDMA_WIRE_COMMIT_LEN);
    rdma_wire_commit_encode(&forged->record, meta);
    assert_int_equal(raw_write(raw, meta, sizeof meta, raw->grant.ring_address, raw->grant.ring_rkey),
                     IBV_WC_SUCCESS);
    for (unsigned i = 0; i < NDATA; i++) {
        memset(page, (int)(0x40 + i), sizeof page);
        assert_int_equal(raw_write(raw, page, sizeof page,
                                   raw->grant.ring_address + (1 + i) * STAGING_PAGE_LEN,
                                   raw->grant.ring_rkey),
                         IBV_WC_SUCCESS);
    }
}

/* An honest peer after the other: an epoch arrives, and it is the honest one's. */
static void assert_honest_peer_is_served(struct scene *scene)
{
    struct staging *from = new_staging(CAPACITY);
    struct endpoint *dialler = make_endpoint(from, PATIENT_MS, NULL, 0, TOKEN);
    struct accepting accepting = {.endpoint = scene->endpoint};
    struct transport *transport = NULL;
    struct transport_received out;
    char service[8], *why = NULL;
    pthread_t thread;
    snprintf(service, sizeof service, "%u", scene->port);
    assert_int_equal(pthread_create(&thread, NULL, accept_one, &accepting), 0);
    assert_int_equal(dialler->ops->dial(dialler, dial_address(), service, PATIENT_MS, &transport, &why), 0);
    pthread_join(thread, NULL);
    assert_int_equal(accepting.status, 0);
    struct blocked acks = {.transport = transport};
    struct blocked sending = {.transport = transport, .staging = from, .epoch = stage(from, 1, CAPACITY / 2)};
    pthread_t listening, feeding;
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    assert_int_equal(pthread_create(&feeding, NULL, block, &sending), 0);
    assert_int_equal(accepting.transport->ops->receive(accepting.transport, scene->staging, &out), 0);
    pthread_join(feeding, NULL);
    assert_int_equal(sending.status, 0);
    assert_non_null(out.epoch);
    assert_same(from, sending.epoch, scene->staging, out.epoch);
    staging_free(scene->staging, out.epoch);
    transport->ops->shutdown(transport);
    pthread_join(listening, NULL);
    transport->ops->free(transport);
    accepting.transport->ops->free(accepting.transport);
    endpoint_free(dialler);
    staging_close(from);
}

static void test_a_forged_epoch_without_fault_is_taken(void **state)
{
    (void)state;
    struct scene scene;
    struct forged forged = good_forgery();
    open_scene(&scene);
    begin(&scene);
    raw_write_epoch(&scene.raw, &forged);
    raw_commit(&scene.raw, forged.immediate);
    assert_int_equal(received(&scene), 0); /* so the faults below are what is refused */
    assert_int_equal(staging_free_epochs(scene.staging), STAGING_EPOCHS - 1);
    close_scene(&scene);
}

static void test_an_epoch_without_its_commit_is_never_there(void **state)
{
    (void)state;
    struct scene scene;
    struct forged forged = good_forgery();
    open_scene(&scene);
    begin(&scene);
    raw_write_epoch(&scene.raw, &forged);
    /* All its bytes are here; and then the peer is gone. */
    assert_int_equal(staging_slot(scene.staging, NDATA)[0], 0x40 + NDATA - 1);
    raw_close(&scene.raw);
    assert_int_equal(received(&scene), -ENOTCONN);
    assert_empty(scene.staging);
    assert_honest_peer_is_served(&scene);
    close_scene(&scene);
}

/* ---- faults of a committed epoch ---- */

static void another_turn(struct forged *forged)
{
    forged->record.sequence = 1;
}
static void page_beyond_the_ring(struct forged *forged)
{
    forged->immediate = CAPACITY;
}
static void page_far_beyond_the_ring(struct forged *forged)
{
    forged->immediate = 4000000000u;
}
static void a_place_where_there_is_nothing(struct forged *forged)
{
    forged->immediate = CAPACITY / 2;
}
static void wrong_checksum(struct forged *forged)
{
    forged->crc_is_right = false;
    forged->record.commit.crc = 1;
}
static void no_epoch_at_all(struct forged *forged)
{
    forged->record.header.type = MESSAGE_FRAMES;
}
static void other_epoch_in_the_commit(struct forged *forged)
{
    forged->record.commit.epoch++;
}
static void other_term_in_the_commit(struct forged *forged)
{
    forged->record.commit.term++;
}
static void more_pages_than_the_ring_has(struct forged *forged)
{
    forged->epoch.npages = forged->record.commit.npages = CAPACITY + 1;
    forged->record.header.payload_len = wire_epoch_payload_len(&forged->epoch);
}
static void more_data_than_the_index_says(struct forged *forged)
{
    forged->epoch.ndata = forged->record.commit.ndata = NDATA + 1;
    forged->record.header.payload_len = wire_epoch_payload_len(&forged->epoch);
}
static void less_data_than_the_index_says(struct forged *forged)
{
    forged->epoch.ndata = forged->record.commit.ndata = NDATA - 1;
    forged->record.header.payload_len = wire_epoch_payload_len(&forged->epoch);
}
static void a_disk_section_larger_than_the_ring(struct forged *forged)
{
    forged->epoch.disk_len = (uint64_t)CAPACITY * STAGING_PAGE_LEN;
    forged->record.header.payload_len = wire_epoch_payload_len(&forged->epoch);
}
static void device_state_beyond_all_bounds(struct forged *forged)
{
    forged->epoch.delta_len = 1ull << 40;
    forged->record.header.payload_len = wire_epoch_payload_len(&forged->epoch);
}
static void device_state_larger_than_its_place(struct forged *forged)
{
    memset(forged->delta, 0xff, sizeof forged->delta);
}
static void another_length(struct forged *forged)
{
    forged->record.header.payload_len++;
}

static void test_a_committed_epoch_with_any_fault_ends_the_connection_and_leaves_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*spoil)(struct forged *forged);
    } faults[] = {
        {"another epoch's turn", another_turn},
        {"a first page beyond the ring", page_beyond_the_ring},
        {"a first page far beyond the ring", page_far_beyond_the_ring},
        {"a first page where nothing was written", a_place_where_there_is_nothing},
        {"a wrong checksum", wrong_checksum},
        {"a record that is no epoch's", no_epoch_at_all},
        {"another epoch in the commit", other_epoch_in_the_commit},
        {"another term in the commit", other_term_in_the_commit},
        {"more pages than the ring has", more_pages_than_the_ring_has},
        {"more data than the index says", more_data_than_the_index_says},
        {"less data than the index says", less_data_than_the_index_says},
        {"a disk section larger than the ring", a_disk_section_larger_than_the_ring},
        {"device state beyond all bounds", device_state_beyond_all_bounds},
        {"device state larger than its place", device_state_larger_than_its_place},
        {"another length", another_length},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct scene scene;
        struct forged forged = good_forgery();
        faults[i].spoil(&forged);
        open_scene(&scene);
        begin(&scene);
        raw_write_epoch(&scene.raw, &forged);
        raw_commit(&scene.raw, forged.immediate);
        end_refused(&scene, faults[i].name);
    }
}

/* Whole and right, and taken before: what is in a record is not what makes it the next. */
static void test_a_record_committed_again_is_refused(void **state)
{
    (void)state;
    struct scene scene;
    struct forged forged = good_forgery();
    open_scene(&scene);
    begin(&scene);
    raw_write_epoch(&scene.raw, &forged);
    raw_commit(&scene.raw, 0);
    assert_int_equal(received(&scene), 0);
    staging_free(scene.staging, scene.receiving.taken);
    assert_empty(scene.staging); /* so the same place would do for it again */
    start_receiving(&scene, scene.staging);
    raw_commit(&scene.raw, 0);
    end_refused(&scene, "a record committed again");
}

static void test_a_commit_before_anything_was_granted_is_refused(void **state)
{
    (void)state;
    struct scene scene;
    open_scene(&scene);
    /* The first message is awaited without staging: nothing is granted, and the peer cannot know where to
     * write. It sends an immediate all the same. */
    start_receiving(&scene, NULL);
    raw_commit(&scene.raw, 0);
    end_refused(&scene, "a commit before anything was granted");
}

static void test_writes_beyond_the_grant_are_refused_by_the_device(void **state)
{
    (void)state;
    uint8_t page[STAGING_PAGE_LEN] = {0};
    /* Behind the ring, before it, and into the ring by another key. */
    for (int i = 0; i < 3; i++) {
        struct scene scene;
        open_scene(&scene);
        begin(&scene);
        const struct rdma_wire_grant *grant = &scene.raw.grant;
        uint64_t end = grant->ring_address + (uint64_t)CAPACITY * STAGING_PAGE_LEN;
        uint64_t at = i == 0 ? end - 1 : i == 1 ? grant->ring_address - 8 : grant->ring_address;
        uint32_t key = i == 2 ? grant->ring_rkey ^ 0x100 : grant->ring_rkey;
        assert_int_equal(raw_write(&scene.raw, page, sizeof page, at, key), IBV_WC_REM_ACCESS_ERR);
        /* It costs the peer its connection. */
        assert_true(received(&scene) < 0);
        assert_empty(scene.staging);
        close_scene(&scene);
    }
}

/* ---- faults of messages ---- */

/* A SEND of some kind, with a header that may be wrong. Returns what receive made of it. */
static int receive_after(const struct rdma_wire_prefix *prefix, const void *body, size_t body_len, size_t cut)
{
    struct scene scene;
    uint8_t bytes[BUFFER];
    open_scene(&scene);
    begin(&scene);
    rdma_wire_prefix_encode(prefix, bytes);
    memcpy(bytes + RDMA_WIRE_PREFIX_LEN, body, body_len);
    raw_send(&scene.raw, bytes, RDMA_WIRE_PREFIX_LEN + body_len - cut);
    int status = received(&scene);
    assert_empty(scene.staging);
    close_scene(&scene);
    return status;
}

static void test_messages_with_any_fault_end_the_connection(void **state)
{
    (void)state;
    /* The grant took one receive buffer of the raw peer, so that much it may have given back. */
    struct rdma_wire_prefix first = {.kind = RDMA_WIRE_FIRST, .receives = 1}, prefix;
    uint8_t head[WIRE_HEADER_LEN + 4] = {0};
    struct wire_header header = {
        .type = MESSAGE_KEEPALIVE, .payload_len = 4, .payload_crc = crc32c(0, head + WIRE_HEADER_LEN, 4)};
    wire_header_encode(&header, head);
    assert_int_equal(receive_after(&first, head, sizeof head, 0), 0); /* this one is right */

    assert_int_equal(receive_after(&first, head, sizeof head, sizeof head + 1),
                     -EPROTO);                                              /* not even a prefix */
    assert_int_equal(receive_after(&first, head, sizeof head, 5), -EPROTO); /* half a header */
    prefix = (struct rdma_wire_prefix){.kind = 77};
    assert_int_equal(receive_after(&prefix, head, sizeof head, 0), -EPROTO);
    prefix = (struct rdma_wire_prefix){.kind = RDMA_WIRE_MORE}; /* the rest of nothing */
    assert_int_equal(receive_after(&prefix, head, sizeof head, 0), -EPROTO);
    prefix = (struct rdma_wire_prefix){.kind = RDMA_WIRE_CREDIT, .receives = 2}; /* more than it was sent */
    assert_int_equal(receive_after(&prefix, head, 0, 0), -EPROTO);
    header.payload_crc++;
    wire_header_encode(&header, head);
    assert_int_equal(receive_after(&first, head, sizeof head, 0), -EPROTO);
    header = (struct wire_header){.type = MESSAGE_FRAMES, .payload_len = TRANSPORT_MAX_PAYLOAD + 1};
    wire_header_encode(&header, head);
    assert_int_equal(receive_after(&first, head, sizeof head, 0), -EPROTO);
    header = (struct wire_header){.type = MESSAGE_EPOCH, .payload_len = 4};
    wire_header_encode(&header, head);
    assert_int_equal(receive_after(&first, head, sizeof head, 0), -EPROTO);
    /* A grant of an impossible ring. */
    struct rdma_wire_grant grant = {.capacity_pages = 1, .next_slot = 1};
    uint8_t bytes[RDMA_WIRE_GRANT_LEN];
    rdma_wire_grant_encode(&grant, bytes);
    prefix = (struct rdma_wire_prefix){.kind = RDMA_WIRE_GRANT};
    assert_int_equal(receive_after(&prefix, bytes, sizeof bytes, 0), -EPROTO);
}

/* ---- who may connect ---- */

static void test_private_data_that_is_not_right_gets_no_connection(void **state)
{
    (void)state;
    uint8_t token[WIRE_TOKEN_LEN], private[RDMA_WIRE_PRIVATE_LEN];
    memset(token, TOKEN, sizeof token);
    for (int i = 0; i < 4; i++) {
        struct scene scene;
        struct accepting accepting;
        pthread_t thread;
        uint8_t len = sizeof private;
        rdma_wire_private_encode(token, private);
        if (i == 0)
            len = 0; /* none */
        else if (i == 1)
        private[0] ^= 1;                       /* another program's */
        else if (i == 2) private[4] ^= 1;      /* another version's */
        else private[sizeof private - 1] ^= 1; /* another session's */
        open_listener(&scene);
        accepting = (struct accepting){.endpoint = scene.endpoint};
        assert_int_equal(pthread_create(&thread, NULL, accept_one, &accepting), 0);
        assert_int_equal(raw_connect(&scene.raw, scene.port, len ? private : NULL, len), -ECONNREFUSED);
        pthread_join(thread, NULL);
        assert_true(accepting.status < 0);
        assert_null(accepting.transport);
        raw_close(&scene.raw);
        assert_honest_peer_is_served(&scene);
        close_scene(&scene);
    }
}

int main(int argc, char **argv)
{
    if (!listen_address()) {
        fprintf(stderr, "SKIPPED: UNDERSTUDY_RDMA_LISTEN does not name the address of an RDMA device\n");
        return 77;
    }
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_forged_epoch_without_fault_is_taken),
        cmocka_unit_test(test_an_epoch_without_its_commit_is_never_there),
        cmocka_unit_test(test_a_committed_epoch_with_any_fault_ends_the_connection_and_leaves_nothing),
        cmocka_unit_test(test_a_record_committed_again_is_refused),
        cmocka_unit_test(test_a_commit_before_anything_was_granted_is_refused),
        cmocka_unit_test(test_writes_beyond_the_grant_are_refused_by_the_device),
        cmocka_unit_test(test_messages_with_any_fault_end_the_connection),
        cmocka_unit_test(test_private_data_that_is_not_right_gets_no_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
