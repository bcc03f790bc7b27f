#include "train/data/dataset_summary.h"

#include "base/memory.h"

#include <stdlib.h>

static int compare_lengths(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The least 1, 2 or 5 times a power of ten with which all lengths fit into the bins. */
static int32_t bin_of(int32_t longest) {
    static const int32_t digits[] = {1, 2, 5};
    for (int32_t power = 1;; power *= 10)
        for (size_t i = 0; i < 3; i++)
            if (longest / (digits[i] * power) < LENGTH_BINS_MAX)
                return digits[i] * power;
}

/* Nearest rank: the smallest length that `percent` of the rows do not exceed. */
static int32_t percentile(const int32_t *sorted, int64_t n, int percent) {
    int64_t rank = (n * percent + 99) / 100;
    return sorted[rank > 0 ? rank - 1 : 0];
}

graft_status dataset_summarise(dataset_summary *out, const dataset *data, graft_error *err) {
    int64_t rows = dataset_rows(data);
    *out = (dataset_summary){.counts = dataset_count(data)};
    if (!rows)
        return GRAFT_OK;
    int32_t *lengths = mem_array((size_t)rows, sizeof *lengths);
    if (!lengths)
        return error_memory(err, (size_t)rows * sizeof *lengths, "the lengths of the rows");
    out->bin_tokens = bin_of(out->counts.longest);
    out->n_bins = out->counts.longest / out->bin_tokens + 1;
    for (int64_t i = 0; i < rows; i++) {
        lengths[i] = dataset_row(data, i).n;
        out->lengths[lengths[i] / out->bin_tokens]++;
    }
    qsort(lengths, (size_t)rows, sizeof *lengths, compare_lengths);
    out->shortest = lengths[0];
    out->median = percentile(lengths, rows, 50);
    out->percentile_90 = percentile(lengths, rows, 90);
    out->percentile_99 = percentile(lengths, rows, 99);
    out->supervised_share = (double)out->counts.supervised / (double)out->counts.tokens;
    free(lengths);
    return GRAFT_OK;
}
