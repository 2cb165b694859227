/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parses and formats QEMU's key=value lists and, for options that take it, JSON. Keys keep their order, so
 * that the formatted text is the user's own but for what was changed.
 */
#include "hv-hooks/qemu/cmdline/cmdline_keys.h"

#include <stdlib.h>
#include <string.h>

static void free_key(gpointer opaque)
{
    struct cmdline_key *key = opaque;
    g_free(key->key);
    g_free(key->value);
    g_free(key);
}

static void add(GPtrArray *keys, char *name, char *value)
{
    struct cmdline_key *key = g_new(struct cmdline_key, 1);
    *key = (struct cmdline_key){.key = name, .value = value};
    g_ptr_array_add(keys, key);
}

/* A value up to the comma that ends it, doubled ones made single. *text moves behind it. */
static char *take_value(const char **text)
{
    GString *value = g_string_new(NULL);
    while (**text && !(**text == ',' && (*text)[1] != ',')) {
        *text += **text == ',';
        g_string_append_c(value, **text);
        (*text)++;
    }
    *text += **text == ',';
    return g_string_free(value, FALSE);
}

GPtrArray *cmdline_keys_parse(const char *text, const char *implied)
{
    GPtrArray *keys = g_ptr_array_new_with_free_func(free_key);
    for (bool first = true; *text; first = false) {
        size_t len = strcspn(text, "=,");
        if (text[len] == '=') {
            char *name = g_strndup(text, len);
            text += len + 1;
            add(keys, name, take_value(&text));
        } else if (first && implied) {
            add(keys, g_strdup(implied), take_value(&text));
        } else {
            add(keys, g_strndup(text, len), g_strdup("on"));
            text += len + (text[len] == ',');
        }
    }
    return keys;
}

static char *scalar_text(const json_t *value)
{
    if (json_is_string(value))
        return g_strdup(json_string_value(value));
    if (json_is_boolean(value))
        return g_strdup(json_is_true(value) ? "on" : "off");
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    char *copy = g_strdup(text);
    free(text);
    return copy;
}

static void add_tree(GPtrArray *keys, const char *prefix, json_t *tree)
{
    const char *key;
    json_t *child;
    json_object_foreach (tree, key, child) {
        g_autofree char *name = g_strconcat(prefix, key, NULL);
        g_autofree char *below = g_strconcat(name, ".", NULL);
        if (json_is_object(child))
            add_tree(keys, below, child);
        else
            add(keys, g_steal_pointer(&name), scalar_text(child));
    }
}

/* Returns whether all names below node are short enough, after a prefix of prefix_len bytes. */
static bool names_fit(json_t *node, size_t prefix_len)
{
    const char *key;
    json_t *child, *element;
    size_t i;
    json_object_foreach (node, key, child) {
        size_t len = prefix_len + strlen(key);
        if (len > CMDLINE_KEY_MAX || (json_is_object(child) && !names_fit(child, len + 1)))
            return false;
        json_array_foreach (child, i, element) {
            if (json_is_object(element) && !names_fit(element, len + 1))
                return false;
        }
    }
    return true;
}

json_t *cmdline_keys_load(const char *text, size_t flags)
{
    json_t *tree = json_loads(text, flags, NULL);
    if (names_fit(tree, 0))
        return tree;
    json_decref(tree);
    return NULL;
}

GPtrArray *cmdline_keys_read(const char *text, const char *implied)
{
    if (text[0] != '{')
        return cmdline_keys_parse(text, implied);
    json_t *tree = cmdline_keys_load(text, JSON_REJECT_DUPLICATES);
    if (!tree)
        return NULL;
    GPtrArray *keys = g_ptr_array_new_with_free_func(free_key);
    add_tree(keys, "", tree);
    json_decref(tree);
    return keys;
}

const char *cmdline_keys_get(const GPtrArray *keys, const char *key)
{
    const char *value = NULL;
    for (guint i = 0; i < keys->len; i++) {
        const struct cmdline_key *each = g_ptr_array_index(keys, i);
        if (strcmp(each->key, key) == 0)
            value = each->value;
    }
    return value;
}

void cmdline_keys_remove(GPtrArray *keys, const char *prefix, const char *key)
{
    g_autofree char *name = g_strconcat(prefix, key, NULL);
    for (guint i = keys->len; i-- > 0;) {
        const struct cmdline_key *each = g_ptr_array_index(keys, i);
        if (strcmp(each->key, name) == 0)
            g_ptr_array_remove_index(keys, i);
    }
}

void cmdline_keys_set(GPtrArray *keys, const char *prefix, const char *key, const char *value)
{
    char *copy = g_strdup(value); /* it may be the array's own */
    cmdline_keys_remove(keys, prefix, key);
    add(keys, g_strconcat(prefix, key, NULL), copy);
}

char *cmdline_keys_escape(const char *value)
{
    GString *out = g_string_new(NULL);
    for (; *value; value++) {
        if (*value == ',')
            g_string_append_c(out, ',');
        g_string_append_c(out, *value);
    }
    return g_string_free(out, FALSE);
}

char *cmdline_keys_format(const GPtrArray *keys)
{
    GString *out = g_string_new(NULL);
    for (guint i = 0; i < keys->len; i++) {
        const struct cmdline_key *each = g_ptr_array_index(keys, i);
        g_autofree char *value = cmdline_keys_escape(each->value);
        g_string_append_printf(out, "%s%s=%s", i ? "," : "", each->key, value);
    }
    return g_string_free(out, FALSE);
}

char *cmdline_keys_protocol(const char *name)
{
    size_t len = strcspn(name, ":/");
    return name[len] == ':' ? g_strndup(name, len) : NULL;
}

json_t *cmdline_keys_tree(const GPtrArray *keys)
{
    json_t *tree = json_object();
    for (guint i = 0; i < keys->len; i++) {
        const struct cmdline_key *each = g_ptr_array_index(keys, i);
        if (strlen(each->key) > CMDLINE_KEY_MAX) {
            json_decref(tree);
            return NULL;
        }
        g_auto(GStrv) parts = g_strsplit(each->key, ".", -1);
        json_t *node = tree;
        unsigned last = g_strv_length(parts);
        for (unsigned k = 0; k + 1 < last; k++) {
            if (!json_is_object(json_object_get(node, parts[k])))
                json_object_set_new(node, parts[k], json_object());
            node = json_object_get(node, parts[k]);
        }
        if (last && !json_is_object(json_object_get(node, parts[last - 1])))
            json_object_set_new(node, parts[last - 1], json_string_nocheck(each->value));
    }
    return tree;
}
