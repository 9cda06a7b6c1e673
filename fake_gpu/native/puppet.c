/* A process that exists so that a GPU can be held by it: it waits to be killed.
 *
 * It ends by itself when the process that made it ends, however that ends: its standard input then closes, or its pidfd
 * says so where somebody else still holds the other end of that pipe. With a second argument it ignores SIGTERM. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    pid_t parent = getppid();
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    if (argc > 0)
        prctl(PR_SET_NAME, slash != NULL ? slash + 1 : argv[0]);
    sigset_t none; /* whoever made it may hold signals back; it must not */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGTERM, argc > 1 ? SIG_IGN : SIG_DFL);
    signal(SIGINT, SIG_DFL);
    if (write(STDOUT_FILENO, "r", 1) != 1) /* ready: signals are as they should be */
        return 1;
    close(STDOUT_FILENO);
#ifdef SYS_pidfd_open
    int pidfd = (int)syscall(SYS_pidfd_open, parent, 0);
#else
    int pidfd = -1;
#endif
    struct pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {pidfd, POLLIN, 0}};
    while (poll(watched, pidfd >= 0 ? 2 : 1, -1) <= 0)
        continue;
    return 0;
}
