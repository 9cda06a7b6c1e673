/* libnvidia-ml.so.1: carries every NVML call to the driver and its answer back. It knows how arguments travel, from the
 * generated table, and nothing about what the functions mean.
 *
 * A call goes, in this order: to the driver in this process, by callback; to a real NVML library, where the driver of
 * this process has gone and left one (see fake_gpu_detach); over the socket to the driver of another process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "wire.h"

#define EXPORT __attribute__((visibility("default")))
#define NULL_POINTER 0xFFFFFFFFu
#define STACK_BUFFER 2048

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, MEMORY = 20, UNKNOWN = 999 };

/* The kinds of argument and how many a function has at most, from fake_gpu.nvml.abi. */
#include "nvml_kinds.h"

struct argument {
    uint8_t kind;
    uint8_t reference;
    uint16_t pointer_offset;
    uint16_t count_offset;
    uint32_t size;
};

struct function {
    const char *name;
    uint8_t arguments;
    struct argument argument[MAX_ARGUMENTS];
};

struct text {
    uint32_t code;
    const char *text;
};

#include "nvml_table.h"

#define FUNCTION_COUNT (sizeof FUNCTIONS / sizeof FUNCTIONS[0])

/* Returns the bytes written to `reply`, or a negative number where there is no answer. */
typedef int64_t (*callback_t)(uint32_t index, const void *request, uint32_t size, void *reply, uint32_t room);
typedef uint32_t (*real_t)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
_Static_assert(MAX_WORDS <= 6, "real_t passes six arguments");

static _Atomic(callback_t) callback;
static _Atomic(void *) real_library;
static atomic_uint generation = 1; /* another number: connections from before are not ours any more */
static char attached_socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
static pid_t own_pid;
static int32_t forked_from;
static pthread_key_t connection_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

struct connection {
    int fd;
    unsigned generation;
};

/* ---- life of the process and its threads ---- */

static void close_connection(void *value)
{
    struct connection *connection = value;
    if (connection->fd >= 0)
        close(connection->fd);
    free(connection);
}

static void in_forked_child(void)
{
    /* The callback runs the parent's Python objects, which are only a copy here: join the driver through its socket. */
    atomic_store(&callback, NULL);
    atomic_fetch_add(&generation, 1);
    forked_from = (int32_t)own_pid;
    own_pid = getpid();
}

static void start_up(void)
{
    own_pid = getpid();
    pthread_key_create(&connection_key, close_connection);
    pthread_atfork(NULL, NULL, in_forked_child);
}

/* ---- what the driver's own process calls ---- */

EXPORT uint32_t fake_gpu_table_checksum(void)
{
    return TABLE_CHECKSUM;
}

EXPORT int fake_gpu_attach(callback_t function, const char *socket_path)
{
    pthread_once(&once, start_up);
    if (strlen(socket_path) >= sizeof attached_socket)
        return -1;
    strcpy(attached_socket, socket_path);
    atomic_fetch_add(&generation, 1);
    atomic_store(&real_library, NULL);
    atomic_store(&callback, function);
    return 0;
}

/* `real_path`: the real library, to which later calls of this process go; NULL where the machine has none. An absolute
 * path loads a second library although the loader knows this one by the same SONAME. */
EXPORT int fake_gpu_detach(const char *real_path)
{
    atomic_store(&callback, NULL);
    attached_socket[0] = '\0';
    atomic_fetch_add(&generation, 1);
    if (real_path == NULL)
        return 0;
    void *library = dlopen(real_path, RTLD_LAZY | RTLD_LOCAL);
    atomic_store(&real_library, library);
    return library != NULL ? 0 : -1;
}

/* ---- marshalling ---- */

static uint32_t bounded(uint64_t count, uint32_t size)
{
    uint64_t limit = FRAME_LIMIT / 2 / size;
    return (uint32_t)((count < limit ? count : limit) * size);
}

