/* nvidia-smi: tells the driver how it was run, then does what the driver says until it is told to exit. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>

#include "wire.h"

static const char NO_DRIVER[] =
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n";

enum { EXIT_NO_DRIVER = 9 };

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

static void write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        data += written;
        size -= (size_t)written;
    }
}

static int no_driver(void)
{
    write_all(STDOUT_FILENO, NO_DRIVER, sizeof NO_DRIVER - 1);
    return EXIT_NO_DRIVER;
}

/* A grandchild that lives on and keeps this process's output open, until the driver closes the socket. */
static void leave_grandchild(int fd)
{
    if (fork() != 0)
        return;
    setsid();
    /* It must not read: the next order is its parent's. */
    struct pollfd closed = {.fd = fd, .events = POLLRDHUP};
    while (poll(&closed, 1, -1) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

/* Has what follows written into a file: its name, NUL, and what to say where it cannot be opened. */
static int write_into(const char *data, uint32_t size)
{
    const char *end = memchr(data, '\0', size);
    if (end == NULL)
        return 255;
    int file = open(data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0 || dup2(file, STDOUT_FILENO) < 0) {
        write_all(STDOUT_FILENO, end + 1, size - (uint32_t)(end + 1 - data));
        return 255;
    }
    close(file);
    return -1;
}

/* Does one thing. Returns the exit code, or -1 to go on. */
static int obey(int fd, const char *order, uint32_t size)
{
    const char *data = order + 1;
    switch (order[0]) {
    case 'o':
        write_all(STDOUT_FILENO, data, size - 1);
        return -1;
    case 'e':
        write_all(STDERR_FILENO, data, size - 1);
        return -1;
    case 'f':
        return write_into(data, size - 1);
    case 'i':
        signal(SIGTERM, SIG_IGN);
        return -1;
    case 'g':
        leave_grandchild(fd);
        return -1;
    case 'x':
        return size == 2 ? (unsigned char)data[0] : 255;
    default:
        return 255;
    }
}

static int request(int fd, int argc, char **argv)
{
    struct buffer frame = {NULL, 0, 0};
    uint32_t size = 0, count = (uint32_t)argc;
    char directory[PATH_MAX];
    append(&frame, &size, sizeof size);
    append(&frame, &count, sizeof count);
    for (int place = 0; place < argc; place++)
        append_text(&frame, argv[place]);
    append_text(&frame, getcwd(directory, sizeof directory) != NULL ? directory : "");
    append_text(&frame, isatty(STDOUT_FILENO) ? "tty" : "");
    size = (uint32_t)(frame.size - sizeof size);
    memcpy(frame.data, &size, sizeof size);
    int sent = size <= FRAME_LIMIT ? send_all(fd, frame.data, frame.size) : -1;
    free(frame.data);
    return sent;
}

/* Links may lead to the one in the driver's directory: the first whose place has a driver is it. */
static int connect_along_links(const char *self)
{
    char path[PATH_MAX], target[PATH_MAX];
    snprintf(path, sizeof path, "%s", self != NULL ? self : "");
    for (int links = 0; links < 8; links++) {
        struct sockaddr_un address;
        int fd = find_socket(path, &address) == 0 ? connect_driver(&address, (struct hello){.role = 'S'}) : -1;
        ssize_t length = fd < 0 ? readlink(path, target, sizeof target - 1) : 0;
        if (fd >= 0 || length <= 0)
            return fd;
        target[length] = '\0';
        char *slash = strrchr(path, '/');
        size_t directory = target[0] != '/' && slash != NULL ? (size_t)(slash + 1 - path) : 0;
        if (directory + (size_t)length >= sizeof path)
            return -1;
        memcpy(path + directory, target, (size_t)length + 1);
    }
    return -1;
}

int main(int argc, char **argv)
{
    int fd = connect_along_links((const char *)getauxval(AT_EXECFN));
    if (fd < 0 || request(fd, argc, argv) != 0)
        return no_driver();
    int code = -1;
    while (code < 0) {
        uint32_t size;
        if (receive_all(fd, &size, sizeof size) != 0 || size < 1 || size > FRAME_LIMIT)
            return no_driver();
        char *order = malloc(size);
        if (order == NULL || receive_all(fd, order, size) != 0)
            return no_driver();
        code = obey(fd, order, size);
        free(order);
    }
    return code;
}
