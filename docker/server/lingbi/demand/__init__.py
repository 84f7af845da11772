"""Which of the models that share a card is loaded: the arbiter's decision, its process, and what workers tell it."""
