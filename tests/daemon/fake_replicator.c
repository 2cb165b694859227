/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program that the daemon starts in place of a replicator: it passes its control descriptor to the test
 * that listens at the socket named by UNDERSTUDY_TEST_SOCKET, and ends. The test speaks for it from there on.
 * fake_replicator --control-fd 3
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    const char *path = getenv("UNDERSTUDY_TEST_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int control = argc == 3 && strcmp(argv[1], "--control-fd") == 0 ? atoi(argv[2]) : -1;
    int to_test = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!path || strlen(path) >= sizeof address.sun_path || control < 0)
        return 2;
    strcpy(address.sun_path, path);
    if (connect(to_test, (struct sockaddr *)&address, sizeof address) < 0)
        return 1;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof control)];
    } ancillary = {
        .header = {.cmsg_len = CMSG_LEN(sizeof control), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec byte = {.iov_base = (char[1]){0}, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    memcpy(CMSG_DATA(&ancillary.header), &control, sizeof control);
    return sendmsg(to_test, &message, MSG_NOSIGNAL) == 1 ? 0 : 1;
}
