"""Before anything is charged: one example at a time against autograd."""
