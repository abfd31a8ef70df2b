"""A ledger to which one can only add, and by which anybody can see that nothing else was done to it."""
