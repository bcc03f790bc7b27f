#include "text/template/spans.h"

#include "base/memory.h"
#include "text/template/transform.h"

#include <string.h>
#include <strings.h>

/* A turn: the bytes printed in one message's iteration, and where among them the message's own
 * fields show. */
typedef struct turn {
    size_t begin, end;
    size_t own_begin, own_end;
    bool has_own, has_role;
    bool is_elsewhere; /* fields of the message show in nobody's turn */
    int32_t stranger;  /* another message whose field shows in it; NOBODY */
    size_t n_places;   /* stretches of text that could be it: more than one is one too many */
} turn;

static bool add_span(template_result *out, vm *m, size_t begin, size_t end, int32_t message) {
    if (begin >= end)
        return true;
    if (!mem_reserve(&out->spans, &out->spans_capacity, out->n_spans + 1, sizeof *out->spans))
        return fail_memory(m);
    out->spans[out->n_spans++] = (template_span){begin, end, message};
    return true;
}

/* The spans that {% generation %} blocks printed, one a block. */
static bool add_generations(template_result *out, vm *m, const text *t) {
    for (size_t i = 0; i < t->n_stretches;) {
        const stretch *first = &t->stretches[i];
        size_t end = first->end;
        int32_t message = first->turn;
        for (i++; i < t->n_stretches && t->stretches[i].begin == end &&
                  t->stretches[i].generation == first->generation;
             i++) {
            end = t->stretches[i].end;
            message = message == NOBODY ? t->stretches[i].turn : message;
        }
        if (first->generation != NOBODY && !add_span(out, m, first->begin, end, message))
            return false;
    }
    return true;
}

static bool is_assistant(const value *message) {
    static const char *const names[] = {"assistant", "model", "chatbot"};
    const value *role = dict_get_literal(message->dict, "role");
    for (size_t i = 0; role && role->kind == VALUE_TEXT && i < sizeof names / sizeof *names; i++)
        if (role->text->n == strlen(names[i]) &&
            strncasecmp(role->text->bytes, names[i], role->text->n) == 0)
            return true;
    return false;
}

static void note_stretch(turn *t, const stretch *s, int32_t message) {
    t->end = s->end;
    if (s->owner == NOBODY)
        return;
    if (s->owner == message && s->is_role) {
        t->has_role = true;
    } else if (s->owner == message) {
        if (!t->has_own)
            t->own_begin = s->begin;
        t->own_end = s->end;
        t->has_own = true;
    } else if (!s->is_role) {
        t->stranger = s->owner;
    }
}

/* One more place where the message was printed. Those that show fields of it count before those
 * that do not. */
static void note_place(turn *known, const turn *place) {
    bool is_first = known->n_places == 0, is_better = place->has_own && !known->has_own;
    bool is_elsewhere = known->is_elsewhere;
    size_t n_places = is_first || is_better              ? 1
                      : place->has_own == known->has_own ? known->n_places + 1
                                                         : known->n_places;
    if (is_first || is_better)
        *known = *place;
    known->is_elsewhere = is_elsewhere;
    known->n_places = n_places;
}

/* The turns of all messages, from the stretches of the text. */
static turn *find_turns(vm *m, const text *t, size_t n_messages) {
    turn *turns = vm_take(m, n_messages, sizeof *turns);
    for (size_t i = 0; turns && i < t->n_stretches;) {
        const stretch *first = &t->stretches[i];
        int32_t message = first->turn;
        if (message == NOBODY) {
            if (first->owner != NOBODY && !first->is_role)
                turns[first->owner].is_elsewhere = true;
            i++;
            continue;
        }
        turn place = {.begin = first->begin, .end = first->begin, .stranger = NOBODY};
        for (; i < t->n_stretches && t->stretches[i].turn == message &&
               t->stretches[i].begin == place.end;
             i++)
            note_stretch(&place, &t->stretches[i], message);
        note_place(&turns[message], &place);
    }
    return turns;
}

static bool begins_with(const text *t, size_t at, const text *prefix) {
    return prefix->n <= t->n - at && memcmp(t->bytes + at, prefix->bytes, prefix->n) == 0;
}

/* Where the header that announces the turn ends: after the generation prompt, wherever the turn
 * begins with it; else where the message's own text begins. False when neither is there. */
static bool find_header(vm *m, size_t *out, const span_request *request, const turn *t) {
    const text *all = request->rendered, *prompt = request->prompt;
    size_t literal_end = t->has_own ? t->own_begin : t->end;
    if (prompt && prompt->n) {
        size_t at = text_find(m, all, prompt, t->begin, literal_end);
        if (at != SIZE_MAX) {
            *out = at + prompt->n;
            return true;
        }
    } else if (prompt && !t->has_role && t->has_own) {
        *out = t->begin; /* the turn has no header */
        return true;
    }
    *out = t->own_begin;
    return t->has_own;
}

