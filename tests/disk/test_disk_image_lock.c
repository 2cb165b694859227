/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU, qemu-io and qemu-img, and disk_image_open, on one image: whoever comes second is refused where both
 * would write, whichever way round. The real programs, since it is their lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_image.h"

static char folder[] = "/tmp/disk-image-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/image", folder);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* ---- other programs ---- */

struct program {
    pid_t pid;
    int input;
    FILE *output; /* and errors */
};

static struct program start(char *const command[])
{
    int input[2], output[2];
    assert_int_equal(pipe2(input, O_CLOEXEC), 0);
    assert_int_equal(pipe2(output, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(input[0], 0);
        dup2(output[1], 1);
        dup2(output[1], 2);
        execvp(command[0], command);
        _exit(127);
    }
    close(input[0]);
    close(output[1]);
    return (struct program){pid, input[1], fdopen(output[0], "r")};
}

/* Waits until it has said so. */
static void await(struct program *program, const char *words)
{
    char said[4096] = "";
    for (size_t n = 0; n + 1 < sizeof said; n++) {
        int c = fgetc(program->output);
        if (c == EOF)
            fail_msg("ended without \"%s\": %s", words, said);
        said[n] = (char)c;
        if (strstr(said, words))
            return;
    }
    fail_msg("did not say \"%s\": %s", words, said);
}

/* It greets before it has opened its disks, but answers only then. */
static void await_qemu(struct program *qemu)
{
    static const char hello[] = "{\"execute\": \"qmp_capabilities\"}\n";
    assert_int_equal(write(qemu->input, hello, sizeof hello - 1), sizeof hello - 1);
    await(qemu, "\"return\"");
}

/* Its exit status. */
static int finish(struct program *program, int signal)
{
    int status;
    if (signal)
        kill(program->pid, signal);
    close(program->input);
    fclose(program->output);
    assert_int_equal(waitpid(program->pid, &status, 0), program->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static struct program start_qemu(const char *format)
{
    static char drive[128];
    const char *qemu = getenv("UNDERSTUDY_QEMU");
    snprintf(drive, sizeof drive, "if=virtio,format=%s,file=%s", format, path);
    return start((char *[]){(char *)(uintptr_t)(qemu ? qemu : "qemu-system-x86_64"), "-display", "none",
                            "-nodefaults", "-accel", "tcg", "-m", "32", "-S", "-qmp", "stdio", "-drive",
                            drive, NULL});
}

static void run_to_end(char *const command[])
{
    struct program program = start(command);
    while (fgetc(program.output) != EOF)
        ;
    assert_int_equal(finish(&program, 0), 0);
}

static struct disk_image *open_image(void)
{
    struct disk_image *image = NULL;
    char *why = NULL;
    if (disk_image_open(&image, path, 0, &why) < 0)
        fail_msg("%s", why);
    return image;
}

static void assert_in_use(void)
{
    struct disk_image *image = NULL;
    char *why = NULL;
    assert_int_equal(disk_image_open(&image, path, 0, &why), -EAGAIN);
    assert_non_null(strstr(why, "in use by another process"));
    free(why);
}

/* ---- they are first ---- */

static void test_an_image_that_a_qemu_has_is_refused(void **state)
{
    (void)state;
    for (unsigned qcow2 = 0; qcow2 < 2; qcow2++) {
        if (qcow2)
            run_to_end((char *[]){"qemu-img", "create", "-f", "qcow2", path, "1M", NULL});
        struct program qemu = start_qemu(qcow2 ? "qcow2" : "raw");
        await_qemu(&qemu);
        assert_in_use();
        finish(&qemu, SIGTERM);
        disk_image_close(open_image()); /* the lock has gone with it */
    }
}

static void test_an_image_that_qemu_io_writes_is_refused(void **state)
{
    (void)state;
    struct program tool = start((char *[]){"qemu-io", "-f", "raw", path, NULL});
    await(&tool, "qemu-io>");
    assert_in_use();
    assert_int_equal(finish(&tool, 0), 0);
    disk_image_close(open_image());
}

static void test_an_image_that_is_only_read_is_opened(void **state)
{
    (void)state;
    struct program tool = start((char *[]){"qemu-io", "-r", "-f", "raw", path, NULL});
    await(&tool, "qemu-io>");
    disk_image_close(open_image());
    assert_int_equal(finish(&tool, 0), 0);
}

/* ---- we are first ---- */

static void test_qemu_is_refused_an_image_that_is_served(void **state)
{
    (void)state;
    struct disk_image *image = open_image();
    struct program qemu = start_qemu("raw");
    await(&qemu, "Failed to get");
    assert_int_equal(finish(&qemu, 0), 1);
    /* Not even where only the descriptor, as nbdkit inherits it, is left. */
    int inherited = dup(disk_image_fd(image));
    disk_image_close(image);
    qemu = start_qemu("raw");
    await(&qemu, "Failed to get");
    assert_int_equal(finish(&qemu, 0), 1);
    close(inherited);
    qemu = start_qemu("raw");
    await_qemu(&qemu);
    finish(&qemu, SIGTERM);
}

static void test_tools_are_refused_an_image_that_is_served(void **state)
{
    (void)state;
    struct disk_image *image = open_image();
    struct program tool = start((char *[]){"qemu-img", "resize", "-f", "raw", path, "2M", NULL});
    await(&tool, "Failed to get");
    assert_int_equal(finish(&tool, 0), 1);
    tool = start((char *[]){"qemu-img", "convert", "-O", "raw", path, "/dev/null", NULL});
    await(&tool, "Failed to get");
    assert_int_equal(finish(&tool, 0), 1);
    /* -U is the user's word that a picture in motion will do. */
    run_to_end((char *[]){"qemu-img", "bench", "-U", "-c", "1", "-f", "raw", path, NULL});
    disk_image_close(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_image_that_qemu_io_writes_is_refused),
        cmocka_unit_test(test_an_image_that_is_only_read_is_opened),
        cmocka_unit_test(test_qemu_is_refused_an_image_that_is_served),
        cmocka_unit_test(test_tools_are_refused_an_image_that_is_served),
        cmocka_unit_test(test_an_image_that_a_qemu_has_is_refused), /* last: it makes a qcow2 of it */
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
