"""One worker process: one copy of the model behind one port."""
