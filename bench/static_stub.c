/* A static libnvidia-ml.so.1: the answers that were recorded in the file that STATIC_STUB names, from memory, without a driver.
 * What the fake costs a program is measured against it. Records: index, sizes of request and reply, both. */
#include "nvml.c"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct record {
    uint32_t index, request, reply;
    char data[];
};

static const char *records, *records_end;

static const struct record *next_record(const struct record *record)
{
    return (const struct record *)(record->data + record->request + record->reply);
}

/* The same request; else, for those with a time in them, one of the same length to the same card. */
static int64_t replay(uint32_t index, const void *request, uint32_t size, void *reply, uint32_t room)
{
    const struct record *near = NULL;
    for (const struct record *one = (const void *)records; (const char *)one < records_end; one = next_record(one)) {
        if (one->index != index || one->request != size || one->reply > room)
            continue;
        int same = memcmp(one->data, request, size) == 0;
        if (same || (near == NULL && memcmp(one->data, request, size < 8 ? size : 8) == 0))
            near = one;
        if (same)
            break;
    }
    if (near == NULL)
        return -1;
    memcpy(reply, near->data + near->request, near->reply);
    return near->reply;
}

__attribute__((constructor)) static void load(void)
{
    const char *name = getenv("STATIC_STUB");
    int fd = name != NULL ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) != 0 || facts.st_size == 0)
        return;
    records = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    records_end = records + facts.st_size;
    close(fd);
    fake_gpu_attach(replay, "");
}
