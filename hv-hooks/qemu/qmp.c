/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QMP client without blocking. States:
 *
 *   CONNECTING --connected--> GREETING --greeting--> NEGOTIATING --capabilities accepted--> READY
 *   any state --error, EOF, deadline--> CLOSED
 *
 * Sending: commands are rendered at once and queued; a GLib source writes them while the socket takes them.
 * Receiving: bytes gather in a buffer, and each newline ends one JSON object: the greeting, an answer (to
 * the oldest command), or an event. Commands carry an id, and an answer with another id than the oldest
 * command's is a protocol error.
 *
 * The object is reference-counted, since a callback may close it while a line is being handled.
 */
#include "hv-hooks/qemu/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/words.h"

#define RETRY_MS        5
#define READ_LEN        16384
#define OUTSTANDING_MAX 1024u

enum qmp_state { QMP_CONNECTING, QMP_GREETING, QMP_NEGOTIATING, QMP_READY, QMP_CLOSED };

struct command {
    guint64 id;
    char *text; /* one line */
    size_t text_len, sent;
    int fd; /* ours, or -1 */
    qmp_reply reply;
    void *opaque;
};

struct listener {
    guint id;
    qmp_event call;
    void *opaque;
};

struct qmp {
    guint references;
    enum qmp_state state;
    char *path;
    gint64 deadline_us;
    GMainContext *context;
    int fd;
    GSource *retry, *in, *out;
    GString *line;
    GQueue unsent;     /* struct command*, not wholly written */
    GQueue unanswered; /* struct command*, written, in order */
    guint64 next_id;
    GArray *listeners;
    guint next_listener;
    qmp_closed closed;
    void *opaque;
};

GQuark qmp_error_quark(void)
{
    return g_quark_from_static_string("understudy-qmp-error");
}

static void command_free(struct command *command)
{
    if (command->fd >= 0)
        close(command->fd);
    g_free(command->text);
    g_free(command);
}

static void command_answer(struct qmp *qmp, struct command *command, json_t *value, const GError *error)
{
    if (command->reply)
        command->reply(qmp, value, error, command->opaque);
    command_free(command);
}

static void source_drop(GSource **source)
{
    if (*source) {
        g_source_destroy(*source);
        g_clear_pointer(source, g_source_unref);
    }
}

static void qmp_unref(struct qmp *qmp)
{
    if (--qmp->references > 0)
        return;
    g_string_free(qmp->line, TRUE);
    g_array_free(qmp->listeners, TRUE);
    g_main_context_unref(qmp->context);
    g_free(qmp->path);
    g_free(qmp);
}

/* Ends the connection: every command fails, then the owner is told. Takes over error. */
static void qmp_fail(struct qmp *qmp, GError *error)
{
    if (qmp->state == QMP_CLOSED) {
        g_error_free(error);
        return;
    }
    qmp->state = QMP_CLOSED;
    qmp->references++;
    source_drop(&qmp->retry);
    source_drop(&qmp->in);
    source_drop(&qmp->out);
    if (qmp->fd >= 0)
        close(qmp->fd);
    qmp->fd = -1;
    struct command *command;
    while ((command = g_queue_pop_head(&qmp->unanswered)) || (command = g_queue_pop_head(&qmp->unsent)))
        command_answer(qmp, command, NULL, error);
    qmp_closed closed = qmp->closed;
    qmp->closed = NULL;
    if (closed)
        closed(qmp, error, qmp->opaque);
    g_error_free(error);
    qmp_unref(qmp);
}

static ssize_t send_with_fd(int socket_fd, const char *bytes, size_t len, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {
        .header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        message.msg_control = control.space;
        message.msg_controllen = sizeof control.space;
    }
    return sendmsg(socket_fd, &message, MSG_NOSIGNAL);
}

/* Writes as much as the socket takes. True when all is written; false also after a failure. */
static bool flush_commands(struct qmp *qmp)
{
    struct command *command;
    while ((command = g_queue_peek_head(&qmp->unsent))) {
        ssize_t n = send_with_fd(qmp->fd, command->text + command->sent, command->text_len - command->sent,
                                 command->fd);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0) {
            qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_CLOSED, "QEMU's monitor hung up: %s",
                                      g_strerror(errno)));
            return false;
        }
        /* The fd went with the first byte. */
        if (command->fd >= 0)
            close(command->fd);
        command->fd = -1;
        command->sent += (size_t)n;
        if (command->sent == command->text_len)
            g_queue_push_tail(&qmp->unanswered, g_queue_pop_head(&qmp->unsent));
    }
    return true;
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct qmp *qmp = opaque;
    (void)fd;
    (void)condition;
    qmp->references++;
    if (flush_commands(qmp))
        source_drop(&qmp->out);
    qmp_unref(qmp);
    return G_SOURCE_CONTINUE; /* source_drop has destroyed it where it is done */
}

