/* Filters: value|name(arguments). filters.c holds the table. */
#ifndef GRAFT_TEXT_TEMPLATE_FILTERS_H
#define GRAFT_TEXT_TEMPLATE_FILTERS_H

#include "text/template/builtins.h"

typedef value filter(vm *, value self, const arguments *);

/* Of one text: filters_text.c */
filter filter_capitalize;
filter filter_center;
filter filter_escape;
filter filter_forceescape;
filter filter_format;
filter filter_indent;
filter filter_lower;
filter filter_replace;
filter filter_safe;
filter filter_string;
filter filter_title;
filter filter_trim;
filter filter_truncate;
filter filter_upper;
filter filter_urlencode;
filter filter_wordcount;
filter filter_xmlattr;

/* Of sequences and mappings: filters_sequence.c, filters_order.c */
filter filter_batch;
filter filter_dictsort;
filter filter_first;
filter filter_groupby;
filter filter_items;
filter filter_join;
filter filter_last;
filter filter_list;
filter filter_map;
filter filter_max;
filter filter_min;
filter filter_reject;
filter filter_rejectattr;
filter filter_reverse;
filter filter_select;
filter filter_selectattr;
filter filter_slice;
filter filter_sort;
filter filter_sum;
filter filter_unique;

#endif
