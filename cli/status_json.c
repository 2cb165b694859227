/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The JSON documents of `understudy status`: each figure by its name, and a version at the top. One VM by
 * name is the document itself; several are its array "vms", and those that ended its array "ended".
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

#include "cli/status_view.h"
#include "proto/figures.h"

static json_t *value_json(const struct figure_value *value)
{
    switch (value->type) {
    case VALUE_NUMBER:
        return json_integer(value->number);
    case VALUE_REAL:
        return json_real(value->real);
    case VALUE_TRUTH:
        return json_boolean(value->truth);
    case VALUE_WORDS:
        return json_string(value->words);
    case VALUE_PERCENTILES:
        return json_pack("{s:I, s:I, s:I}", "p50", (json_int_t)value->percentiles->p50, "p99",
                         (json_int_t)value->percentiles->p99, "max", (json_int_t)value->percentiles->max);
    case VALUE_LIST: {
        json_t *list = json_array();
        for (size_t i = 0; i < value->nlist; i++)
            json_array_append_new(list, json_string(value->list[i]));
        return list;
    }
    }
    return json_null();
}

/* Sets a member of the document. "sync.ms" is the member ms of the object sync. */
static void set(json_t *object, const char *name, json_t *value)
{
    const char *dot = strchr(name, '.');
    if (!dot) {
        json_object_set_new(object, name, value);
        return;
    }
    g_autofree char *outer = g_strndup(name, (gsize)(dot - name));
    json_t *inner = json_object_get(object, outer);
    if (!inner)
        json_object_set_new(object, outer, inner = json_object());
    json_object_set_new(inner, dot + 1, value);
}

static void set_figures(json_t *object, enum figure_scope scope, const void *message)
{
    size_t n;
    const struct figure *figures = figures_of(scope, &n);
    for (size_t i = 0; i < n; i++) {
        struct figure_value value;
        figure_read(&figures[i], message, &value);
        set(object, figures[i].name, value_json(&value));
    }
}

static json_t *array_json(enum figure_scope scope, const void *const *messages, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *object = json_object();
        set_figures(object, scope, messages[i]);
        json_array_append_new(array, object);
    }
    return array;
}

static void set_vm(json_t *object, const Understudy__Status *s)
{
    set_figures(object, FIGURES_OF_VM, s);
    json_object_set_new(object, "disks",
                        array_json(FIGURES_OF_DISK, (const void *const *)s->disks, s->n_disks));
    json_object_set_new(
        object, "heartbeats",
        array_json(FIGURES_OF_HEARTBEAT, (const void *const *)s->heartbeats, s->n_heartbeats));
}

void status_print_json(const Understudy__StatusList *list, const char *vm, bool ended, size_t flags)
{
    json_t *document = json_pack("{s:i}", "version", FIGURES_JSON_VERSION);
    if (vm && list->n_vms == 1 && !ended) {
        set_vm(document, list->vms[0]);
    } else {
        json_t *vms = json_array();
        for (size_t i = 0; i < list->n_vms; i++) {
            json_t *object = json_object();
            set_vm(object, list->vms[i]);
            json_array_append_new(vms, object);
        }
        json_object_set_new(document, "drained", json_boolean(list->drained));
        json_object_set_new(document, "vms", vms);
    }
    if (ended)
        json_object_set_new(
            document, "ended",
            array_json(FIGURES_OF_ENDING, (const void *const *)list->endings, list->n_endings));
    json_dumpf(document, stdout, flags | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(document);
}
