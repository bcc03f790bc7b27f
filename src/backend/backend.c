#include "backend/backend.h"

#include "backend/ops.h"

void backend_destroy(backend **dev) {
    if (!dev || !*dev)
        return;
    (*dev)->ops->destroy(*dev);
    *dev = NULL;
}
