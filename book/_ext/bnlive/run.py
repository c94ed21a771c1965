"""Run the code of cells in the one namespace of the page, and send what comes out.

Each piece is sent as a kind and a text: "stdout", "stderr", "result", "figure" (HTML) or "error".
"""

import ast
import itertools
import linecache
import logging
import sys
import time
import traceback
import types
from collections.abc import Callable
from io import StringIO, TextIOBase

import numpy as np
from bnbook.svg import inline_svg

from bnlive.plan import Versions, after, pending

PIECES = 200  # of text that are sent at once; then a loop that prints must not flood the page:
SECONDS = 0.05  # between two pieces
CHARACTERS = 100_000  # in all of one run

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it lists fonts each time

page = types.ModuleType("__main__")
versions: Versions = {}  # of the names in it
prefixes = (f"live{number}-" for number in itertools.count())  # of the ids in figures


class Output:
    """What a cell prints, on its way to the page."""

    def __init__(self, receive: Callable[[str, str], None]) -> None:
        self.receive = receive
        self.kind, self.waiting = "stdout", ""
        self.pieces, self.sent, self.left = 0, 0.0, CHARACTERS

    def write(self, kind: str, text: str) -> None:
        if self.left <= 0:
            return
        if kind != self.kind:
            self.flush()
        self.kind, self.waiting = kind, self.waiting + text[: self.left]
        self.left -= len(text)
        if self.left <= 0:
            self.waiting += "\n… and so on: the rest is not shown.\n"
        if self.pieces < PIECES or time.monotonic() > self.sent + SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.receive(self.kind, self.waiting)
            self.waiting, self.sent = "", time.monotonic()
            self.pieces += 1

    def send(self, kind: str, text: str) -> None:
        self.flush()
        self.receive(kind, text)


class Stream(TextIOBase):
    """In the place of sys.stdout or sys.stderr."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def write(self, text: str) -> int:
        output.write(self.kind, text)
        return len(text)

    def flush(self) -> None:
        output.flush()


output = Output(lambda kind, text: None)  # of the cell that runs


def prepare(sources: list[str], index: int, everything: bool) -> list[int]:
    """The cells that have to run for a cell's result, in their order; it comes last.

    Args:
        sources: the code of the page's cells.
        index: of the cell.
        everything: whether all cells above it run, in a namespace without what ran before.
    """
    order = list(range(index + 1))
    if everything:
        page.__dict__.clear()
        page.__dict__.update(types.ModuleType("__main__").__dict__)
        versions.clear()
    else:
        order, gone = pending(sources, index, versions)
        for name in gone:
            page.__dict__.pop(name, None)
            del versions[name]
    # Each chapter imports np, but the cell that does may need torch, and then cannot run here.
    page.__dict__.setdefault("np", np)
    return order


def run(sources: list[str], index: int, receive: Callable[[str, str], None]) -> bool:
    """Run the code of a cell, which tracebacks call "cell 1" when it is the first.

    Args:
        sources: the code of the page's cells.
        index: of the cell.
        receive: takes what comes out.

    Returns:
        Whether it ran to its end.
    """
    ok = execute(sources[index], f"cell {index + 1}", receive)
    versions.update(after(sources, index, ok, versions))
    return ok


def execute(source: str, name: str, receive: Callable[[str, str], None]) -> bool:
    """Run code under a name, and say whether it ran to its end."""
    global output
    output = Output(receive)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    page.__dict__.pop("__warningregistry__", None)  # a cell that runs again warns again
    before = sys.stdout, sys.stderr, sys.modules["__main__"]
    sys.stdout, sys.stderr = Stream("stdout"), Stream("stderr")
    sys.modules["__main__"] = page
    try:
        value = evaluate(source, name)
        if value is not None:
            output.send("result", repr(value))
        show_figures()
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: the page goes on
        output.send("error", explain(error, name))
        return False
    finally:
        output.flush()
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close("all")  # what an error left open is not the next cell's
        sys.stdout, sys.stderr, sys.modules["__main__"] = before
    return True


def evaluate(source: str, name: str) -> object:
    """Execute the statements; the value of a last expression that does not end with `;`."""
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, name, "exec"), page.__dict__)
    return None if last is None else eval(compile(last, name, "eval"), page.__dict__)


def show_figures() -> None:
    """Send the open figures, in the colors of the page, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:  # then nothing was drawn
        return
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    for number in pyplot.get_fignums():
        file = StringIO()
        pyplot.figure(number).savefig(file, format="svg", bbox_inches="tight", metadata=nothing)
        pyplot.close(number)
        output.send("figure", inline_svg(file.getvalue(), "", next(prefixes)))


def explain(error: BaseException, name: str) -> str:
    """The traceback as Python shows it, from the cell on."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == name:
        trace = None  # the parser's own frames
    return "".join(traceback.format_exception(type(error), error, trace))