/* Where the turn ends: with the last of what follows the message's own text that is no white space;
 * with all of it if there is nothing else. */
static size_t find_end(const span_request *request, const turn *t, size_t begin) {
    const text *all = request->rendered, *prompt = request->prompt;
    size_t from = t->has_own ? t->own_end : begin, end = t->end;
    bool is_last = all->n_stretches == 0 || all->stretches[all->n_stretches - 1].end <= t->end;
    if (request->add_generation_prompt && is_last && prompt && prompt->n &&
        end - from >= prompt->n && begins_with(all, end - prompt->n, prompt))
        end -= prompt->n; /* the next turn's header, printed in the last iteration */
    uint32_t c;
    size_t trimmed = end;
    while (trimmed > from) {
        size_t length = char_before(&c, all->bytes, trimmed);
        if (!char_is_space(c))
            break;
        trimmed -= length;
    }
    if (trimmed > from)
        end = trimmed;
    /* An end-of-sequence token that the template prints behind the last turn. */
    size_t after = t->end;
    while (after < all->n && char_is_space((unsigned char)all->bytes[after]))
        after++;
    if (is_last && request->eos && request->eos->n && begins_with(all, after, request->eos))
        end = after + request->eos->n;
    return end;
}

static bool refuse_spans(template_result *out, vm *m, int32_t message, const char *why) {
    out->n_spans = 0;
    error_set(
        &out->span_error, GRAFT_E_UNSUPPORTED,
        "%s: cannot tell which text is the turn of message %d: %s. Put {%% generation %%} ... "
        "{%% endgeneration %%} around what the assistant says in the template, or give another "
        "template",
        m->origin, (int)message + 1, why);
    return true;
}

static bool is_header_alone(const span_request *request, const turn *t) {
    const text *prompt = request->prompt;
    return prompt && t->end - t->begin <= prompt->n &&
           memcmp(request->rendered->bytes + t->begin, prompt->bytes, t->end - t->begin) == 0;
}

static bool add_turn(template_result *out, vm *m, const span_request *request, const turn *t,
                     int32_t message) {
    size_t begin;
    if (t->n_places == 0)
        return t->is_elsewhere
                   ? refuse_spans(out, m, message, "its text is printed outside any loop")
                   : true; /* the template leaves the message out */
    if (t->n_places > 1)
        return refuse_spans(out, m, message, "it is printed in several places");
    if (t->stranger != NOBODY)
        return refuse_spans(out, m, message, "text of another message is printed with it");
    if (!t->has_own && is_header_alone(request, t))
        return true; /* cut off before anything is said */
    if (!find_header(m, &begin, request, t))
        return refuse_spans(out, m, message,
                            "nothing of it is printed, nor a header that is known");
    return add_span(out, m, begin, find_end(request, t, begin), message);
}

bool find_spans(template_result *out, vm *m, const span_request *request) {
    out->has_generation = request->has_generation;
    if (request->has_generation)
        return add_generations(out, m, request->rendered);
    size_t n = request->messages->n;
    const turn *turns = find_turns(m, request->rendered, n);
    for (size_t i = 0; turns && i < n && out->span_error.code == GRAFT_OK; i++)
        if (is_assistant(&request->messages->items[i]) &&
            !add_turn(out, m, request, &turns[i], (int32_t)i))
            return false;
    return turns && m->status == GRAFT_OK;
}

/* Where the last byte ends that was printed in a message's turn; 0 when there is none. */
static size_t turns_end(const text *t) {
    for (size_t i = t->n_stretches; i-- > 0;)
        if (t->stretches[i].turn != NOBODY)
            return t->stretches[i].end;
    return 0;
}

const text *generation_prompt(vm *m, const text *with, const text *without, const text *eos) {
    size_t begin = turns_end(with), begin_without = turns_end(without), common = 0;
    if (begin == 0 || begin == with->n) { /* no turns, or the prompt is printed in the last one */
        while (common < with->n && common < without->n &&
               with->bytes[common] == without->bytes[common])
            common++;
        begin = common;
    } else {
        const text *rest = text_slice(m, with, begin, with->n);
        const text *other = text_slice(m, without, begin_without, without->n);
        if (!rest || !other)
            return NULL;
        if (other->n < rest->n && begins_with(rest, 0, other))
            begin += other->n; /* what stands behind the turns in any case */
        else if (text_equal(rest, other) && eos && rest->n && begins_with(rest, 0, eos))
            begin = with->n; /* an end, not a beginning */
    }
    const text *prompt = text_slice(m, with, begin, with->n);
    return prompt ? string_strip(m, prompt, NULL, SIDE_LEFT).text : NULL;
}
