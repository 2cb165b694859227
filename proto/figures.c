/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of figures, and reading a figure from a Status. The rows have the order of the columns of
 * `status`, of the JSON document and of the manual page.
 */
#include "proto/figures.h"

#include <glib.h>
#include <string.h>

#include "proto/states.h"
#include "proto/term.h"

#define STATUS ((const Understudy__Status *)message)
#define DISK   ((const Understudy__DiskStatus *)message)
#define ENDING ((const Understudy__Ending *)message)

static void set_words(struct figure_value *value, const char *words)
{
    value->type = VALUE_WORDS;
    value->words = words;
}

static void set_number(struct figure_value *value, uint64_t number)
{
    value->type = VALUE_NUMBER;
    value->number = (int64_t)number;
}

static void set_truth(struct figure_value *value, bool truth)
{
    value->type = VALUE_TRUTH;
    value->truth = truth;
}

/* ---- what is not a field as it is ---- */

static void read_role(const void *message, struct figure_value *value)
{
    set_words(value, role_name(STATUS->role));
}

static void read_state(const void *message, struct figure_value *value)
{
    set_words(value, state_name(STATUS->state));
}

static void read_protected(const void *message, struct figure_value *value)
{
    set_truth(value, status_is_safe(STATUS));
}

static void read_term(const void *message, struct figure_value *value)
{
    set_number(value, term_count(STATUS->term));
}

static void read_term_host(const void *message, struct figure_value *value)
{
    set_number(value, term_host(STATUS->term));
}

static void read_guest_state(const void *message, struct figure_value *value)
{
    set_words(value, guest_state_name(STATUS->guest_state));
}

static void read_on_peer_loss(const void *message, struct figure_value *value)
{
    set_words(value, STATUS->on_peer_loss == UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD ? "hold" : "continue");
}

static void read_link_security(const void *message, struct figure_value *value)
{
    set_words(value,
              STATUS->link_security == UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE ? "none" : "sealed");
}

/* Says what nobody should overlook; empty: all is well. */
static void read_link_note(const void *message, struct figure_value *value)
{
    if (STATUS->link_security == UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE)
        set_words(value,
                  "none: whoever reaches the hosts' network can read the guest's memory and end the VM");
    else if (strcmp(STATUS->link_cipher, "ChaCha20-Poly1305") == 0)
        set_words(value, "ChaCha20-Poly1305, which is slow: a host's processor has no instructions for AES");
    else
        set_words(value, "");
}

static void read_durability(const void *message, struct figure_value *value)
{
    set_words(value, STATUS->durability == UNDERSTUDY__DURABILITY__DURABILITY_DISK ? "disk" : "memory");
}

static void read_disk_state(const void *message, struct figure_value *value)
{
    set_words(value, disk_state_name(DISK->state));
}

static void read_ending_role(const void *message, struct figure_value *value)
{
    set_words(value, role_name(ENDING->role));
}

static void read_ending_term(const void *message, struct figure_value *value)
{
    set_number(value, term_count(ENDING->term));
}

static void read_ending_at(const void *message, struct figure_value *value)
{
    g_autoptr(GDateTime) at = g_date_time_new_from_unix_local((gint64)ENDING->at_s);
    g_autofree char *text = at ? g_date_time_format(at, "%FT%T%:z") : g_strdup("?");
    g_strlcpy(value->room, text, sizeof value->room);
    set_words(value, value->room);
}

/* ---- the rows ---- */

#define COUNTER      .kind = FIGURE_COUNTER
#define GAUGE        .kind = FIGURE_GAUGE
#define DISTRIBUTION .kind = FIGURE_DISTRIBUTION
#define TEXT         .kind = FIGURE_TEXT
#define STATE        .kind = FIGURE_STATE

