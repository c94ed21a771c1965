"""bnlib.exercises: right answers pass, typical wrong ones are told what is wrong."""

import dataclasses
import functools
import re
import runpy
import textwrap
import threading
import time

import nbformat
import numpy as np
import pytest
from answers import idea, mnist, practice, reasons, relatives, scale, small, speed
from conftest import ROOT

from bnlib import exercises
from bnlib.exercises import Exercise, check, exercise, find_problem, judge, register, verify
from bnlib.exercises.judge import _EXERCISES, wrong_answer

GREEK = {"gamma": "γ", "beta": "β", "epsilon": "ε"}


def text_of(notebook):
    return "\n\n".join(cell.source for cell in nbformat.read(notebook, as_version=4).cells)


SOLUTIONS = [text_of(path) for path in sorted((ROOT / "book/solutions").glob("*.ipynb"))]
CHAPTERS = [
    text_of(path)
    for folder in ("idea", "mnist", "speed", "why")
    for path in (ROOT / "book" / folder).glob("*.ipynb")
]


TEACHING = (ROOT / "book/reference/teaching.md").read_text()


def x_hat_of(x, eps):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps)


BOOK = exercises.names()
MISTAKES = [(name, words) for name in BOOK for words in _EXERCISES[name].mistakes]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name, words", MISTAKES)
def test_a_typical_mistake_is_rejected_and_named(name, words):
    problem = find_problem(name, wrong_answer(_EXERCISES[name], words))
    assert problem.endswith(f"\n  This is what comes out when {words}.")


@pytest.mark.parametrize("name", BOOK)
def test_every_exercise_has_two_typical_mistakes_and_points_to_its_chapter(name):
    exercise = _EXERCISES[name]
    assert len(exercise.mistakes) >= 2
    (title, *_) = re.findall(r'the chapter "([^"]+)"', exercise.see)
    assert any(f"# {title}\n" in chapter for chapter in CHAPTERS)
    quoted = re.findall(r'"([^"]+)"', exercise.see)
    headings = "\n".join(CHAPTERS)
    for text in quoted:
        plain = re.sub(r"\$\\?(\w+)\$", lambda m: GREEK.get(m[1], m[1]), headings)
        assert re.search(rf"^#+ .*{re.escape(text)}", plain, re.MULTILINE | re.IGNORECASE), text


@pytest.mark.parametrize("name", BOOK)
def test_every_exercise_stands_in_a_chapter_with_a_hint_and_a_solution(name):
    call = f'check("{name}", {name.replace("-", "_")})'
    assert sum(call in chapter for chapter in CHAPTERS) == 1
    (chapter,) = (chapter for chapter in CHAPTERS if call in chapter)
    assert f":label: ex-{name}\n" in chapter
    assert "```{dropdown} Hint" in chapter.split(f":label: ex-{name}\n")[1].split(call)[0]
    assert sum(f"```{{solution-start}} ex-{name}\n" in solution for solution in SOLUTIONS) == 1
    assert sum(call in solution for solution in SOLUTIONS) == 1


