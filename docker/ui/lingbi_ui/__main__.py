"""`python -m lingbi_ui`: serve the page."""

import gc
import os
import sys

import uvicorn

from lingbi_ui.settings import ConfigurationError, load_settings


def main() -> int:
    """Exit status: 2 for a bad configuration."""
    try:
        settings = load_settings()
        settings.api_key()
        os.environ["GRADIO_TEMP_DIR"] = str(settings.files_dir)  # Gradio reads it when it is imported
        gc.disable()  # imported objects stay alive, and every collection would scan all of them again
        from lingbi_ui.app import create_app
        from lingbi_ui.fence import settle

        gc.enable()
        settle(settings)
        app = create_app(settings)
        gc.freeze()  # nor do later ones scan them: that would hold up all visitors for a tenth of a second
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    # Only the gateway reaches this port, so the visitor's address that it reports can be trusted.
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        forwarded_allow_ips="*",
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