static uint32_t read_u32(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* Where argument `place` points to, and how many bytes the caller has there. */
static void *target(const struct function *function, const uint64_t *words, unsigned place, uint32_t *room)
{
    const struct argument *argument = &function->argument[place];
    void *pointer = argument->kind == NESTED ? NULL : (void *)(uintptr_t)words[place];
    *room = argument->size;
    switch (argument->kind) {
    case STRING:
        *room = pointer != NULL ? (uint32_t)strnlen(pointer, 4096) : 0;
        break;
    case VERSIONED: /* a version word whose size is not one that the table knows: send the word alone */
        if (pointer != NULL) {
            uint32_t size = read_u32(pointer) & 0xFFFFFFu;
            *room = size >= 4 && size <= argument->size ? size : 4;
        }
        break;
    case INOUT_ARRAY: { /* its count is an int, and what a negative one counts must not be read */
        int32_t count = (int32_t)words[argument->reference];
        *room = count > 0 ? bounded((uint32_t)count, argument->size) : 0;
        break;
    }
    case ARRAY_BY_VALUE:
        *room = bounded((uint32_t)words[argument->reference], argument->size);
        break;
    case ARRAY_BY_POINTER: {
        const void *count = (const void *)(uintptr_t)words[argument->reference];
        *room = count != NULL ? bounded(read_u32(count), argument->size) : 0;
        break;
    }
    case NESTED: {
        uint32_t outer_room;
        const char *outer = target(function, words, argument->reference, &outer_room);
        *room = 0;
        if (outer != NULL && argument->pointer_offset + sizeof pointer <= outer_room) {
            memcpy(&pointer, outer + argument->pointer_offset, sizeof pointer);
            *room = bounded(read_u32(outer + argument->count_offset), argument->size);
        }
        break;
    }
    default:
        break;
    }
    return pointer;
}

static int is_input(uint8_t kind)
{
    return kind == STRING || kind == COUNT || kind == INOUT || kind == VERSIONED || kind == INOUT_ARRAY;
}

/* Writes the request to `to`, or only measures where `to` is NULL. `reply_room`: the longest answer. */
static uint32_t marshal(const struct function *function, const uint64_t *words, char *to, uint32_t *reply_room)
{
    uint32_t size = 0;
    *reply_room = sizeof(uint32_t);
    for (unsigned place = 0; place < function->arguments; place++) {
        uint8_t kind = function->argument[place].kind;
        if (kind == VALUE) {
            if (to != NULL)
                memcpy(to + size, &words[place], sizeof words[place]);
            size += sizeof words[place];
            continue;
        }
        uint32_t room;
        void *pointer = target(function, words, place, &room);
        uint32_t length = pointer != NULL ? room : NULL_POINTER;
        if (to != NULL)
            memcpy(to + size, &length, sizeof length);
        size += sizeof length;
        if (pointer == NULL)
            continue;
        if (is_input(kind)) {
            if (to != NULL)
                memcpy(to + size, pointer, room);
            size += room;
        }
        if (kind != STRING)
            *reply_room += sizeof room + room;
    }
    return size;
}

/* A return code that NVML has; what is none came from nobody who knows NVML. */
static uint32_t known_code(uint32_t code)
{
    for (size_t place = 0; place < sizeof TEXTS / sizeof TEXTS[0]; place++)
        if (TEXTS[place].code == code)
            return code;
    return UNKNOWN;
}

/* Copies an answer to where the caller wants it. An answer that does not fit its frame is none. */
static uint32_t deliver(const struct function *function, const uint64_t *words, const char *reply, uint32_t size)
{
    if (size < sizeof(uint32_t))
        return UNKNOWN;
    /* The rooms of nested arrays stand in memory that the answer overwrites: find every target first. */
    void *targets[MAX_ARGUMENTS] = {NULL};
    uint32_t rooms[MAX_ARGUMENTS] = {0};
    for (unsigned place = 0; place < function->arguments; place++)
        if (function->argument[place].kind != VALUE && function->argument[place].kind != STRING)
            targets[place] = target(function, words, place, &rooms[place]);
    uint32_t at = sizeof(uint32_t);
    for (unsigned place = 0; place < function->arguments; place++) {
        if (targets[place] == NULL)
            continue;
        if (at + sizeof(uint32_t) > size)
            return UNKNOWN;
        uint32_t length = read_u32(reply + at);
        at += sizeof length;
        if (length > rooms[place] || length > size - at)
            return UNKNOWN;
        memcpy(targets[place], reply + at, length);
        at += length;
    }
    uint32_t code = read_u32(reply);
    return code == SUCCESS ? code : known_code(code);
}

/* ---- the driver of another process ---- */

static int own_connection(struct connection **found)
{
    struct connection *connection = pthread_getspecific(connection_key);
    unsigned current = atomic_load(&generation);
    *found = connection;
    if (connection != NULL && connection->fd >= 0 && connection->generation == current)
        return 0;
    if (connection == NULL) {
        connection = calloc(1, sizeof *connection);
        if (connection == NULL)
            return MEMORY;
        connection->fd = -1;
        pthread_setspecific(connection_key, connection);
        *found = connection;
    }
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    struct sockaddr_un address;
    Dl_info info;
    if (attached_socket[0] != '\0') {
        memset(&address, 0, sizeof address);
        address.sun_family = AF_UNIX;
        strcpy(address.sun_path, attached_socket);
    } else if (find_socket(dladdr((void *)(uintptr_t)own_connection, &info) ? info.dli_fname : NULL, &address) != 0) {
        return DRIVER_NOT_LOADED;
    }
    connection->fd = connect_driver(&address,
                                    (struct hello){.role = 'N', .checksum = TABLE_CHECKSUM, .forked_from = forked_from});
    connection->generation = current;
    return connection->fd >= 0 ? 0 : DRIVER_NOT_LOADED;
}

static uint32_t ask_over_socket(uint32_t index, char *frame, uint32_t size, char *reply, uint32_t room,
                                uint32_t *reply_size)
{
    struct connection *connection;
    int failure = own_connection(&connection);
    if (failure != 0)
        return (uint32_t)failure;
    uint32_t header[2] = {size + (uint32_t)sizeof index, index};
    memcpy(frame, header, sizeof header);
    if (send_all(connection->fd, frame, sizeof header + size) != 0
        || receive_all(connection->fd, reply_size, sizeof *reply_size) != 0 || *reply_size > room
        || receive_all(connection->fd, reply, *reply_size) != 0) {
        close(connection->fd);
        connection->fd = -1;
        return DRIVER_NOT_LOADED;
    }
    return SUCCESS;
}

/* ---- one call ---- */

static uint32_t ask_real(void *library, const struct function *function, const uint64_t *words)
{
    void *symbol = dlsym(library, function->name);
    real_t real;
    if (symbol == NULL)
        return FUNCTION_NOT_FOUND;
    memcpy(&real, &symbol, sizeof real);
    return real(words[0], words[1], words[2], words[3], words[4], words[5]);
}

static uint32_t forward(uint32_t index, const uint64_t *words)
{
    const struct function *function = &FUNCTIONS[index];
    pthread_once(&once, start_up);
    callback_t in_process = atomic_load(&callback);
    void *library = in_process == NULL ? atomic_load(&real_library) : NULL;
    if (library != NULL)
        return ask_real(library, function, words);

    char stack[STACK_BUFFER];
    char *buffer = stack;
    uint32_t room, header = 2 * sizeof(uint32_t);
    uint32_t size = marshal(function, words, NULL, &room);
    if (size > FRAME_LIMIT - header || room > FRAME_LIMIT)
        return INVALID_ARGUMENT;
    if (header + size + room > sizeof stack) {
        buffer = malloc(header + size + room);
        if (buffer == NULL)
            return MEMORY;
    }
    char *request = buffer + header, *reply = request + size;
    marshal(function, words, request, &room);
    uint32_t reply_size = 0, code = SUCCESS;
    if (in_process != NULL) {
        int64_t written = in_process(index, request, size, reply, room);
        if (written < 0)
            code = UNKNOWN;
        reply_size = (uint32_t)written;
    } else {
        code = ask_over_socket(index, buffer, size, reply, room, &reply_size);
    }
    if (code == SUCCESS)
        code = deliver(function, words, reply, reply_size);
    if (buffer != stack)
        free(buffer);
    return code;
}

EXPORT const char *nvmlErrorString(uint32_t code)
{
    for (size_t place = 0; place < sizeof TEXTS / sizeof TEXTS[0]; place++)
        if (TEXTS[place].code == code)
            return TEXTS[place].text;
    return "Unknown Error";
}

#include "nvml_entry_points.h"
