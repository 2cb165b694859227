/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A message's memory is bounded by its length, before it is unpacked: measured with an allocator that counts,
 * on messages of the longest length that are made to cost the most.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/framing.h"
#include "proto/wire_cost.h"

#define HEAD_LEN 4u

/* ---- a heap that counts ---- */

struct heap {
    size_t held, most;
};

static void *heap_alloc(void *opaque, size_t len)
{
    struct heap *heap = opaque;
    size_t *block = malloc(sizeof(max_align_t) + len);
    assert_non_null(block);
    *block = len;
    heap->held += len;
    heap->most = MAX(heap->most, heap->held);
    return (char *)block + sizeof(max_align_t);
}

static void heap_free(void *opaque, void *pointer)
{
    struct heap *heap = opaque;
    if (!pointer)
        return;
    size_t *block = (size_t *)((char *)pointer - sizeof(max_align_t));
    heap->held -= *block;
    free(block);
}

/* What framing_parse says of this body, and the most memory that it took. */
static gssize parse(const guint8 *body, gsize len, size_t *most)
{
    struct heap heap = {0};
    ProtobufCAllocator memory = {.alloc = heap_alloc, .free = heap_free, .allocator_data = &heap};
    Understudy__Envelope *out = NULL;
    guint32 head = GUINT32_TO_LE((guint32)len);
    g_autofree guint8 *bytes = g_malloc(HEAD_LEN + len);
    memcpy(bytes, &head, HEAD_LEN);
    memcpy(bytes + HEAD_LEN, body, len);
    gssize used = framing_parse_in(bytes, HEAD_LEN + len, &out, &memory);
    if (out)
        understudy__envelope__free_unpacked(out, &memory);
    assert_int_equal(heap.held, 0);
    *most = heap.most;
    return used;
}

/* ---- hostile messages ---- */

static size_t put_number(guint8 *at, uint64_t number)
{
    size_t n = 0;
    for (; number >= 0x80; number >>= 7)
        at[n++] = (guint8)(number | 0x80);
    at[n++] = (guint8)number;
    return n;
}

/* Into field `outer` of an Envelope, and into `inner` of that (0: not further): `what` over and over. */
static guint8 *repeat(unsigned outer, unsigned inner, const guint8 *what, size_t what_len, gsize total,
                      gsize *len)
{
    guint8 *body = g_malloc(total);
    gsize content = (total - 16) / what_len * what_len, at = 0;
    guint8 head[8];
    size_t inner_len = 0;
    if (inner) {
        inner_len = put_number(head, inner << 3 | 2);
        inner_len += put_number(head + inner_len, content);
    }
    at += put_number(body + at, outer << 3 | 2);
    at += put_number(body + at, inner_len + content);
    memcpy(body + at, head, inner_len);
    at += inner_len;
    for (gsize i = 0; i < content; i += what_len)
        memcpy(body + at + i, what, what_len);
    *len = at + content;
    assert_true(*len <= total);
    return body;
}

enum { PREPARE = 13, LIST = 16, HEARD = 64, FILES = 65, EVENTS = 71, HOST = 17, START = 1 };

static const struct {
    const char *what;
    unsigned outer, inner;
    guint8 bytes[8];
    size_t len;
} hostile[] = {
    {"empty VMs in a list", LIST, 0, {1 << 3 | 2, 0}, 2},
    {"VMs whose percentiles are empty", LIST, 0, {1 << 3 | 2, 4, 12 << 3 | 2, 0, 13 << 3 | 2, 0}, 6},
    {"empty disks of a VM", PREPARE, 1, {0x8a, 1, 0}, 3},
    {"empty arguments of a VM", PREPARE, 1, {2 << 3 | 2, 0}, 2},
    {"empty seeds", PREPARE, 0, {3 << 3 | 2, 0}, 2},
    {"empty files", FILES, 0, {1 << 3 | 2, 0}, 2},
    {"empty events", EVENTS, 0, {1 << 3 | 2, 0}, 2},
    {"empty fields of an event", EVENTS, 1, {7 << 3 | 2, 0}, 2},
    {"empty lines of a host", HOST, 0, {8 << 3 | 2, 0}, 2},
    {"fields that are unknown", HOST, 0, {0xa2, 6, 0}, 3},
    {"the shortest unknown fields", HOST, 0, {15 << 3, 0}, 2},
    {"a number over and over", START, 0, {13 << 3, 0}, 2},
};