static const struct figure of_vm[] = {
    {"name", "", TEXT, .field = "vm", .title = "NAME", .help = "the VM's name"},
    {"role", "", STATE, .read = read_role, .title = "ROLE",
     .help = "primary: the guest runs on this host; secondary: this host stands by; none: neither any more"},
    {"state", "", STATE, .read = read_state, .title = "STATE",
     .help = "what the VM does on this host: see STATES"},
    {"peer", "", TEXT, .field = "peer", .title = "PEER", .help = "the other host"},
    {"transport", "", STATE, .field = "transport", .title = "LINK",
     .help = "what carries checkpoints: tcp or rdma; empty while there is no link"},
    {"term", "", COUNTER, .read = read_term, .title = "TERM",
     .help = "grows by one each time that a host takes the guest over or goes on alone"},
    {"epochs", "epochs", COUNTER, .field = "epochs", .title = "EPOCHS",
     .help = "checkpoints taken (primary) or acknowledged (secondary)"},
    {"pause_us", "us", DISTRIBUTION, .field = "pause_us", .title = "",
     .help = "how long a checkpoint stopped the guest"},
    {"last_error", "", TEXT, .field = "last_error", .title = "LAST ERROR",
     .help = "the last thing that went wrong; empty: nothing went wrong, or it is over"},
    {"term_host", "", GAUGE, .read = read_term_host,
     .help = "the host of the pair that the term was granted to: 0 or 1"},
    {"protected", "", STATE, .read = read_protected,
     .help = "true: as far as this host knows, the guest goes on at the other host if its host dies now"},
    {"unprotected_why", "", TEXT, .field = "unprotected_why", .label = "not protected",
     .help = "why the other host did not stand by when it was last asked"},
    {"warnings", "", TEXT, .field = "warnings", .label = "warning",
     .help = "what is wrong although the standby can take over: a list of sentences"},
    {"untried", "", STATE, .field = "untried",
     .help = "true: it is not known yet whether the standby's QEMU loads the guest's state: not protected"},
    {"trial", "", TEXT, .field = "trial", .label = "",
     .help = "of a standby whose QEMU is not the guest's: the result of its trial"},
    {"split", "", TEXT, .field = "split", .label = "split",
     .help = "both hosts ran the guest: which one stopped, and what it had sent meanwhile"},
    {"guest_here", "", STATE, .field = "guest_here", .help = "true: the guest runs on this host"},
    {"guest_state", "", STATE, .read = read_guest_state, .label = "its guest stands still",
     .help = "of a guest that stands still: paused, panicked, shut-off or watchdog; empty: it runs"},
    {"guest_event", "", TEXT, .field = "guest_event", .label = "",
     .help = "the last thing that QEMU reported of the guest"},
    {"accel", "", STATE, .field = "accel", .help = "the accelerator of this host's QEMU: kvm or tcg"},
    {"qemu_version", "", TEXT, .field = "qemu_version", .help = "the version of this host's QEMU"},
    {"qemu_pid", "", GAUGE, .field = "qemu_pid",
     .help = "the process ID of this host's QEMU; 0: there is none"},
    {"memory_mib", "MiB", GAUGE, .field = "memory_mib", .help = "the guest's memory"},
    {"acked_epoch", "epochs", COUNTER, .field = "acked_epoch",
     .help = "the newest epoch that the standby holds"},
    {"epochs_per_s", "epochs/s", GAUGE, .field = "epochs_per_s", .help = "checkpoints a second"},
    {"bytes_per_s", "bytes/s", GAUGE, .field = "bytes_per_s", .help = "traffic on the link, both ways"},
    {"pause_parts_us.stop", "us", DISTRIBUTION, .field = "stop_us",
     .help = "part of a pause: until the guest stands still"},
    {"pause_parts_us.harvest", "us", DISTRIBUTION, .field = "harvest_us",
     .help = "part of a pause: until the dirty pages are known"},
    {"pause_parts_us.save", "us", DISTRIBUTION, .field = "save_us",
     .help = "part of a pause: saving the devices' state"},
    {"pause_parts_us.copy_wait", "us", DISTRIBUTION, .field = "copy_wait_us",
     .help = "part of a pause: waiting until the dirty pages are copied"},
    {"pause_parts_us.resume", "us", DISTRIBUTION, .field = "resume_us",
     .help = "part of a pause: until the guest goes on"},
    {"dirty_pages", "pages", DISTRIBUTION, .field = "dirty_pages", .help = "pages that an epoch has changed"},
    {"epoch_bytes", "bytes", DISTRIBUTION, .field = "epoch_bytes", .help = "size of an epoch on the link"},
    {"hold_us", "us", DISTRIBUTION, .field = "hold_us",
     .help = "how long the guest's output frames waited for their epoch's acknowledgement"},
    {"sync.done_pages", "pages", GAUGE, .field = "sync_done_pages",
     .help = "of the synchronisation under way: pages that the standby has"},
    {"sync.total_pages", "pages", GAUGE, .field = "sync_total_pages",
     .help = "of the synchronisation under way: pages of the guest's memory"},
    {"sync.sent_pages", "pages", GAUGE, .field = "sync_sent_pages",
     .help = "of the last synchronisation: pages sent, its first epoch included"},
    {"sync.ms", "ms", GAUGE, .field = "sync_ms",
     .help = "of the last synchronisation: from its link to protection; below 0: there was none"},
    {"sync.difference", "", STATE, .field = "sync_difference",
     .help = "true: the standby had kept its image, and only what had changed was sent"},
    {"expired", "epochs", COUNTER, .field = "expired",
     .help = "checkpoints that were given up, because the guest would have stood still for longer than "
             "--deadline-ms"},
    {"transport_why", "", TEXT, .field = "transport_why", .label = "checkpoints go over TCP, not RDMA",
     .help = "why checkpoints do not go over RDMA"},
    {"frames_dropped", "frames", COUNTER, .field = "frames_dropped",
     .help = "output frames of the guest that were dropped: there was no room to hold them, or they must not "
             "leave"},
    {"detect_ms", "ms", GAUGE, .field = "detect_ms",
     .help =
         "of the last takeover here: from the last sign of life to the decision; below 0: there was none"},
    {"promote_ms", "ms", GAUGE, .field = "promote_ms",
     .help = "of the last takeover here: from the decision until the guest runs; below 0: there was none"},
    {"on_peer_loss", "", STATE, .read = read_on_peer_loss, .help = "--on-peer-loss: continue or hold"},
    {"durability", "", STATE, .read = read_durability, .help = "--durability: memory or disk"},
    {"link_security", "", STATE, .read = read_link_security, .help = "--link-security: sealed or none"},
    {"link_cipher", "", STATE, .field = "link_cipher",
     .help = "what the link is sealed with; empty while there is no link, and with --link-security=none"},
    {"link_note", "", TEXT, .read = read_link_note, .label = "link security",
     .help = "what is wrong with the security of the link; empty: nothing"},
};

