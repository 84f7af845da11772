"""What the API takes and gives: the OpenAI API's, and what the worker tells of itself."""
