/* How an executable tells the driver of the way it was run, and what it may be told to write. */
#ifndef FAKE_GPU_REQUEST_H
#define FAKE_GPU_REQUEST_H

#include <limits.h>

#include "wire.h"

struct buffer {
    char *data;
    size_t size, room;
};

static void append(struct buffer *buffer, const void *data, size_t size)
{
    if (buffer->size + size > buffer->room) {
        buffer->room = (buffer->size + size) * 2;
        buffer->data = realloc(buffer->data, buffer->room);
        if (buffer->data == NULL)
            _exit(255);
    }
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

static void append_text(struct buffer *buffer, const char *text)
{
    uint32_t size = (uint32_t)strlen(text);
    append(buffer, &size, sizeof size);
    append(buffer, text, size);
}

/* Returns 0, or -1 with errno where not everything could be written. */
static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

/* argv and two texts more, as one frame. */
static int send_request(int fd, int argc, char **argv, const char *first, const char *second)
{
    struct buffer frame = {NULL, 0, 0};
    uint32_t size = 0, count = (uint32_t)argc;
    append(&frame, &size, sizeof size);
    append(&frame, &count, sizeof count);
    for (int place = 0; place < argc; place++)
        append_text(&frame, argv[place]);
    append_text(&frame, first);
    append_text(&frame, second);
    size = (uint32_t)(frame.size - sizeof size);
    memcpy(frame.data, &size, sizeof size);
    int sent = size <= FRAME_LIMIT ? send_all(fd, frame.data, frame.size) : -1;
    free(frame.data);
    return sent;
}

/* Links may lead to the one in the driver's directory: the first whose place has a driver is it. `path` has room for
 * PATH_MAX bytes, and is then where that was. Returns the connection, or -1. */
static int connect_along_links(const char *self, char role, char *path)
{
    char target[PATH_MAX];
    snprintf(path, PATH_MAX, "%s", self != NULL ? self : "");
    for (int links = 0; links < 8; links++) {
        struct sockaddr_un address;
        int fd = find_socket(path, &address) == 0 ? connect_driver(&address, (struct hello){.role = (uint8_t)role}) : -1;
        ssize_t length = fd < 0 ? readlink(path, target, sizeof target - 1) : 0;
        if (fd >= 0 || length <= 0)
            return fd;
        target[length] = '\0';
        char *slash = strrchr(path, '/');
        size_t directory = target[0] != '/' && slash != NULL ? (size_t)(slash + 1 - path) : 0;
        if (directory + (size_t)length >= PATH_MAX)
            return -1;
        memcpy(path + directory, target, (size_t)length + 1);
    }
    return -1;
}

#endif
