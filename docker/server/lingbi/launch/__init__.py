"""Starting, supervising and stopping workers on a machine."""