ANSWERS = {
    name: answers
    for module in (idea, mnist, practice, reasons, relatives, scale, small, speed)
    for name, answers in module.ANSWERS.items()
}
TRIED = [
    (name, kind, words) for name in ANSWERS for kind, of in ANSWERS[name].items() for words in of
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name, kind, words", TRIED)
def test_answers_as_readers_may_write_them(name, kind, words):
    """A right one passes in whatever style; a wrong one runs, and is rejected for what it does."""
    problem = find_problem(name, ANSWERS[name][kind][words])
    if kind == "right":
        assert problem is None
    else:
        assert problem is not None
        assert "raised" not in problem or "raised FloatingPointError" in problem


def test_every_exercise_has_three_right_and_three_wrong_answers():
    assert sorted(ANSWERS) == BOOK
    for kinds in ANSWERS.values():
        assert list(kinds) == ["right", "wrong"] and min(map(len, kinds.values())) >= 3


def corrected(means, momentum):
    with np.errstate(invalid="ignore"):
        return moving(means, momentum) / (1 - (1 - momentum) ** len(means))


def moving(means, momentum):
    running = np.zeros(means.shape[1])
    for mean in means:
        running = (1 - momentum) * running + momentum * mean
    return running


OTHER_WRONG_ANSWERS = {
    "normalize: eps fixed": (
        "normalize",
        lambda x, eps: (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1),
        "the variance of every column of x_hat must be σ²/.*; yours is off by up to",
    ),
    "normalize: m fixed": (
        "normalize",
        lambda x, eps: (x - x.sum(0) / 8) / np.sqrt(((x - x.sum(0) / 8) ** 2).sum(0) / 8 + eps),
        "the mean of every column of x_hat must be 0; yours is off by up to",
    ),
    "normalize: the sign": (
        "normalize",
        lambda x, eps: (x.mean(0) - x) / np.sqrt(x.var(0) + eps),
        r"x_hat is off by up to \S+, where the right values go up to",
    ),
    "undo: one value": ("undo", lambda x, eps: x.mean(0), "one array of shape .*; expected 2"),
    "undo: three values": (
        "undo",
        lambda x, eps: (x.std(0), x.mean(0), eps),
        "returned 3 values; expected 2 values, separated by commas: gamma, beta",
    ),
    "layer-norm-gradient: transposed": (
        "layer-norm-gradient",
        lambda x, dy, eps: dy.T,
        r"dx has shape \((\d), (\d+)\); expected \(\2, \1\)",
    ),
    "saturated: a size fixed, which shows in a property alone": (
        "saturated",
        lambda u: (0 * np.ones((50, 4)) + u < 0).mean(0),
        "must have the share 0; there, your function raised ValueError: operands could not be",
    ),
    "mean-error: one number": (
        "mean-error",
        lambda var, m: np.sqrt(var[0] / m),
        r"the error is one number; expected an array of shape \(3,\)",
    ),
    "smallest-std: one number, but in an array": (
        "smallest-std",
        lambda share, eps: np.array([share]),
        r"the standard deviation has shape \(1,\); expected one number",
    ),
    "moving-average: with the correction": (
        "moving-average",
        corrected,
        "with momentum 0 it must stay 0; yours has NaN or infinite values there",
    ),
    "im2col: a size fixed, so that the shape is wrong in a property": (
        "im2col",
        lambda image, size: mnist.im2col_in_loops(image, 4),
        r"of one pixel, rows must be the pixels; yours has the shape \(12, 16\) there, and not",
    ),
    "steps-to: right but for the first, which is no typical mistake": (
        "steps-to",
        lambda steps, accuracy, target: steps[1:][accuracy[1:] >= target][0],
        r"it must be the first of the steps; yours is off by up to \S+\.$",
    ),
    "any-rank: matrices alone": (
        "any-rank",
        lambda x, gamma, beta, eps: gamma * x_hat_of(x, eps) + beta,
        "the mean of every channel of y must be beta",
    ),
}


@pytest.mark.parametrize(
    "name, answer, message", OTHER_WRONG_ANSWERS.values(), ids=OTHER_WRONG_ANSWERS
)
def test_other_wrong_answers_are_told_what_is_wrong(name, answer, message):
    assert re.search(message, find_problem(name, answer))


@pytest.mark.parametrize("name", BOOK)
def test_every_property_can_fail(name):
    """Some answer of the right shape breaks it, and the reference does not."""
    exercise = _EXERCISES[name]
    arguments = exercise.inputs(np.random.default_rng(0))
    for sentence, sides in exercise.properties.items():
        assert " must " in sentence

        def far_off(*given):
            right = exercise.reference(*given)
            many = right if isinstance(right, tuple) else (right,)
            seen = sum(float(np.ravel(v) @ np.arange(1, np.size(v) + 1)) for v in given)
            moved = tuple(v + 1 + seen + np.arange(np.size(v)).reshape(np.shape(v)) for v in many)
            return moved if isinstance(right, tuple) else moved[0]

        judge._hold(
            sentence, sides, judge._changed(exercise, exercise.reference, arguments), arguments
        )
        with pytest.raises(judge._Wrong, match=re.escape(sentence)):
            judge._hold(sentence, sides, judge._changed(exercise, far_off, arguments), arguments)


@pytest.mark.parametrize(
    "name, answer",
    [
        ("undo", lambda x, eps: [np.sqrt(x.var(0) + eps), x.mean(0)]),
        ("undo", lambda x, eps: np.array([np.sqrt(x.var(0) + eps), x.mean(0)])),
        ("steps-to", lambda steps, accuracy, target: float(steps[accuracy >= target][0])),
        ("count", lambda shape: np.uint16(np.prod(shape) // shape[1])),
    ],
)
def test_a_kind_of_array_that_the_task_does_not_ask_for_will_do(name, answer):
    assert find_problem(name, answer) is None


def with_each(change, name):
    """The reference, with a change of each value that it returns."""

    def answer(*given):
        right = _EXERCISES[name].reference(*given)
        return tuple(map(change, right)) if isinstance(right, tuple) else change(right)

    return answer


@pytest.mark.parametrize("name", [name for name in BOOK if _EXERCISES[name].dtype is None])
@pytest.mark.parametrize(
    "change",
    [
        lambda v: np.asarray(v).tolist(),
        lambda v: np.asarray(v, np.longdouble),
        lambda v: np.asarray(v, order="F"),
        np.ma.asarray,
    ],
    ids=["lists", "longdouble", "column by column", "masked, but nothing is"],
)
def test_right_values_are_right_in_any_kind_of_array(name, change):
    assert find_problem(name, with_each(change, name)) is None


@pytest.mark.parametrize("name", BOOK)
def test_a_masked_array_hides_nothing(name):
    """Neither a value that is wrong nor one that is right."""
    hidden = with_each(lambda v: np.ma.masked_array(v + 1, np.ones(np.shape(v))), name)
    assert " has masked values, " in find_problem(name, hidden)


def test_what_a_buffer_held_is_judged_and_not_what_it_holds_later():
    buffer = np.empty((20, 9))

    def answer(x, eps):
        y = buffer[: x.shape[0], : x.shape[1]]
        y[:] = x_hat_of(x, eps)
        return y

    assert find_problem("normalize", answer) is None


def test_an_answer_with_too_few_digits_is_told_so():
    problem = find_problem("normalize", lambda x, eps: x_hat_of(x, eps).astype(np.float32))
    assert problem.endswith(" It has dtype float32, with fewer digits than float64.")


@pytest.mark.parametrize("name", BOOK)
def test_the_reference_passes(name, capsys):
    check(name, _EXERCISES[name].reference)
    assert capsys.readouterr().out == f"✓ {name}: right, on 3 random inputs.\n"


def raises(x, eps):
    raise KeyError("oops")


def unwritten(x, eps):
    raise NotImplementedError


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


def raises_something_mute(x, eps):
    raise Mute


def leaves(x, eps):
    raise SystemExit


def interrupts(x, eps):
    raise KeyboardInterrupt


def calls_itself(x, eps):
    return calls_itself(x, eps)


def spoils(x, eps):
    x -= x.mean(0)
    return x / np.sqrt(x.var(0) + eps)


@pytest.mark.parametrize(
    "answer, message",
    [
        (unwritten, "still to be written"),
        (raises, "your function raised KeyError: 'oops'"),
        (raises, 'in the line: raise KeyError("oops")'),
        (raises_something_mute, "your function raised Mute, in the line: raise Mute"),
        (leaves, "your function raised SystemExit"),
        (interrupts, "your function raised KeyboardInterrupt"),
        (calls_itself, "your function raised RecursionError"),
        (lambda x: x, "your function takes (x); expected (x, eps)"),
        (3, "the answer is of type int; expected a function"),
        (None, "the answer is of type NoneType; expected a function"),
        (lambda x, eps: [[1, 2], [3]], "x_hat is of type list; expected a NumPy array"),
        (lambda x, eps: np.array(["a"] * x.size).reshape(x.shape), "x_hat has dtype <U1"),
        (lambda x, eps: 1j * x, "x_hat has dtype complex128; expected float64"),
        (lambda x, eps: x.astype(object), "x_hat has dtype object; expected float64"),
        (max, "your function raised"),
        (lambda x, eps: None, "returned nothing; expected x_hat. Is there a return?"),
        (lambda x, eps: "what?", "x_hat is of type str; expected a NumPy array of shape ("),
        (lambda x, eps: x[:4], "x_hat has shape (4, "),
        (lambda x, eps: x_hat_of(x, eps) > 0, "x_hat has dtype bool; expected float64"),
        (lambda x, eps: x * np.nan, " NaN or infinite values"),
        (spoils, "your function changed its argument x"),
    ],
)
def test_nonsense_is_told_what_it_is(answer, message):
    assert message in find_problem("normalize", answer)


def test_an_error_is_shown_with_the_line_of_the_reader_in_which_it_happened():
    def inner(x):
        return x[99]

    def answer(x, eps):
        return inner(x)

    assert find_problem("normalize", answer).endswith("in the line: return x[99]")


def test_scalars_are_named(capsys):
    assert "m′ is of type set; expected a number" in find_problem("count", lambda shape: {1})


def endless(x, eps):
    while True:
        pass


over = threading.Event()  # lets the thread that nobody can stop end with its test


def stubborn(x, eps):
    while not over.is_set():
        try:
            while not over.is_set():
                pass
        except BaseException:
            pass


def asleep(x, eps):
    time.sleep(60)


@pytest.mark.parametrize("answer", [endless, stubborn, asleep])
def test_an_answer_that_never_comes_back_is_stopped(answer, monkeypatch):
    monkeypatch.setattr(judge, "_SECONDS", 0.2)
    over.clear()
    began, threads = time.monotonic(), threading.active_count()
    problem = find_problem("normalize", answer)
    assert "did not come back within 0.2 seconds" in problem
    assert time.monotonic() - began < 30  # not the 60 of `asleep`, on a busy machine either
    assert ("restart the kernel" in problem) == (threading.active_count() > threads)
    over.set()
    while answer is stubborn and threading.active_count() > threads:
        time.sleep(0.01)


def test_endless_loops_are_really_stopped(monkeypatch):
    monkeypatch.setattr(judge, "_SECONDS", 0.2)
    threads = threading.active_count()
    assert "restart" not in find_problem("normalize", endless)
    assert threading.active_count() == threads


def test_what_the_right_answer_compiles_is_not_in_the_reader_s_time(monkeypatch):
    compiled = []

    def reference(x, eps):
        if not compiled:
            compiled.append(time.sleep(0.5))
        return x_hat_of(x, eps)

    slow = dataclasses.replace(_EXERCISES["normalize"], reference=reference, mistakes={})
    monkeypatch.setitem(_EXERCISES, "normalize", slow)
    monkeypatch.setattr(judge, "_SECONDS", 0.4)
    assert find_problem("normalize", x_hat_of) is None


def test_where_there_are_no_threads_it_judges_all_the_same(monkeypatch):
    def cannot(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot)
    assert find_problem("normalize", x_hat_of) is None
    assert "still to be written" in find_problem("normalize", unwritten)


def test_a_wrong_answer_is_sent_to_the_equation(capsys):
    check("normalize", unwritten)
    assert "See the algorithm in the chapter" in capsys.readouterr().out


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="name is 'nope'; expected one of any-rank, averaged-"):
        check("nope", unwritten)


def test_the_example_of_an_exercise_of_ones_own(capsys, monkeypatch, tmp_path):
    example = tmp_path / "example.py"
    example.write_text(textwrap.dedent(exercises.__doc__.split("::\n")[1]))
    monkeypatch.setattr(judge, "_EXERCISES", dict(_EXERCISES))
    runpy.run_path(str(example))
    check("center", lambda x: x - x.mean(0))
    verify("center")
    wrong, why, see, right = capsys.readouterr().out.splitlines()
    assert wrong.startswith("✗ center: centered is off by") and right.startswith("✓ center")
    assert why == "  This is what comes out when all features share one mean."
    assert see == "  See the definition of the mean."


def test_the_page_for_teachers_shows_what_happens(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(judge, "_EXERCISES", dict(_EXERCISES))
    page = tmp_path / "page.py"
    page.write_text("".join(re.findall(r"```python\n(.*?)```", TEACHING, re.DOTALL)))
    runpy.run_path(str(page))
    shown = re.findall(r"```text\n(.*?)```", TEACHING, re.DOTALL)
    assert len(shown) == 3
    assert capsys.readouterr().out == "".join(shown)


def test_the_page_for_teachers_lists_every_exercise():
    row = r"^\| `([\w-]+)` \| .+ \| \[(.+)\]\(\.\./(\S+)\) \|$"
    rows = re.findall(row, TEACHING, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == BOOK
    for name, title, path in rows:
        chapter = text_of(ROOT / "book" / path)
        assert f"# {title}\n" in chapter
        assert f":label: ex-{name}\n" in chapter


def mine(**changes):
    given = {
        "name": "mine",
        "see": "here",
        "inputs": lambda rng: {"x": rng.normal(size=3)},
        "reference": lambda x: 2 * x,
        "outputs": ["y"],
    }
    return Exercise(**given | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reference": lambda x: None}, "mine: the reference is rejected: your function returned"),
        (
            {"properties": {"y must be x": lambda answer, x: (answer(), x)}},
            "mine: the reference is rejected: y must be x; yours is off",
        ),
        (
            {"properties": {"y must be x": lambda answer, x: 1 / 0}},
            "y must be x; yours cannot be tried: division by zero",
        ),
        (
            {"mistakes": {"it is right": lambda x: x + x}},
            "the mistake 'it is right' is answered with: it is right",
        ),
        (
            {"mistakes": {"A": lambda x: 3 * x, "B": lambda x: x + 2 * x}},
            "(?s)the mistake 'B' is answered with: y is off.*when A",
        ),
    ],
)
def test_verify_finds_exercises_that_contradict_themselves(changes, message, monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    register(mine())
    verify("mine")
    register(mine(**changes))
    with pytest.raises(ValueError, match=message):
        verify("mine")


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"mistakes": {"the sign is wrong": lambda x: -x + sigma}},  # noqa: F821
            "the mistake 'the sign is wrong' is answered with: your function raised NameError",
        ),
        (
            {"inputs": lambda rng: {"z": rng.normal(size=3)}},
            "mine: the inputs are z; expected a dict with the arguments of the reference, x",
        ),
        ({"inputs": lambda rng: (rng.normal(size=3),)}, "mine: the inputs are a tuple; expected"),
    ],
)
def test_verify_sees_what_could_never_be_recognized(changes, message, monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    register(mine(**changes))
    with pytest.raises(ValueError, match=message):
        verify("mine")


def doubled(x):
    return 2 * x


def test_a_mistake_is_a_function_or_an_edit(monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    mistakes = {"A": ("2 * ", ""), "B": lambda x: -x, "C": ("2", "3")}
    register(mine(reference=doubled, mistakes=mistakes))
    verify("mine")
    assert find_problem("mine", lambda x: 3 * x).endswith("when C.")


def test_an_exercise_has_the_name_of_its_reference(monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})

    @exercise(
        see="2 * x",
        inputs=lambda rng: {"x": rng.normal(size=3)},
        outputs=["2 * x"],
        mistakes={"it is once": ("2 * x", "x")},  # here it stands too, and in `see`
    )
    def two_times(x):
        return 2 * x

    assert two_times(3) == 6
    assert exercises.names() == ["two-times"]
    verify("two-times")


@pytest.mark.parametrize(
    "reference, edit, message",
    [
        (doubled, ("4", "3"), "^mine: the mistake 'A' replaces '4'; .*, and not 0 times"),
        (doubled, ("x", "y"), "^mine: the mistake 'A' replaces 'x'; .*, and not 2 times"),
        (lambda x: 2 * x, ("2", "3"), "^mine: the mistake 'A' is an edit; expected .* by a `def`"),
        (functools.partial(doubled), ("2", "3"), "^mine: the mistake 'A' is an edit; expected"),
        (
            functools.update_wrapper(
                functools.partial(doubled), doubled
            ),  # its source is another's
            ("2", "3"),
            "^mine: the mistake 'A' is an edit; expected",
        ),
        (eval("lambda x: 2 * x"), ("2", "3"), "^mine: the mistake 'A' is an edit; expected"),
        (doubled, ("2 * x", "x + x"), "^mine: the mistake 'A' is answered with: it is right"),
        (doubled, ("2 * x", "z"), "'A' is answered with: your function raised NameError"),
    ],
)
def test_verify_finds_edits_that_make_no_mistake(reference, edit, message, monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    register(mine(reference=reference, mistakes={"A": edit}))
    with pytest.raises(ValueError, match=message):
        verify("mine")


def test_an_edit_that_is_no_python_is_named(monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    register(mine(reference=doubled, mistakes={"A": ("2 *", "2 * (")}))
    with pytest.raises(SyntaxError, match="mine: the mistake 'A'"):
        verify("mine")


@pytest.mark.parametrize(
    "right",
    [lambda x: x[:0], lambda x: x > 0, lambda x: 1j * x, lambda x: 0 * x, lambda x: x.max() > 0],
    ids=["empty", "truth values", "complex", "zero", "one truth value"],
)
def test_right_answers_of_every_kind_can_be_judged(right, monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    register(mine(reference=right))
    verify("mine")
    empty = np.size(right(np.ones(3))) == 0
    assert (find_problem("mine", lambda x: 1 - right(x)) is None) == empty


def test_arrays_of_unequal_length_can_be_arguments(monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    batches = {"batches": [np.arange(3), np.arange(4)]}
    register(mine(inputs=lambda rng: batches, reference=lambda batches: sum(map(sum, batches))))
    verify("mine")
    assert "changed its argument batches" in find_problem("mine", lambda batches: batches.pop())


def test_a_nan_in_an_argument_is_no_change_of_it(monkeypatch):
    monkeypatch.setattr(judge, "_EXERCISES", {})
    inputs = {"inputs": lambda rng: {"x": np.array([1, np.nan])}}
    register(mine(**inputs, reference=lambda x: np.nan_to_num(x)))
    verify("mine")


def test_an_exercise_checks_its_own_fields():
    with pytest.raises(TypeError, match="outputs is 'y'; expected a list of names"):
        mine(outputs="y")
    with pytest.raises(
        ValueError, match="properties has 'y is x'; expected a sentence with 'must'"
    ):
        mine(properties={"y is x": lambda answer, x: (answer(), x)})
    with pytest.raises(TypeError, match=r"the mistake 'A' is '2'; expected a function, or \(old,"):
        mine(mistakes={"A": "2"})


def test_a_dtype_that_the_task_asks_for():
    problem = find_problem("keep-digits", with_each(np.float64, "keep-digits"))
    assert problem == "y has dtype float64; expected float32."


def test_a_float_for_an_integer_is_told_in_plain_words():
    problem = find_problem("count", lambda shape: np.prod(shape) / shape[1])
    assert problem == "m′ is a float; expected an integer (// divides without rest)."


def test_verify_of_an_unknown_name():
    with pytest.raises(ValueError, match="name is 'nope'; expected one of"):
        verify("nope")
