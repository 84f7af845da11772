"""The API's requests and answers, in the form of the OpenAI API, and what a worker reports of itself."""
