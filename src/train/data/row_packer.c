#include "train/data/row_packer.h"

#include <assert.h>

/* Bins that a row is tried in; the fullest is closed for a new one. So packing takes no longer than
 * a sort, and is rarely worse than with all bins open. */
enum { OPEN_BINS = 64 };

void row_packer_layout(row_packer *p, layout *host, int64_t capacity) {
    p->capacity = capacity;
    p->rows = layout_take(host, COMPONENT_WORKSPACE, (size_t)capacity, sizeof *p->rows);
    p->order = layout_take(host, COMPONENT_WORKSPACE, (size_t)capacity, sizeof *p->order);
}

/* By bin, then longest first, then by row: a total order, so that any sort gives the same. */
static bool is_before(const packed_row *a, const packed_row *b) {
    if (a->bin != b->bin)
        return a->bin < b->bin;
    return a->tokens != b->tokens ? a->tokens > b->tokens : a->row < b->row;
}

static void sift_down(packed_row *rows, int64_t from, int64_t n) {
    packed_row moved = rows[from];
    for (int64_t child; (child = 2 * from + 1) < n; from = child) {
        if (child + 1 < n && is_before(&rows[child], &rows[child + 1]))
            child++;
        if (!is_before(&moved, &rows[child]))
            break;
        rows[from] = rows[child];
    }
    rows[from] = moved;
}

/* A heap sort: the C library's may allocate, and a step must not. */
static void sort(packed_row *rows, int64_t n) {
    for (int64_t i = n / 2; i-- > 0;)
        sift_down(rows, i, n);
    for (int64_t end = n; --end > 0;) {
        packed_row last = rows[0];
        rows[0] = rows[end];
        rows[end] = last;
        sift_down(rows, 0, end);
    }
}

/* rows NULL: 0 .. n - 1 */
static void take_rows(row_packer *p, const dataset *data, const uint64_t *rows, int64_t n) {
    assert(n <= p->capacity);
    for (int64_t i = 0; i < n; i++) {
        uint64_t row = rows ? rows[i] : (uint64_t)i;
        p->rows[i] = (packed_row){.row = row, .tokens = dataset_row(data, (int64_t)row).n};
    }
    sort(p->rows, n);
}

static const uint64_t *give_order(row_packer *p, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        p->order[i] = p->rows[i].row;
    return p->order;
}

typedef struct open_bin {
    int64_t bin;
    int32_t room;
} open_bin;

/* The open bin with the least room that `tokens` fit in; with none, the place of a new one. */
static int choose_bin(const open_bin *open, int n_open, int32_t tokens, bool *fits) {
    int best = -1, fullest = 0;
    for (int i = 0; i < n_open; i++) {
        if (open[i].room >= tokens && (best < 0 || open[i].room < open[best].room))
            best = i;
        if (open[i].room < open[fullest].room)
            fullest = i;
    }
    *fits = best >= 0;
    return *fits ? best : n_open < OPEN_BINS ? n_open : fullest;
}

const uint64_t *row_packer_fit(row_packer *p, const dataset *data, const uint64_t *rows, int64_t n,
                               int32_t row_virtual, int32_t bin_tokens) {
    open_bin open[OPEN_BINS];
    int n_open = 0;
    int64_t n_bins = 0;
    take_rows(p, data, rows, n);
    for (int64_t i = 0; i < n; i++) {
        bool fits;
        int32_t tokens = p->rows[i].tokens + row_virtual;
        int at = choose_bin(open, n_open, tokens, &fits);
        if (!fits) {
            open[at] = (open_bin){.bin = n_bins++, .room = bin_tokens};
            n_open += at == n_open;
        }
        open[at].room -= tokens; /* below 0: a row that is longer than a bin */
        p->rows[i].bin = open[at].bin;
    }
    sort(p->rows, n);
    return give_order(p, n);
}

const uint64_t *row_packer_longest_first(row_packer *p, const dataset *data) {
    take_rows(p, data, NULL, dataset_rows(data));
    return give_order(p, dataset_rows(data));
}
