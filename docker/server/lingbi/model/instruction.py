"""The system prompt that a model was published with: the default of its own `chat()`."""

import ast

from lingbi.model import catalogue
from lingbi.model.folder import ModelFolder

FUNCTION, ARGUMENT = "chat", "meta_instruction"


def instruction_of(folder: ModelFolder) -> str:
    """The text in the folder's own code if it is a string literal there, else the catalogue's text for this model."""
    module, _, name = folder.config["auto_map"].get("AutoModelForCausalLM", "").rpartition(".")
    file = folder.path / f"{module}.py"
    own = own_instruction(file.read_text(encoding="utf-8", errors="replace"), name) if file.is_file() else None
    return catalogue.instruction(folder.config) if own is None else own


def own_instruction(code: str, model_class: str) -> str | None:
    """The default of the class's chat(meta_instruction=…); the code is parsed and never run.

    None if there is no such argument or its default is not a string literal.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):  # ValueError: a null byte; RecursionError: deep nesting
        return None
    functions = (
        item
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == model_class
        for item in node.body
        if isinstance(item, ast.FunctionDef) and item.name == FUNCTION
    )
    defaults = (_default(function.args) for function in functions)
    return next(
        (node.value for node in defaults if isinstance(node, ast.Constant) and isinstance(node.value, str)), None
    )


def _default(arguments: ast.arguments) -> ast.expr | None:
    """The default of ARGUMENT, or None."""
    positional = [*arguments.posonlyargs, *arguments.args]
    given = zip(reversed(positional), reversed(arguments.defaults), strict=False)
    by_name = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return next((default for argument, default in [*given, *by_name] if argument.arg == ARGUMENT), None)