static const struct figure of_disk[] = {
    {"id", "", TEXT, .field = "id", .help = "the disk's name"},
    {"path", "", TEXT, .field = "path", .help = "its image on this host"},
    {"state", "", STATE, .read = read_disk_state,
     .help = "synchronising, protected, unprotected, or failed (its server does not run)"},
    {"done_bytes", "bytes", GAUGE, .field = "done_bytes", .help = "bytes that are the same on both hosts"},
    {"total_bytes", "bytes", GAUGE, .field = "total_bytes", .help = "the disk's length"},
    {"dirty_bytes", "bytes", GAUGE, .field = "dirty_bytes",
     .help = "bytes in which the two hosts' images may differ"},
    {"log_bytes", "bytes", GAUGE, .field = "log_bytes", .help = "log of writes that are in no epoch yet"},
    {"candidate_bytes", "bytes", GAUGE, .field = "candidate_bytes",
     .help = "of the last synchronisation: what may have differed"},
    {"sent_bytes", "bytes", GAUGE, .field = "sent_bytes",
     .help = "of the last synchronisation: what was sent, holes not counted"},
    {"message", "", TEXT, .field = "message", .help = "what is wrong with the disk; empty: nothing"},
};

static const struct figure of_heartbeat[] = {
    {"there", "", TEXT, .field = "there", .help = "the other host's address on that network"},
    {"silent_ms", "ms", GAUGE, .field = "silent_ms",
     .help = "time since the last heartbeat from that address"},
    {"send_errors", "packets", COUNTER, .field = "send_errors",
     .help = "heartbeats that this host could not send"},
    {"send_error", "", TEXT, .field = "send_error",
     .help = "why the last heartbeat could not be sent; empty: it was sent"},
};

