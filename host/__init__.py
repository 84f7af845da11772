"""What runs on a machine around its containers. Standard library only, Python 3.8 and later: nothing is installed."""
