/* How a layer tells a person something that is no error: the caller decides where it goes. */
#ifndef GRAFT_BASE_MESSAGE_H
#define GRAFT_BASE_MESSAGE_H

typedef enum message_level { MESSAGE_INFO, MESSAGE_WARNING } message_level;

typedef struct message_sink {
    void (*emit)(void *context, message_level, const char *text); /* NULL: messages are dropped */
    void *context;
} message_sink;

void message_emit(const message_sink *, message_level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