static GSource *watch(struct qmp *qmp, GIOCondition condition, GUnixFDSourceFunc func)
{
    GSource *source = g_unix_fd_source_new(qmp->fd, condition);
    g_source_set_callback(source, G_SOURCE_FUNC(func), qmp, NULL);
    g_source_attach(source, qmp->context);
    return source;
}

/* Sends queued commands as far as the socket takes them. The caller's commands go out only after the
 * capabilities are negotiated. */
static void start_flushing(struct qmp *qmp)
{
    if (qmp->state != QMP_READY && qmp->state != QMP_NEGOTIATING)
        return;
    if (!qmp->out && !flush_commands(qmp) && qmp->state != QMP_CLOSED)
        qmp->out = watch(qmp, G_IO_OUT, on_writable);
}

static struct command *command_new(struct qmp *qmp, const char *name, json_t *args, int fd, qmp_reply reply,
                                   void *opaque)
{
    struct command *command = g_new0(struct command, 1);
    command->id = qmp->next_id++;
    command->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    command->reply = reply;
    command->opaque = opaque;
    json_t *object = json_pack("{s:s, s:I}", "execute", name, "id", (json_int_t)command->id);
    if (args)
        json_object_set_new(object, "arguments", args);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    command->text = g_strconcat(text, "\n", NULL);
    command->text_len = strlen(command->text);
    free(text);
    return command;
}

static void on_capabilities(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    struct command *waiting;
    GQueue *held = opaque;
    (void)value;
    if (!error) {
        qmp->state = QMP_READY;
        while ((waiting = g_queue_pop_head(held)))
            g_queue_push_tail(&qmp->unsent, waiting);
    } else {
        /* With the connection already lost this only hands the commands back. */
        while ((waiting = g_queue_pop_head(held)))
            command_answer(qmp, waiting, NULL, error);
        if (qmp->state != QMP_CLOSED)
            qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_PROTOCOL, "QEMU's monitor refused to talk: %s",
                                      error->message));
    }
    g_queue_free(held);
    if (!error)
        start_flushing(qmp);
}

static void negotiate(struct qmp *qmp)
{
    GQueue *held = g_queue_new();
    struct command *waiting;
    while ((waiting = g_queue_pop_head(&qmp->unsent)))
        g_queue_push_tail(held, waiting);
    qmp->state = QMP_NEGOTIATING;
    g_queue_push_tail(&qmp->unsent, command_new(qmp, "qmp_capabilities", NULL, -1, on_capabilities, held));
    start_flushing(qmp);
}

static void handle_event(struct qmp *qmp, json_t *object)
{
    const char *name = json_string_value(json_object_get(object, "event"));
    json_t *data = json_object_get(object, "data");
    /* A listener may remove itself or add another: walk a copy, and skip those removed meanwhile. */
    g_autofree struct listener *copy = g_memdup2(qmp->listeners->data, qmp->listeners->len * sizeof *copy);
    guint n = qmp->listeners->len;
    for (guint i = 0; name && i < n && qmp->state != QMP_CLOSED; i++) {
        for (guint j = 0; j < qmp->listeners->len; j++) {
            if (g_array_index(qmp->listeners, struct listener, j).id == copy[i].id) {
                copy[i].call(qmp, name, data, copy[i].opaque);
                break;
            }
        }
    }
}

static void handle_answer(struct qmp *qmp, json_t *object)
{
    struct command *command = g_queue_peek_head(&qmp->unanswered);
    json_t *id = json_object_get(object, "id");
    if (!command || !json_is_integer(id) || (guint64)json_integer_value(id) != command->id) {
        qmp_fail(qmp,
                 g_error_new(QMP_ERROR, QMP_ERROR_PROTOCOL, "QEMU's monitor answered what was not asked"));
        return;
    }
    g_queue_pop_head(&qmp->unanswered);
    json_t *value = json_object_get(object, "return");
    g_autoptr(GError) error = NULL;
    if (!value) {
        const char *text = json_string_value(json_object_get(json_object_get(object, "error"), "desc"));
        g_autofree char *words = words_make_readable(text ? text : "QEMU gave no reason", WORDS_MAX);
        error = g_error_new_literal(QMP_ERROR, QMP_ERROR_COMMAND, words);
    }
    command_answer(qmp, command, value, error);
}

