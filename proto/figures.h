/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of figures: all that `status` can say about a VM, its disks and its networks. The JSON document,
 * the text of `understudy status`, the list in understudy(1) and every other export of figures come from it.
 * A new figure is a field of the message in control.proto and a row in figures.c.
 *
 * Names and units are stable (understudy(1)): a row is not renamed, its unit does not change. Pure; any
 * thread.
 */
#ifndef UNDERSTUDY_PROTO_FIGURES_H
#define UNDERSTUDY_PROTO_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

/* Version of the JSON documents of `status` and `events`. It grows when a figure is removed or changes its
 * meaning. */
#define FIGURES_JSON_VERSION 1

enum figure_kind {
    FIGURE_COUNTER,      /* grows as long as the replicator runs */
    FIGURE_GAUGE,        /* goes up and down */
    FIGURE_DISTRIBUTION, /* p50, p99 and max since the last reset */
    FIGURE_TEXT,         /* for people, or a name; "warnings" is a list of them */
    FIGURE_STATE,        /* one of a few words, or true and false */
};

/* What a figure is about: the message that it is read from. */
enum figure_scope {
    FIGURES_OF_VM,        /* Understudy__Status */
    FIGURES_OF_DISK,      /* Understudy__DiskStatus: an element of "disks" */
    FIGURES_OF_HEARTBEAT, /* Understudy__HeartbeatStatus: an element of "heartbeats" */
    FIGURES_OF_ENDING,    /* Understudy__Ending: an element of "ended" */
    FIGURES_NSCOPES
};

struct figure_value {
    enum { VALUE_NUMBER, VALUE_REAL, VALUE_TRUTH, VALUE_WORDS, VALUE_LIST, VALUE_PERCENTILES } type;
    int64_t number;
    double real;
    bool truth;
    const char *words; /* the string is the message's, or in room */
    char *const *list;
    size_t nlist;
    const Understudy__Percentiles *percentiles; /* never NULL */
    char room[40];
};

struct figure {
    const char *name; /* "sync.ms" is the member ms of the object sync */
    const char *unit; /* "": none */
    enum figure_kind kind;
    const char *field; /* name of the message's field; NULL: the function `read` reads the value */
    void (*read)(const void *message, struct figure_value *value);
    const char *title; /* title of its column in the table of `status`; NULL: no column */
    const char *label; /* label of its line below the VM, if it is not empty; NULL: no line */
    const char *help;  /* for understudy(1) */
};

/* Returns the rows of a scope, *n of them. */
const struct figure *figures_of(enum figure_scope scope, size_t *n);
/* Returns "counter", "gauge" and so on. */
const char *figure_kind_name(enum figure_kind kind);
/* Reads a figure from a message of its scope. The value points into the message. */
void figure_read(const struct figure *figure, const void *message, struct figure_value *value);
/* Returns the value without its unit, in one line; "" if it is empty. GLib string. */
char *figure_text(const struct figure_value *value);

#endif