static const struct figure of_ending[] = {
    {"name", "", TEXT, .field = "vm", .help = "the VM's name"},
    {"role", "", STATE, .read = read_ending_role, .help = "its role here before it ended"},
    {"term", "", COUNTER, .read = read_ending_term, .help = "its last term"},
    {"at", "", TEXT, .read = read_ending_at, .help = "when it ended, as 2026-02-28T09:30:00+01:00"},
    {"reason", "", TEXT, .field = "reason", .help = "why it ended, in words"},
    {"message", "", TEXT, .field = "message", .help = "the last message of its replicator, or empty"},
};

static const struct {
    const struct figure *rows;
    size_t n;
    const ProtobufCMessageDescriptor *message;
} tables[FIGURES_NSCOPES] = {
    [FIGURES_OF_VM] = {of_vm, G_N_ELEMENTS(of_vm), &understudy__status__descriptor},
    [FIGURES_OF_DISK] = {of_disk, G_N_ELEMENTS(of_disk), &understudy__disk_status__descriptor},
    [FIGURES_OF_HEARTBEAT] = {of_heartbeat, G_N_ELEMENTS(of_heartbeat),
                              &understudy__heartbeat_status__descriptor},
    [FIGURES_OF_ENDING] = {of_ending, G_N_ELEMENTS(of_ending), &understudy__ending__descriptor},
};

const struct figure *figures_of(enum figure_scope scope, size_t *n)
{
    *n = tables[scope].n;
    return tables[scope].rows;
}

const char *figure_kind_name(enum figure_kind kind)
{
    static const char *const names[] = {"counter", "gauge", "distribution", "text", "state"};
    return names[kind];
}

/* ---- values ---- */

static void read_field(const ProtobufCFieldDescriptor *field, const void *message, struct figure_value *value)
{
    static const Understudy__Percentiles none = UNDERSTUDY__PERCENTILES__INIT;
    const char *at = (const char *)message + field->offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        value->type = VALUE_LIST;
        value->list = *(char *const *const *)at;
        value->nlist = *(const size_t *)((const char *)message + field->quantifier_offset);
        return;
    }
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        set_words(value, *(const char *const *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        set_number(value, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT32:
        value->type = VALUE_NUMBER;
        value->number = *(const int32_t *)at;
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        value->type = VALUE_REAL;
        memcpy(&value->real, at, sizeof value->real);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        set_truth(value, *(const protobuf_c_boolean *)at);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        value->type = VALUE_PERCENTILES;
        value->percentiles = *(const Understudy__Percentiles *const *)at;
        if (!value->percentiles)
            value->percentiles = &none;
        break;
    default:
        g_assert_not_reached(); /* the test reads every row */
    }
}

void figure_read(const struct figure *figure, const void *message, struct figure_value *value)
{
    const ProtobufCMessageDescriptor *descriptor = ((const ProtobufCMessage *)message)->descriptor;
    if (figure->read)
        figure->read(message, value);
    else
        read_field(protobuf_c_message_descriptor_get_field_by_name(descriptor, figure->field), message,
                   value);
}

char *figure_text(const struct figure_value *value)
{
    switch (value->type) {
    case VALUE_NUMBER:
        return g_strdup_printf("%" G_GINT64_FORMAT, value->number);
    case VALUE_REAL:
        return g_strdup_printf("%.3f", value->real);
    case VALUE_TRUTH:
        return g_strdup(value->truth ? "true" : "false");
    case VALUE_WORDS:
        return g_strdup(value->words);
    case VALUE_PERCENTILES:
        return g_strdup_printf("p50 %" G_GUINT64_FORMAT "  p99 %" G_GUINT64_FORMAT "  max %" G_GUINT64_FORMAT,
                               value->percentiles->p50, value->percentiles->p99, value->percentiles->max);
    case VALUE_LIST: {
        g_autoptr(GString) text = g_string_new(NULL);
        for (size_t i = 0; i < value->nlist; i++)
            g_string_append_printf(text, "%s%s", i ? "; " : "", value->list[i]);
        return g_string_free(g_steal_pointer(&text), FALSE);
    }
    }
    return g_strdup("");
}
