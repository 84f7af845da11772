"""Has Gradio leave its components' type stubs alone.

At every import it would parse the source and the stub of each, and write those that differ beside its own code: half of
a page's start, for files that only editors read. Import this before gradio.
"""

import wrapt


@wrapt.when_imported("gradio.component_meta")
def leave_alone(module) -> None:
    module.create_or_modify_pyi = lambda component_class, class_name, events: None
