"""What stands before Gradio: which requests come in, how large, how many at once and of whom."""
