/* Methods whose change of a layer is of low rank, with factors made from other tensors: each target
 * has a low-rank term over two derived arrays, A [rank, in] and B [out, rank]. The method fills
 * them in prepare, and in chain turns their gradients into its tensors'. Such a method costs what
 * LoRA of that rank costs. */
#ifndef GRAFT_ADAPTER_DERIVED_TERMS_H
#define GRAFT_ADAPTER_DERIVED_TERMS_H

#include "adapter/shape.h"

/* Adds a module's term, in the modules' order; a factor that is a tensor as it stands has no
 * derived array (owns_a, owns_b false): the method sets a->terms[i].a or .b itself in bind. */
graft_status derived_term_add(adapter *, size_t module, int32_t rank, double scale, float dropout,
                              bool owns_a, bool owns_b, graft_error *);
/* Place and factors of a->terms[i]; a factor that is not derived is NULL. */
const derived_term *derived_term_at(const adapter *, size_t i);
derived_array *derived_term_a(const adapter *, size_t i);
derived_array *derived_term_b(const adapter *, size_t i);
/* Puts all terms and the freed parameters into the hooks. */
void derived_terms_bind(adapter *, model_hooks *);
/* w += scale B A, once prepared. */
graft_status derived_terms_merge(adapter *, backend *, size_t module, device_array *w,
                                 device_array *bias, device_array *scratch, graft_error *);

#endif
