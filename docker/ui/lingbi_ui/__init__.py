"""lingbi's page: a thin client of the API, in Gradio. No model is loaded here."""

PORT = 7860  # where LINGBI_UI_PORT does not say; here, since the health check has no time for the settings
