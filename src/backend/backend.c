#include "backend/backend.h"

#include "backend/ops.h"

void backend_destroy(backend **dev) {
    if (!dev || !*dev)
        return;
    (*dev)->ops->destroy(*dev);
    *dev = NULL;
}

graft_status backend_set_compute(backend *dev, compute_type type, const cpu_features *features,
                                 bool force, graft_error *err) {
    return dev->ops->set_compute(dev, type, features, force, err);
}

const char *compute_type_name(compute_type type) {
    static const char *const names[N_COMPUTE_TYPES] = {
        [COMPUTE_F32] = "f32", [COMPUTE_BF16] = "bf16", [COMPUTE_INT8] = "int8"};
    return names[type];
}