static void test_no_message_takes_more_memory_than_its_length_allows(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(hostile); i++) {
        gsize len;
        size_t most;
        g_autofree guint8 *body = repeat(hostile[i].outer, hostile[i].inner, hostile[i].bytes, hostile[i].len,
                                         FRAMING_MAX_LEN, &len);
        parse(body, len, &most);
        printf("%s: %zu bytes of memory for one\n", hostile[i].what, most / len);
        if (most > framing_cost_max(len))
            fail_msg("%s: %zu bytes of memory for %zu", hostile[i].what, most, len);
        assert_true(framing_cost_max(len) < 40u << 20);
    }
}

/* What protobuf-c takes is never more than what was foreseen. */
static void test_the_cost_is_not_less_than_what_is_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(hostile); i++) {
        for (gsize total = 32; total < 20000; total = total * 3 + 1) {
            gsize len;
            size_t cost;
            struct heap heap = {0};
            ProtobufCAllocator memory = {.alloc = heap_alloc, .free = heap_free, .allocator_data = &heap};
            g_autofree guint8 *body =
                repeat(hostile[i].outer, hostile[i].inner, hostile[i].bytes, hostile[i].len, total, &len);
            assert_true(wire_cost(&understudy__envelope__descriptor, body, len, SIZE_MAX, &cost));
            Understudy__Envelope *out = understudy__envelope__unpack(&memory, len, body);
            assert_non_null(out);
            understudy__envelope__free_unpacked(out, &memory);
            if (heap.most > cost)
                fail_msg("%s, %zu bytes: %zu, and %zu were foreseen", hostile[i].what, len, heap.most, cost);
            assert_true(wire_cost(&understudy__envelope__descriptor, body, len, cost, &cost));
            assert_false(wire_cost(&understudy__envelope__descriptor, body, len, cost - 1, &cost));
        }
    }
}

/* ---- messages that are sent ---- */

/* As many VMs of which a daemon knows least. */
static void test_a_long_list_of_vms_that_begin_is_taken(void **state)
{
    enum { N = 5000 };
    g_autofree Understudy__Status *statuses = g_new(Understudy__Status, N);
    g_autofree Understudy__Status **pointers = g_new(Understudy__Status *, N);
    Understudy__StatusList list = UNDERSTUDY__STATUS_LIST__INIT;
    (void)state;
    for (int i = 0; i < N; i++) {
        understudy__status__init(&statuses[i]);
        statuses[i].vm = (char *)"web";
        statuses[i].role = UNDERSTUDY__ROLE__ROLE_PRIMARY;
        statuses[i].state = UNDERSTUDY__STATE__STATE_STARTING;
        statuses[i].state_name = (char *)"starting";
        statuses[i].term = 2;
        statuses[i].peer = (char *)"10.0.0.2";
        statuses[i].qemu_version = (char *)"7.2.1 (Debian 1:7.2+dfsg-7)";
        pointers[i] = &statuses[i];
    }
    list.vms = pointers;
    list.n_vms = N;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS_LIST, status_list, &list);
    size_t len = understudy__envelope__get_packed_size(&envelope), most;
    g_autofree guint8 *body = g_malloc(len);
    understudy__envelope__pack(&envelope, body);
    assert_int_equal(parse(body, len, &most), HEAD_LEN + len);
    size_t cost;
    assert_true(wire_cost(&understudy__envelope__descriptor, body, len, SIZE_MAX, &cost));
    printf("VMs that begin: %zu bytes of memory for one, counted as %zu\n", most / len, cost / len);
    assert_true(cost / len <= FRAMING_COST_FACTOR * 2 / 3);
}

static void test_a_small_message_of_costly_fields_is_taken(void **state)
{
    gsize len;
    size_t most;
    (void)state;
    g_autofree guint8 *body = repeat(LIST, 0, (const guint8[]){1 << 3 | 2, 0}, 2, 300, &len);
    assert_int_equal(parse(body, len, &most), HEAD_LEN + len);
}

