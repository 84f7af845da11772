"""lingbi's page: a thin client of the API, in Gradio. No model is loaded here."""
