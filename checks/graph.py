"""The shape of the server's imports: few floors, one on the other, of folders that a reader can survey.

Prints the floors from the top. Which folder may stand on which is import-linter's to judge (pyproject.toml).
"""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter

import grimp

PACKAGE = "lingbi"
MOST_FLOORS = 9
MOST_MODULES = 14
LARGER: dict[str, int] = {}  # folders with more modules; a number here only goes down
LAYERS_OF_ONE = {"lingbi.planner"}  # modules at the root that are a layer of their own (pyproject.toml)


def main() -> int:
    """Print the floors and what is wrong; returns the exit status."""
    storeys, wrong = judge(grimp.build_graph(PACKAGE))
    for number, folders in reversed(list(enumerate(storeys, 1))):
        print(number, *folders)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


def judge(graph: grimp.ImportGraph) -> tuple[list[list[str]], list[str]]:
    """The floors of a graph (none where it has a circle), and a sentence for each thing that is wrong."""
    try:
        storeys = floors(folder_imports(graph))
    except CycleError as error:
        return [], [f"Folders import each other in a circle: {' <- '.join(error.args[1])}"]
    return storeys, tall(storeys) + crowded(folder_sizes(graph), LARGER)


def folder_imports(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """{folder: the other folders that its modules import from}; PACKAGE stands for the modules at its root."""
    imports: dict[str, set[str]] = {folder_of(module, graph): set() for module in graph.modules}
    for module in graph.modules:
        folder = folder_of(module, graph)
        used = graph.find_modules_directly_imported_by(module)
        imports[folder] |= {folder_of(name, graph) for name in used} - {folder}
    return imports


def folder_of(module: str, graph: grimp.ImportGraph) -> str:
    """The folder of PACKAGE in which a module lies, however deep; PACKAGE for a module at its root."""
    child = ".".join(module.split(".")[:2])
    return child if graph.find_children(child) or child in LAYERS_OF_ONE else PACKAGE


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """The folders of each floor, from the ground: each folder on the lowest one that is above all that it imports.

    Raises CycleError, with the circle as second argument, where folders import each other.
    """
    height: dict[str, int] = {}
    for folder in TopologicalSorter(imports).static_order():
        height[folder] = 1 + max((height[below] for below in imports[folder]), default=0)
    return [sorted(folder for folder in height if height[folder] == floor) for floor in sorted(set(height.values()))]


def folder_sizes(graph: grimp.ImportGraph) -> dict[str, int]:
    """{folder: how many modules lie directly in it}, of every folder however deep."""
    children = {module: graph.find_children(module) for module in graph.modules}
    return {folder: sum(not children[module] for module in modules) for folder, modules in children.items() if modules}


def tall(storeys: list[list[str]]) -> list[str]:
    """A sentence where there are too many floors."""
    if len(storeys) <= MOST_FLOORS:
        return []
    return [f"The folders stand on {len(storeys)} floors, and at most {MOST_FLOORS} are allowed; let one import less"]


def crowded(sizes: dict[str, int], larger: dict[str, int]) -> list[str]:
    """A sentence for each folder with more modules than it may have, and for each that needs no exception any more."""
    limits = {folder: larger.get(folder, MOST_MODULES) for folder in sizes | larger}
    too_large = [
        f"{folder} has {sizes[folder]} modules, and at most {limits[folder]} are allowed; split it"
        for folder in sorted(sizes)
        if sizes[folder] > limits[folder]
    ]
    settled = [
        f"{folder} may have {larger[folder]} modules and has {sizes.get(folder, 0)}; lower LARGER in checks/graph.py"
        for folder in sorted(larger)
        if sizes.get(folder, 0) < larger[folder]
    ]
    return too_large + settled


if __name__ == "__main__":
    sys.exit(main())