/* ---- what is no message ---- */

static void test_bytes_that_are_no_message_are_not_unpacked(void **state)
{
    static const struct {
        guint8 bytes[16];
        size_t len;
    } cases[] = {
        {{0x82, 1, 5, 0}, 4},                   /* longer than what there is */
        {{0x82, 1, 2, 1 << 3 | 2, 9}, 5},       /* the same within */
        {{0x80, 0x80, 0x80, 0x80, 0x80, 1}, 6}, /* a tag without end */
        {{1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 11},
        {{1 << 3 | 3}, 1}, /* groups are long gone */
        {{1 << 3 | 1, 0}, 2},
        {{1 << 3 | 5, 0}, 2},
        {{3 << 3 | 2, 0, 3 << 3 | 2, 0}, 4}, /* one message twice */
    };
    size_t cost;
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_false(
            wire_cost(&understudy__envelope__descriptor, cases[i].bytes, cases[i].len, SIZE_MAX, &cost));
        size_t most;
        assert_int_equal(parse(cases[i].bytes, cases[i].len, &most), -EPROTO);
        assert_int_equal(most, 0);
    }
}

/* protobuf-c would copy the growing list for each of them. */
static void test_a_message_that_comes_over_and_over_is_refused_at_once(void **state)
{
    const guint8 once[] = {1 << 3 | 2, 2, 2 << 3 | 2, 0};
    gsize len;
    size_t most;
    (void)state;
    g_autofree guint8 *body = repeat(PREPARE, 0, once, sizeof once, FRAMING_MAX_LEN, &len);
    assert_int_equal(parse(body, len, &most), -EPROTO);
    assert_int_equal(most, 0);
}

/* A type that holds itself. Ours do not. */
static void test_nesting_is_bounded(void **state)
{
    static ProtobufCMessageDescriptor nest;
    static const ProtobufCFieldDescriptor field = {.name = "nest",
                                                   .id = 1,
                                                   .label = PROTOBUF_C_LABEL_NONE,
                                                   .type = PROTOBUF_C_TYPE_MESSAGE,
                                                   .descriptor = &nest};
    static const ProtobufCIntRange ranges[] = {{1, 0}, {0, 1}};
    guint8 bytes[64];
    size_t cost;
    (void)state;
    nest = (ProtobufCMessageDescriptor){.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                        .sizeof_message = 64,
                                        .n_fields = 1,
                                        .fields = &field,
                                        .n_field_ranges = 1,
                                        .field_ranges = ranges};
    for (unsigned depth = 1; depth <= 2 * WIRE_DEPTH_MAX; depth++) {
        size_t len = 2 * (depth - 1);
        for (size_t i = 0; i < len; i += 2) {
            bytes[i] = 1 << 3 | 2;
            bytes[i + 1] = (guint8)(len - i - 2);
        }
        assert_int_equal(wire_cost(&nest, bytes, len, SIZE_MAX, &cost), depth <= WIRE_DEPTH_MAX);
    }
}

/* Every type that an Envelope can hold is within the walk's own limits. */
static void is_within_limits(const ProtobufCMessageDescriptor *type, unsigned depth)
{
    assert_true(depth < WIRE_DEPTH_MAX);
    assert_true(type->n_fields <= 128);
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (type->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            is_within_limits(type->fields[i].descriptor, depth + 1);
    }
}

static void test_every_message_of_ours_is_within_the_walk_s_limits(void **state)
{
    (void)state;
    is_within_limits(&understudy__envelope__descriptor, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_message_takes_more_memory_than_its_length_allows),
        cmocka_unit_test(test_the_cost_is_not_less_than_what_is_taken),
        cmocka_unit_test(test_a_long_list_of_vms_that_begin_is_taken),
        cmocka_unit_test(test_a_small_message_of_costly_fields_is_taken),
        cmocka_unit_test(test_bytes_that_are_no_message_are_not_unpacked),
        cmocka_unit_test(test_a_message_that_comes_over_and_over_is_refused_at_once),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_every_message_of_ours_is_within_the_walk_s_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
