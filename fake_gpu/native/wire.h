/* What the library and the executable share: finding the driver's socket, and whole frames over it.
 *
 * A frame is a 32-bit length and that many bytes. Both ends refuse a frame above FRAME_LIMIT. */
#ifndef FAKE_GPU_WIRE_H
#define FAKE_GPU_WIRE_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FRAME_LIMIT (1u << 20)
#define PROTOCOL_VERSION 1

struct hello {
    char magic[4];
    uint8_t version;
    uint8_t role; /* 'N': NVML calls, 'S': a run of nvidia-smi */
    uint16_t unused;
    uint32_t checksum;
    int32_t forked_from; /* the process that this one was forked from with the library loaded, or 0 */
};

_Static_assert(sizeof(struct hello) == 16, "the driver unpacks 16 bytes");
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the protocol is little-endian"
#endif

static int send_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        at += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int receive_all(int fd, void *data, size_t size)
{
    char *at = data;
    while (size > 0) {
        ssize_t got = recv(fd, at, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

/* The socket of the driver whose private directory holds `binary` as <directory>/<bin or lib>/<name>;
 * FAKE_GPU_SOCKET wins. Returns 0 and fills `address`, or -1 where there is no such path. */
static int find_socket(const char *binary, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    const char *named = getenv("FAKE_GPU_SOCKET");
    if (named != NULL && named[0] != '\0') {
        if (strlen(named) >= sizeof address->sun_path)
            return -1;
        strcpy(address->sun_path, named);
        return 0;
    }
    if (binary == NULL)
        return -1;
    const char *slash = strrchr(binary, '/');
    if (slash == NULL)
        return -1;
    int written = snprintf(address->sun_path, sizeof address->sun_path, "%.*s/../socket",
                           (int)(slash - binary), binary);
    return written > 0 && (size_t)written < sizeof address->sun_path ? 0 : -1;
}

/* A connection that has said hello, or -1. */
static int connect_driver(const struct sockaddr_un *address, struct hello hello)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    memcpy(hello.magic, "FGPU", 4);
    hello.version = PROTOCOL_VERSION;
    int connected;
    do /* a signal that comes while the driver's queue of clients is full */
        connected = connect(fd, (const struct sockaddr *)address, sizeof *address);
    while (connected != 0 && errno == EINTR);
    if (connected != 0 || send_all(fd, &hello, sizeof hello) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

#endif