static void handle_line(struct qmp *qmp, const char *text, size_t len)
{
    json_error_t problem;
    json_t *object = json_loadb(text, len, 0, &problem);
    if (!json_is_object(object)) {
        g_autofree char *words = words_make_readable(problem.text, WORDS_MAX); /* it quotes what came */
        qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_PROTOCOL, "QEMU's monitor sent what is not JSON: %s",
                                  words));
    } else if (qmp->state == QMP_GREETING) {
        if (json_object_get(object, "QMP"))
            negotiate(qmp);
        else
            qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_PROTOCOL, "the socket is not a QMP monitor"));
    } else if (json_object_get(object, "event")) {
        handle_event(qmp, object);
    } else {
        handle_answer(qmp, object);
    }
    json_decref(object);
}

/* Handles every whole line in the buffer. */
static void handle_lines(struct qmp *qmp)
{
    for (;;) {
        char *end = memchr(qmp->line->str, '\n', qmp->line->len);
        if (!end || qmp->state == QMP_CLOSED)
            return;
        g_autofree char *text = g_strndup(qmp->line->str, (gsize)(end - qmp->line->str));
        size_t len = (size_t)(end - qmp->line->str);
        g_string_erase(qmp->line, 0, (gssize)len + 1);
        if (len > 0)
            handle_line(qmp, text, len);
    }
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct qmp *qmp = opaque;
    char buffer[READ_LEN];
    (void)condition;
    ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    qmp->references++;
    if (n <= 0) {
        qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_CLOSED, "QEMU's monitor hung up%s%s",
                                  n < 0 ? ": " : "", n < 0 ? g_strerror(errno) : ""));
    } else {
        g_string_append_len(qmp->line, buffer, n);
        handle_lines(qmp);
        if (qmp->state != QMP_CLOSED && qmp->line->len > QMP_LINE_MAX)
            qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_PROTOCOL,
                                      "QEMU's monitor sent a line of over %u bytes", QMP_LINE_MAX));
    }
    qmp_unref(qmp);
    return G_SOURCE_CONTINUE; /* qmp_fail has destroyed the source where it is done */
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

static gboolean on_retry(gpointer opaque)
{
    struct qmp *qmp = opaque;
    int fd = connect_to(qmp->path);
    if (fd >= 0) {
        qmp->fd = fd;
        qmp->state = QMP_GREETING;
        source_drop(&qmp->retry);
        qmp->in = watch(qmp, G_IO_IN | G_IO_HUP | G_IO_ERR, on_readable);
        return G_SOURCE_REMOVE;
    }
    bool may_come = fd == -ENOENT || fd == -ECONNREFUSED || fd == -EAGAIN;
    if (may_come && g_get_monotonic_time() < qmp->deadline_us)
        return G_SOURCE_CONTINUE;
    qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_CONNECT, "QEMU's monitor %s cannot be reached: %s",
                              qmp->path, g_strerror(-fd)));
    return G_SOURCE_REMOVE;
}

struct qmp *qmp_open(const char *path, unsigned timeout_ms, GMainContext *context, qmp_closed closed,
                     void *opaque)
{
    struct qmp *qmp = g_new0(struct qmp, 1);
    qmp->references = 1;
    qmp->path = g_strdup(path);
    qmp->deadline_us = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    qmp->context = g_main_context_ref(context ? context : g_main_context_default());
    qmp->fd = -1;
    qmp->line = g_string_new(NULL);
    g_queue_init(&qmp->unsent);
    g_queue_init(&qmp->unanswered);
    qmp->next_id = 1;
    qmp->listeners = g_array_new(FALSE, FALSE, sizeof(struct listener));
    qmp->next_listener = 1;
    qmp->closed = closed;
    qmp->opaque = opaque;
    qmp->retry = g_timeout_source_new(RETRY_MS);
    g_source_set_ready_time(qmp->retry, 0); /* the first try at once */
    g_source_set_callback(qmp->retry, on_retry, qmp, NULL);
    g_source_attach(qmp->retry, qmp->context);
    return qmp;
}

