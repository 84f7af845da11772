"""Training of models that lingbi ships itself."""
