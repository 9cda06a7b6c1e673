/* llama-server and llama-fit-params, as far as a process is needed for them: it tells the driver how it was run, listens
 * on loopback where it is told to, and carries what comes over its connections to the driver, and back.
 *
 * It ends by itself when the driver does, however that ends: its connection then closes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/time.h>

#include "request.h"

/* With the rest below 1024, the usual limit of descriptors. */
enum { CONNECTIONS = 768, CHUNK = 1 << 16, DRIVER = 0, LISTENER = 1, FIRST = 2, SEND_PATIENCE_S = 5 };

static const char BYE[] = "srv    operator(): operator(): cleaning up before exit...\n";
static const char ABANDONED[] = "fake llama-server: the fake driver that it belongs to has ended\n";

static const char FULL[] = "fake llama-server: too many open connections: no other is taken until one is closed\n";

static char own_path[PATH_MAX];
static struct pollfd watched[FIRST + CONNECTIONS];

/* At once, and not by a flag: a signal just before poll(2) would be forgotten. */
static void on_signal(int number)
{
    (void)number;
    write_all(STDERR_FILENO, BYE, sizeof BYE - 1);
    _exit(0);
}

/* A frame for the driver: a letter, a number, bytes. */
static int tell(char kind, uint32_t number, const void *data, size_t size)
{
    char head[9];
    uint32_t length = (uint32_t)(5 + size);
    memcpy(head, &length, 4);
    head[4] = kind;
    memcpy(head + 5, &number, 4);
    return send_all(watched[DRIVER].fd, head, sizeof head) || send_all(watched[DRIVER].fd, data, size) ? -1 : 0;
}

/* Listens on 127.0.0.1, whatever interface was asked for, and says on which port; 0: it cannot. */
static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 128) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &size) == 0) {
        watched[LISTENER].fd = fd;
        return tell('B', ntohs(address.sin_port), "", 0);
    }
    if (fd >= 0)
        close(fd);
    return tell('B', 0, "", 0);
}

static void hang_up(int place)
{
    close(watched[place].fd);
    watched[place].fd = -1;
    watched[LISTENER].events = POLLIN; /* there is room again */
}

/* A child that lives on when this process is killed. Its own connection says to the driver who it is. */
static void leave_child(void)
{
    pid_t parent = getpid();
    if (fork() != 0)
        return;
    setsid();
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    for (int place = DRIVER; place < FIRST + CONNECTIONS; place++)
        if (watched[place].fd >= 0)
            close(watched[place].fd);
    struct sockaddr_un address;
    int fd = find_socket(own_path, &address) == 0 ? connect_driver(&address, (struct hello){.role = 'L'}) : -1;
    watched[DRIVER].fd = fd;
    if (fd < 0 || tell('G', (uint32_t)parent, "", 0) != 0)
        _exit(1);
    struct pollfd closed = {.fd = fd, .events = POLLRDHUP};
    while (poll(&closed, 1, -1) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

/* Does one thing. Returns the exit code, or -1 to go on. */
static int obey(const char *order, uint32_t size)
{
    const char *data = order + 1;
    uint32_t number = 0;
    uint32_t rest = size - 1;
    if (strchr("bkdcx", order[0]) != NULL) {
        if (size < 5)
            return 255;
        memcpy(&number, data, 4);
        data += 4;
        rest -= 4;
    }
    int is_connection = number < CONNECTIONS && watched[FIRST + number % CONNECTIONS].fd >= 0;
    switch (order[0]) {
    case 'o':
        write_all(STDOUT_FILENO, data, rest);
        return -1;
    case 'e':
        write_all(STDERR_FILENO, data, rest);
        return -1;
    case 'b':
        return listen_on((uint16_t)number) == 0 ? -1 : 1;
    case 'h':
        signal(SIGTERM, on_signal);
        signal(SIGINT, on_signal);
        return -1;
    case 'i':
        signal(SIGTERM, SIG_IGN);
        return -1;
    case 'g':
        leave_child();
        return -1;
    case 'k':
        signal((int)number, SIG_DFL);
        raise((int)number);
        return 255;
    case 'd':
        if (is_connection && send_all(watched[FIRST + number].fd, data, rest) != 0)
            shutdown(watched[FIRST + number].fd, SHUT_RDWR); /* its end is noticed as that of any other */
        return -1;
    case 'c':
        if (is_connection)
            shutdown(watched[FIRST + number].fd, SHUT_WR);
        return -1;
    case 'x':
        return (unsigned char)number;
    default:
        return 255;
    }
}

static int obey_next(void)
{
    uint32_t size;
    if (receive_all(watched[DRIVER].fd, &size, sizeof size) != 0 || size < 1 || size > FRAME_LIMIT)
        return -2;
    char *order = malloc(size);
    if (order == NULL || receive_all(watched[DRIVER].fd, order, size) != 0)
        return -2;
    int code = obey(order, size);
    free(order);
    return code;
}

/* Who finds no place waits in the kernel's queue: to be hung up on would look like a server that has died. */
static void accept_one(void)
{
    struct timeval patience = {.tv_sec = SEND_PATIENCE_S};
    int on = 1, fd = -1, place = FIRST;
    while (place < FIRST + CONNECTIONS && watched[place].fd >= 0)
        place++;
    int is_full = place == FIRST + CONNECTIONS;
    if (!is_full) {
        fd = accept4(watched[LISTENER].fd, NULL, NULL, SOCK_CLOEXEC);
        is_full = fd < 0 && (errno == EMFILE || errno == ENFILE);
    }
    if (is_full) {
        static int told;
        watched[LISTENER].events = 0;
        if (!told++)
            write_all(STDERR_FILENO, FULL, sizeof FULL - 1);
    }
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    watched[place].fd = fd;
}

static int carry(int place)
{
    char data[CHUNK];
    ssize_t got = recv(watched[place].fd, data, sizeof data, 0);
    if (got < 0 && errno == EINTR)
        return 0;
    if (got > 0)
        return tell('D', (uint32_t)(place - FIRST), data, (size_t)got);
    hang_up(place);
    return tell('C', (uint32_t)(place - FIRST), "", 0);
}

/* One round of what has come. Returns the exit code, -1 to go on, -2 where the driver has ended. */
static int serve(void)
{
    if (poll(watched, FIRST + CONNECTIONS, -1) < 0)
        return -1; /* a signal */
    if (watched[DRIVER].revents)
        return obey_next();
    for (int place = FIRST; place < FIRST + CONNECTIONS; place++)
        if (watched[place].fd >= 0 && watched[place].revents && carry(place) != 0)
            return -2;
    if (watched[LISTENER].fd >= 0 && watched[LISTENER].revents)
        accept_one();
    return -1;
}

int main(int argc, char **argv)
{
    for (int place = DRIVER; place < FIRST + CONNECTIONS; place++)
        watched[place] = (struct pollfd){.fd = -1, .events = POLLIN};
    watched[DRIVER].fd = connect_along_links((const char *)getauxval(AT_EXECFN), 'L', own_path);
    signal(SIGPIPE, SIG_IGN); /* as the HTTP library of the real one has it */
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    int code = -2;
    if (watched[DRIVER].fd >= 0 &&
        send_request(watched[DRIVER].fd, argc, argv, own_path, visible != NULL ? visible : "\x01") == 0)
        for (code = -1; code == -1;)
            code = serve();
    if (code >= 0)
        return code;
    write_all(STDERR_FILENO, ABANDONED, sizeof ABANDONED - 1);
    return 1;
}
