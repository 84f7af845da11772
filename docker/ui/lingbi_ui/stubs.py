"""Keeps Gradio from rewriting its components' type stubs.

At every import it would parse the source and the stub of each component and write those that differ beside its own
code. That is half of the page's start-up time, for files that only editors read. Import this before gradio.
"""

from typing import Any

import wrapt


@wrapt.when_imported("gradio.component_meta")
def leave_alone(module: Any) -> None:
    module.create_or_modify_pyi = lambda component_class, class_name, events: None
