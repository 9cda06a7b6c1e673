/* nvidia-smi: tells the driver how it was run, then does what the driver says until it is told to exit. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>

#include "request.h"

static const char NO_DRIVER[] =
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n";

enum { EXIT_NO_DRIVER = 9, EXIT_OTHER = 255 };

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
        return EXIT_OTHER;
    int file = open(data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0 || dup2(file, STDOUT_FILENO) < 0) {
        write_all(STDOUT_FILENO, end + 1, size - (uint32_t)(end + 1 - data));
        return EXIT_OTHER;
    }
    close(file);
    return -1;
}

/* A full disk, say: what is missing must not look like an answer. */
static int not_written(void)
{
    dprintf(STDERR_FILENO, "ERROR: Could not write the output: %s\n", strerror(errno));
    return EXIT_OTHER;
}

/* Does one thing. Returns the exit code, or -1 to go on. */
static int obey(int fd, const char *order, uint32_t size)
{
    const char *data = order + 1;
    switch (order[0]) {
    case 'o':
        return write_all(STDOUT_FILENO, data, size - 1) == 0 ? -1 : not_written();
    case 'e':
        write_all(STDERR_FILENO, data, size - 1);
        return -1;
    case 'f':
        return write_into(data, size - 1);
    case 'i':
        signal(SIGTERM, SIG_IGN);
        return -1;
    case 'w': /* it waits from here on; whoever is impatient may end it */
        return -1;
    case 'g':
        leave_grandchild(fd);
        return -1;
    case 'x':
        return size == 2 ? (unsigned char)data[0] : EXIT_OTHER;
    default:
        return EXIT_OTHER;
    }
}

int main(int argc, char **argv)
{
    char path[PATH_MAX], directory[PATH_MAX];
    /* A SIGTERM that comes before the first order waits for it: that may be to ignore SIGTERM. */
    sigset_t held, before;
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigprocmask(SIG_BLOCK, &held, &before);
    int fd = connect_along_links((const char *)getauxval(AT_EXECFN), 'S', path);
    const char *here = getcwd(directory, sizeof directory) != NULL ? directory : "";
    if (fd < 0 || send_request(fd, argc, argv, here, isatty(STDOUT_FILENO) ? "tty" : "") != 0)
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
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    return code;
}
