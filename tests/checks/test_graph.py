"""The shape of the imports: floors, circles, and how many modules lie in a folder."""

import grimp
import pytest

from checks import graph


def built(*imports: tuple[str, str]) -> grimp.ImportGraph:
    """A graph of `lingbi` in which each first module imports the second."""
    made = grimp.ImportGraph()
    for module in {name for pair in imports for name in pair}:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            made.add_module(".".join(parts[:end]))
    for importer, imported in imports:
        made.add_import(importer=importer, imported=imported)
    return made


def test_each_folder_stands_on_the_lowest_floor_above_what_it_imports():
    found = built(
        ("lingbi.top.a", "lingbi.middle.sub.b"),
        ("lingbi.top.a", "lingbi.errors"),
        ("lingbi.middle.sub.b", "lingbi.errors"),
        ("lingbi.beside.c", "lingbi.errors"),
    )
    storeys = graph.floors(graph.folder_imports(found))
    assert storeys == [["lingbi"], ["lingbi.beside", "lingbi.middle"], ["lingbi.top"]]


@pytest.mark.parametrize(
    "imports",
    [
        (("lingbi.one.a", "lingbi.two.b"), ("lingbi.two.c", "lingbi.one.d")),
        (("lingbi.one.a", "lingbi.errors"), ("lingbi.settings", "lingbi.one.a")),
    ],
)
def test_a_circle_of_folders_is_named(imports):
    storeys, [fault] = graph.judge(built(*imports))
    assert storeys == []
    assert all(graph.folder_of(name, built(*imports)) in fault for pair in imports for name in pair)


@pytest.mark.parametrize(("floors", "is_tall"), [(graph.MOST_FLOORS, False), (graph.MOST_FLOORS + 1, True)])
def test_too_many_floors_are_refused(floors, is_tall):
    chain = [(f"lingbi.f{number + 1}.a", f"lingbi.f{number}.a") for number in range(floors - 1)]
    assert bool(graph.tall(graph.floors(graph.folder_imports(built(*chain))))) is is_tall


def test_modules_are_counted_by_folder():
    found = built(("lingbi.one.a", "lingbi.errors"), ("lingbi.one.sub.b", "lingbi.one.c"))
    assert graph.folder_sizes(found) == {"lingbi": 1, "lingbi.one": 2, "lingbi.one.sub": 1}


@pytest.mark.parametrize(
    ("sizes", "larger", "said"),
    [
        ({"a": graph.MOST_MODULES}, {}, None),
        ({"a": graph.MOST_MODULES + 1}, {}, f"a has {graph.MOST_MODULES + 1} modules"),
        ({"a": 20}, {"a": 20}, None),
        ({"a": 21}, {"a": 20}, "a has 21 modules, and at most 20"),
        ({"a": 19}, {"a": 20}, "lower LARGER"),
        ({}, {"a": 20}, "lower LARGER"),
    ],
)
def test_a_folder_has_few_modules_and_an_exception_only_shrinks(sizes, larger, said):
    wrong = graph.crowded(sizes, larger)
    assert wrong == [] if said is None else said in wrong[0]
