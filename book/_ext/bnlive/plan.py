"""Which cells above a cell must run first: those that its result depends on, and no others.

Read from the code alone. A cell depends on the cells that make or change the names that it uses,
and on those that draw from the same random generator before it, so that it sees the same numbers
as in the notebook. Of these cells, the first need not run again when they have left all names
that the others use as they would now: each name has a version, which follows from the code that
made it and from the versions of what that code used.

What the code does not show, such as a function that changes a global list, is not seen; for that
the page offers to run all cells above.
"""

import ast
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Versions = dict[str, object]  # of the names that the cells have made so far


@dataclass
class Cell:
    """What a cell does with the names of the page."""

    uses: set[str] = field(default_factory=set)  # needs them from above
    binds: set[str] = field(default_factory=set)  # makes them, whatever they were before
    changes: set[str] = field(default_factory=set)  # perhaps changes what they name
    imports: set[str] = field(default_factory=set)
    generators: set[str] = field(default_factory=set)  # of random numbers
    functions: dict[str, set[str]] = field(default_factory=dict)  # with what a call needs


def needed(sources: list[str], index: int) -> list[int]:
    """The cells that a cell depends on, in the order of the page, and the cell itself.

    Args:
        sources: the code of the page's cells.
        index: of the cell.
    """
    cells = read_all(sources[: index + 1])
    found, wanted = [index], cells[index].uses
    for above in reversed(range(index)):
        cell = cells[above]
        if cell.changes & wanted:
            found.append(above)
            wanted = (wanted - cell.binds) | cell.uses
    return found[::-1]


def pending(sources: list[str], index: int, versions: Versions) -> tuple[list[int], set[str]]:
    """The cells that have to run for a cell's result, and the names that must not be there.

    Args:
        sources: the code of the page's cells.
        index: of the cell, which runs in any case.
        versions: of the names that are there.
    """
    order, cells = needed(sources, index), read_all(sources[: index + 1])
    expected: list[Versions] = [{}]  # before each cell of the order, had they run just now
    for cell in order[:-1]:
        expected.append(expected[-1] | made(sources[cell], cells[cell], expected[-1]))
    wanted: set[str] = set()
    for count in reversed(range(len(order))):
        cell = cells[order[count]]
        wanted = (wanted - cell.binds) | cell.uses
        wrong = {name for name in wanted if versions.get(name) != expected[count].get(name)}
        if not wrong:
            return order[count:], set()
    return order, wrong & set(versions)  # made by code that is no longer above


def after(sources: list[str], index: int, ok: bool, versions: Versions) -> Versions:
    """The versions when a cell has run, to its end or not."""
    cell = read_all(sources[: index + 1])[index]
    if ok:
        return versions | made(sources[index], cell, versions)
    return versions | {name: object() for name in cell.changes}  # like no other


def made(source: str, cell: Cell, versions: Versions) -> Versions:
    """The versions of the names that a cell makes or changes."""
    used = [(name, versions.get(name)) for name in sorted(cell.uses)]
    return dict.fromkeys(cell.changes, hash((source, *used)))


def read_all(sources: list[str]) -> list[Cell]:
    """What the cells do, each with what those above it say of the names that it uses."""
    cells = [read(source) for source in sources]
    modules: set[str] = set()
    generators: set[str] = set()
    functions: dict[str, set[str]] = {}
    for cell in cells:
        modules |= cell.imports
        generators |= cell.generators
        functions |= cell.functions
        cell.uses |= reach(cell.uses | cell.changes, functions) - cell.binds
        cell.changes = (cell.changes - modules) | cell.binds | (cell.uses & generators)
    return cells


def reach(names: set[str], functions: dict[str, set[str]]) -> set[str]:
    """The names, and what calls of them need in turn."""
    reached: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= functions.get(name, set()) - reached
    return reached


def read(source: str) -> Cell:
    """What a cell does; nothing where its code is not Python, which running it will say."""
    cell = Cell()
    try:
        statements = list(flat(ast.parse(source).body))
    except SyntaxError:
        return cell
    for statement in statements:
        code = ast.unparse(statement)
        table = symtable.symtable(code, "cell", "exec")
        symbols = table.get_symbols()
        used = {one.get_name() for one in symbols if one.is_referenced()} | inner_globals(table)
        bound = {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}
        if isinstance(statement, ast.AugAssign):
            used |= bound
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            cell.functions[statement.name] = used - {statement.name}
        if "default_rng(" in code:
            cell.generators |= bound
        cell.imports |= {one.get_name() for one in symbols if one.is_imported()}
        cell.changes |= changed(statement)
        cell.uses |= used - cell.binds
        cell.binds |= bound
    return cell


def flat(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements in their order; loops and branches are taken to run once."""
    for statement in body:
        match statement:
            case ast.For():
                yield ast.Assign([statement.target], statement.iter, lineno=0)
                yield from flat(statement.body + statement.orelse)
            case ast.While() | ast.If():
                yield ast.Expr(statement.test)
                yield from flat(statement.body + statement.orelse)
            case ast.With():
                for item in statement.items:
                    target = item.optional_vars or ast.Name("_")
                    yield ast.Assign([target], item.context_expr, lineno=0)
                yield from flat(statement.body)
            case _:
                yield statement


def inner_globals(table: symtable.SymbolTable) -> set[str]:
    """The names of the page that functions and comprehensions inside a statement use."""
    found: set[str] = set()
    for child in table.get_children():
        found |= {one.get_name() for one in child.get_symbols() if one.is_global()}
        found |= inner_globals(child)
    return found


def changed(statement: ast.stmt) -> set[str]:
    """The name `a` in the statements `a[0] = 1`, `a.b = 1` and `a.append(1)`."""
    match statement:
        case ast.Assign(targets=[part]) | ast.AugAssign(target=part):
            pass
        case ast.Expr(value=ast.Call(func=part)):
            pass
        case _:
            return set()
    whole = part
    while isinstance(part, ast.Attribute | ast.Subscript):
        part = part.value
    return {part.id} if isinstance(part, ast.Name) and part is not whole else set()
