/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads and makes the host's key (key.h). A new key is written to a file of another name, synced, and then
 * linked to its own name. The link fails if there is a key already: two daemons that start at once get the
 * same key, and a key that exists is never overwritten.
 */
#include "daemon/trust/key.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/refusal.h"

#define FILE_MAX 4096

static const uint8_t spki_head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

struct host_key {
    uint8_t public[KEY_LEN];
    gnutls_certificate_credentials_t credentials;
};

char *key_text(const uint8_t *key)
{
    return g_base64_encode(key, KEY_LEN);
}

bool key_parse(const char *text, uint8_t *key)
{
    gsize len = 0;
    if (strlen(text) != KEY_TEXT_LEN)
        return false;
    g_autofree guchar *bytes = g_base64_decode(text, &len);
    if (len != KEY_LEN)
        return false;
    g_autofree char *again = g_base64_encode(bytes, len);
    if (strcmp(again, text) != 0)
        return false;
    memcpy(key, bytes, KEY_LEN);
    return true;
}

bool key_from_spki(const uint8_t *der, size_t len, uint8_t *key)
{
    if (len != sizeof spki_head + KEY_LEN || memcmp(der, spki_head, sizeof spki_head) != 0)
        return false;
    memcpy(key, der + sizeof spki_head, KEY_LEN);
    return true;
}

/* Sets the credentials to the private key of this text. False with a reason. */
static bool take_private(struct host_key *key, const gnutls_datum_t *pem, const char **why)
{
    gnutls_privkey_t private = NULL;
    gnutls_pubkey_t public = NULL;
    gnutls_pcert_st certificate;
    gnutls_datum_t spki = {NULL, 0};
    int status = gnutls_privkey_init(&private);
    if (status >= 0)
        status = gnutls_privkey_import_x509_raw(private, pem, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN);
    if (status >= 0)
        status = gnutls_pubkey_init(&public);
    if (status >= 0)
        status = gnutls_pubkey_import_privkey(public, private, 0, 0);
    if (status >= 0)
        status = gnutls_pubkey_export2(public, GNUTLS_X509_FMT_DER, &spki);
    if (status >= 0 && !key_from_spki(spki.data, spki.size, key->public))
        status = GNUTLS_E_UNKNOWN_PK_ALGORITHM;
    if (status >= 0)
        status = gnutls_certificate_allocate_credentials(&key->credentials);
    /* The certificate takes over the public key, and the credentials take over both. */
    if (status >= 0)
        status = gnutls_pcert_import_rawpk(&certificate, public, 0);
    if (status >= 0) {
        public = NULL;
        status = gnutls_certificate_set_key(key->credentials, NULL, 0, &certificate, 1, private);
        if (status >= 0)
        private = NULL;
        else gnutls_pcert_deinit(&certificate);
    }
    gnutls_free(spki.data);
    gnutls_pubkey_deinit(public);
    gnutls_privkey_deinit(private);
    *why = status < 0 ? gnutls_strerror(status) : NULL;
    return status >= 0;
}

/* Reads the whole file into bytes, which the caller wipes. 0; -EACCES: others may use the file; -errno. */
static int read_file(const char *path, char *bytes, size_t size, size_t *len)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;
    int result = fstat(fd, &status) < 0 ? -errno : 0;
    bool ours = result == 0 && S_ISREG(status.st_mode) && (status.st_mode & 077) == 0 &&
                (status.st_uid == 0 || status.st_uid == geteuid());
    ssize_t n = ours ? read(fd, bytes, size) : 0;
    if (result == 0 && !ours)
        result = -EACCES;
    else if (n < 0)
        result = -errno;
    else
        *len = (size_t)n;
    close(fd);
    return result;
}

static bool write_whole(int fd, const void *data, size_t len)
{
    return write(fd, data, len) == (ssize_t)len && fsync(fd) == 0;
}

/* Makes the file with a new key. 0; -EEXIST: another process was first; another -errno. */
static int make_file(const char *dir, const char *path)
{
    gnutls_x509_privkey_t key = NULL;
    gnutls_datum_t pem = {NULL, 0};
    g_autofree char *temporary = g_build_filename(dir, ".key-XXXXXX", NULL);
    int fd = -1, result = -EIO;
    if (gnutls_x509_privkey_init(&key) >= 0 &&
        gnutls_x509_privkey_generate(key, GNUTLS_PK_EDDSA_ED25519, 0, 0) >= 0 &&
        gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem) >= 0) {
        fd = g_mkstemp_full(temporary, O_RDWR | O_CLOEXEC, 0600);
        result = fd < 0 ? -errno : 0;
    }
    if (fd >= 0) {
        result = write_whole(fd, pem.data, pem.size) && link(temporary, path) == 0 ? 0 : -errno;
        unlink(temporary);
        close(fd);
        int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir_fd >= 0) {
            fsync(dir_fd);
            close(dir_fd);
        }
    }
    if (pem.data)
        gnutls_memset(pem.data, 0, pem.size);
    gnutls_free(pem.data);
    gnutls_x509_privkey_deinit(key);
    return result;
}

struct host_key *host_key_open(const char *dir, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "key", NULL);
    char text[FILE_MAX + 1];
    size_t len = 0;
    const char *why = NULL;
    if (g_mkdir_with_parents(dir, 0755) < 0) {
        refuse(error, "the folder %s cannot be made: %s", dir, g_strerror(errno));
        return NULL;
    }
    int status = read_file(path, text, FILE_MAX, &len);
    if (status == -ENOENT) {
        status = make_file(dir, path);
        if (status == 0 || status == -EEXIST)
            status = read_file(path, text, FILE_MAX, &len);
    }
    if (status == -EACCES)
        refuse(error,
               "%s is not used: others may read or write it; 'chown root %s; chmod 600 %s', or make "
               "another key by removing it",
               path, path, path);
    else if (status < 0)
        refuse(error, "this host's key %s cannot be read or made: %s", path, g_strerror(-status));
    if (status < 0)
        return NULL;
    struct host_key *key = g_new0(struct host_key, 1);
    text[len] = 0;
    const gnutls_datum_t pem = {(unsigned char *)text, (unsigned)len};
    bool taken = take_private(key, &pem, &why);
    gnutls_memset(text, 0, sizeof text);
    if (taken)
        return key;
    refuse(error, "%s holds no Ed25519 key: %s", path, why);
    host_key_free(key);
    return NULL;
}

void host_key_free(struct host_key *key)
{
    if (!key)
        return;
    if (key->credentials)
        gnutls_certificate_free_credentials(key->credentials);
    g_free(key);
}

const uint8_t *host_key_public(const struct host_key *key)
{
    return key->public;
}

gnutls_certificate_credentials_t host_key_credentials(const struct host_key *key)
{
    return key->credentials;
}
