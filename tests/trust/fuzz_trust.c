/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: the texts and bytes by which keys, trusted hosts, roles and codes come in. What is
 * accepted is what would be written again. The first byte says what the rest is.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "daemon/trust/key.h"
#include "daemon/trust/pairing.h"
#include "daemon/trust/roles.h"
#include "daemon/trust/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_store(const char *text, size_t len)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GArray) hosts = store_parse(text, len, &error);
    assert((hosts != NULL) == (error == NULL));
    for (guint i = 0; hosts && i < hosts->len; i++) {
        const struct trusted *host = &g_array_index(hosts, struct trusted, i);
        assert(store_name_is_fit(host->name) && host->may > 0 && host->may <= MAY_ALL);
    }
}

static void try_texts(const char *text)
{
    uint8_t key[KEY_LEN];
    char code[CODE_LEN + 1], shown[CODE_TEXT_LEN + 1], again[CODE_LEN + 1];
    if (key_parse(text, key)) {
        g_autofree char *written = key_text(key);
        assert(strcmp(written, text) == 0);
    }
    if (code_read(text, code)) {
        code_show(code, shown);
        assert(code_read(shown, again) && strcmp(code, again) == 0);
    }
    unsigned may = roles_parse(text, NULL);
    if (may) {
        g_autofree char *roles = roles_text(may);
        assert(roles_parse(roles, NULL) == may);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t key[KEY_LEN];
    if (size == 0)
        return 0;
    g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
    if (data[0] % 3 == 0)
        try_store((const char *)data + 1, size - 1);
    else if (data[0] % 3 == 1)
        try_texts(text);
    else if (key_from_spki(data + 1, size - 1, key))
        assert(size == 45);
    return 0;
}
