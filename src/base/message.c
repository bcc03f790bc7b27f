#include "base/message.h"

#include <stdarg.h>
#include <stdio.h>

void message_emit(const message_sink *sink, message_level level, const char *format, ...) {
    if (!sink || !sink->emit)
        return;
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sink->emit(sink->context, level, text);
}