void qmp_close(struct qmp *qmp)
{
    if (!qmp)
        return;
    qmp->closed = NULL;
    qmp_fail(qmp, g_error_new(QMP_ERROR, QMP_ERROR_CLOSED, "the connection to QEMU's monitor was closed"));
    qmp_unref(qmp);
}

bool qmp_is_ready(const struct qmp *qmp)
{
    return qmp->state == QMP_READY;
}

void qmp_execute(struct qmp *qmp, const char *name, json_t *args, int fd, qmp_reply reply, void *opaque)
{
    struct command *command = command_new(qmp, name, args, fd, reply, opaque);
    g_autoptr(GError) error = NULL;
    if (qmp->state == QMP_CLOSED)
        error = g_error_new(QMP_ERROR, QMP_ERROR_CLOSED, "QEMU's monitor is not connected");
    else if (g_queue_get_length(&qmp->unsent) + g_queue_get_length(&qmp->unanswered) >= OUTSTANDING_MAX)
        error = g_error_new(QMP_ERROR, QMP_ERROR_CLOSED, "QEMU's monitor does not answer");
    else if (fd >= 0 && command->fd < 0)
        error = g_error_new(QMP_ERROR, QMP_ERROR_CLOSED, "no descriptor can be duplicated for QEMU");
    if (error) {
        command_answer(qmp, command, NULL, error);
        return;
    }
    if (qmp->state == QMP_NEGOTIATING) {
        /* Join those that wait for the capabilities: the queue on_capabilities holds. */
        struct command *capabilities = g_queue_peek_head(&qmp->unanswered);
        if (!capabilities)
            capabilities = g_queue_peek_head(&qmp->unsent);
        g_queue_push_tail(capabilities->opaque, command);
        return;
    }
    g_queue_push_tail(&qmp->unsent, command);
    qmp->references++;
    start_flushing(qmp);
    qmp_unref(qmp);
}

struct waiter {
    guint references;
    bool done;
    json_t *value;
    GError *error;
};

static void waiter_unref(struct waiter *waiter)
{
    if (--waiter->references > 0)
        return;
    json_decref(waiter->value);
    g_clear_error(&waiter->error);
    g_free(waiter);
}

static void on_waited(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    struct waiter *waiter = opaque;
    (void)qmp;
    waiter->done = true;
    waiter->value = json_incref(value);
    waiter->error = error ? g_error_copy(error) : NULL;
    waiter_unref(waiter);
}

static gboolean on_wait_over(gpointer opaque)
{
    *(bool *)opaque = true;
    return G_SOURCE_CONTINUE;
}

json_t *qmp_execute_wait(struct qmp *qmp, const char *command, json_t *args, int fd, unsigned timeout_ms,
                         GError **error)
{
    struct waiter *waiter = g_new0(struct waiter, 1);
    bool over = false;
    GMainContext *context = g_main_context_ref(qmp->context);
    g_autoptr(GSource) timer = g_timeout_source_new(timeout_ms);
    g_source_set_callback(timer, on_wait_over, &over, NULL);
    g_source_attach(timer, context);
    waiter->references = 2; /* this call's, and the answer's, which may come after the timeout */
    qmp_execute(qmp, command, args, fd, on_waited, waiter);
    while (!waiter->done && !over)
        g_main_context_iteration(context, TRUE);
    g_source_destroy(timer);
    json_t *value = json_incref(waiter->value);
    if (!waiter->done)
        g_set_error(error, QMP_ERROR, QMP_ERROR_TIMEOUT, "QEMU did not answer %s within %u ms", command,
                    timeout_ms);
    else if (waiter->error)
        g_propagate_error(error, g_error_copy(waiter->error));
    waiter_unref(waiter);
    g_main_context_unref(context);
    return value;
}

guint qmp_listen(struct qmp *qmp, qmp_event call, void *opaque)
{
    struct listener listener = {.id = qmp->next_listener++, .call = call, .opaque = opaque};
    g_array_append_val(qmp->listeners, listener);
    return listener.id;
}

void qmp_unlisten(struct qmp *qmp, guint id)
{
    for (guint i = 0; i < qmp->listeners->len; i++) {
        if (g_array_index(qmp->listeners, struct listener, i).id == id) {
            g_array_remove_index(qmp->listeners, i);
            return;
        }
    }
}
