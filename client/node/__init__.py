"""Starting a hospital's SuperNode: one small file, checked and explained before anything runs."""
