"""What runs on a machine around its containers. Standard library only, Python 3.9 and later: nothing is installed."""
