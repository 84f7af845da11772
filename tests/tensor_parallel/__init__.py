"""Two GPUs that hold one copy of a model: is the answer right, how fast is it, and what does each card take?"""
