/* strftime_now: Python's strftime on Linux, in the C locale. */
#include "text/template/builtins.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                   "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};

/* ISO 8601's week, and the year it belongs to. */
static int iso_week(const struct tm *t, int *year) {
    int monday_first = (t->tm_wday + 6) % 7;
    int week = (t->tm_yday - monday_first + 10) / 7;
    *year = t->tm_year + 1900;
    if (week < 1) {
        (*year)--;
        int days_before = *year % 4 == 0 && (*year % 100 != 0 || *year % 400 == 0) ? 366 : 365;
        return (t->tm_yday + days_before - monday_first + 10) / 7;
    }
    int length = *year % 4 == 0 && (*year % 100 != 0 || *year % 400 == 0) ? 366 : 365;
    if (week == 53 && t->tm_yday - monday_first + 3 >= length) {
        (*year)++;
        return 1;
    }
    return week;
}

typedef struct field {
    int number, width; /* width 0: no number */
    char padding;
    const char *name; /* instead of a number */
    int name_length;  /* -1: all of it */
} field;

static field number(int n, int width, char padding) {
    return (field){.number = n, .width = width, .padding = padding, .name_length = -1};
}

static field name(const char *of, int length) {
    return (field){.name = of, .name_length = length};
}

static bool put(field *out, field found) {
    *out = found;
    return true;
}

static int twelve(int hour) {
    return hour % 12 ? hour % 12 : 12;
}

/* Directives that are made of others. */
static const char *expansion(char directive) {
    switch (directive) {
    case 'c':
        return "%a %b %e %H:%M:%S %Y";
    case 'D':
    case 'x':
        return "%m/%d/%y";
    case 'F':
        return "%Y-%m-%d";
    case 'T':
    case 'X':
        return "%H:%M:%S";
    case 'R':
        return "%H:%M";
    case 'r':
        return "%I:%M:%S %p";
    default:
        return NULL;
    }
}

static bool find_date(field *out, char directive, const struct tm *t) {
    int year = t->tm_year + 1900, week_year, week = iso_week(t, &week_year);
    switch (directive) {
    case 'a':
        return put(out, name(days[t->tm_wday], 3));
    case 'A':
        return put(out, name(days[t->tm_wday], -1));
    case 'b':
    case 'h':
        return put(out, name(months[t->tm_mon], 3));
    case 'B':
        return put(out, name(months[t->tm_mon], -1));
    case 'C':
        return put(out, number(year / 100, 2, '0'));
    case 'd':
        return put(out, number(t->tm_mday, 2, '0'));
    case 'e':
        return put(out, number(t->tm_mday, 2, ' '));
    case 'g':
        return put(out, number(week_year % 100, 2, '0'));
    case 'G':
        return put(out, number(week_year, 1, '0'));
    case 'j':
        return put(out, number(t->tm_yday + 1, 3, '0'));
    case 'm':
        return put(out, number(t->tm_mon + 1, 2, '0'));
    case 'u':
        return put(out, number(t->tm_wday ? t->tm_wday : 7, 1, '0'));
    case 'U':
        return put(out, number((t->tm_yday + 7 - t->tm_wday) / 7, 2, '0'));
    case 'V':
        return put(out, number(week, 2, '0'));
    case 'w':
        return put(out, number(t->tm_wday, 1, '0'));
    case 'W':
        return put(out, number((t->tm_yday + 7 - (t->tm_wday + 6) % 7) / 7, 2, '0'));
    case 'y':
        return put(out, number(year % 100, 2, '0'));
    case 'Y':
        return put(out, number(year, 1, '0'));
    default:
        return false;
    }
}

static bool find_time(field *out, char directive, const struct tm *t) {
    switch (directive) {
    case 'f':
        return put(out, name("000000", -1)); /* the clock has whole seconds */
    case 'H':
        return put(out, number(t->tm_hour, 2, '0'));
    case 'I':
        return put(out, number(twelve(t->tm_hour), 2, '0'));
    case 'k':
        return put(out, number(t->tm_hour, 2, ' '));
    case 'l':
        return put(out, number(twelve(t->tm_hour), 2, ' '));
    case 'M':
        return put(out, number(t->tm_min, 2, '0'));
    case 'n':
        return put(out, name("\n", -1));
    case 'p':
        return put(out, name(t->tm_hour < 12 ? "AM" : "PM", -1));
    case 'P':
        return put(out, name(t->tm_hour < 12 ? "am" : "pm", -1));
    case 'S':
        return put(out, number(t->tm_sec, 2, '0'));
    case 't':
        return put(out, name("\t", -1));
    case 'z':
    case 'Z':
        return put(out, name("", -1)); /* local time without a zone */
    case '%':
        return put(out, name("%", -1));
    default:
        return false;
    }
}

static void build_field(builder *b, const field *f, char flag) {
    if (f->name) {
        size_t n = f->name_length < 0 ? strlen(f->name) : (size_t)f->name_length;
        for (size_t i = 0; i < n; i++) {
            char c = f->name[i];
            if (flag == '^' && c >= 'a' && c <= 'z')
                c = (char)(c - 32);
            build_bytes(b, &c, 1);
        }
        return;
    }
    char digits[16], padding = flag == '_' ? ' ' : flag == '0' ? '0' : f->padding;
    int n = snprintf(digits, sizeof digits, "%d", f->number);
    if (flag != '-' && n < f->width)
        build_repeat(b, padding, (size_t)(f->width - n));
    build_literal(b, digits);
}

static bool build_format(builder *b, const char *format, size_t n, const struct tm *t) {
    for (size_t i = 0; i < n; i++) {
        if (format[i] != '%' || i + 1 == n) {
            build_bytes(b, format + i, 1);
            continue;
        }
        char flag = strchr("-_0^", format[i + 1]) && format[i + 1] ? format[++i] : 0;
        char directive = i + 1 < n ? format[++i] : 0;
        const char *parts = expansion(directive);
        field f;
        if (parts) {
            if (!build_format(b, parts, strlen(parts), t))
                return false;
        } else if (directive == 's') {
            struct tm copy = *t;
            build_int(b, (int64_t)timegm(&copy));
        } else if (find_date(&f, directive, t) || find_time(&f, directive, t)) {
            build_field(b, &f, flag);
        } else {
            return fail_as(b->m, GRAFT_E_UNSUPPORTED, "strftime_now: %%%c is not supported",
                           directive ? directive : '?');
        }
    }
    return b->m->status == GRAFT_OK;
}

value strftime_now(vm *m, const text *format) {
    struct tm t;
    time_t now = (time_t)m->now;
    builder b = builder_on(m);
    if (!gmtime_r(&now, &t)) /* `now` is local time already */
        return refuse(m, "strftime_now: the time %lld is out of range", (long long)m->now);
    if (!build_format(&b, format->bytes, format->n, &t))
        return failed_value;
    return value_text(builder_finish(&b));
}
