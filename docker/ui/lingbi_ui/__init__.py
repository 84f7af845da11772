"""lingbi's page: a thin client of the API, in Gradio. No model is loaded here."""

PORT = 7860  # default of LINGBI_UI_PORT; it stands here because loading the settings would slow the health check
PREFIX_HEADER = (
    "x-forwarded-prefix"  # the path below which a trusted proxy serves the page, as the gateway passes it on
)
