"""The interactive figures: small, right, and usable by keyboard alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from playwright.sync_api import Browser, Locator, Page, expect

import bnlib
from bnlib import experiments, norms, steps
from bnlib.running import merge

SHAPE = 3, 4, 3, 3  # of the figure on axes
SCRIPTS = sorted((ROOT / "book" / "assets" / "interactive").glob("*.js"))
Open = Callable[[str, str], Locator]


@pytest.fixture
def figure(page: Page, site: str) -> Open:
    """Opens a chapter and returns the figure of that name on it."""

    def open_figure(chapter: str, name: str) -> Locator:
        page.goto(f"{site}/book/{chapter}.html")
        found = page.locator(f'[data-interactive="{name}"].bn-ready')
        found.scroll_into_view_if_needed()
        return found

    return open_figure


def number(figure: Locator, name: str) -> str:
    """A number that the figure shows, with an ASCII minus sign."""
    return figure.locator(f'[data-name="{name}"]').inner_text().replace("−", "-")


def arithmetic(figure: Locator, name: str, *arguments: object) -> dict:
    """What the script of a figure computes."""
    call = f"([arguments]) => bn.arithmetic[{json.dumps(name)}](...arguments)"
    return figure.page.evaluate(call, [list(arguments)])


def press(control: Locator, key: str, times: int = 1) -> None:
    """Move a control by keyboard alone."""
    control.focus()
    for _ in range(times):
        control.page.keyboard.press(key)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_small_and_ask_no_other_host(script: Path) -> None:
    assert script.stat().st_size <= 10_000
    source = script.read_text()
    assert source.startswith("/* ")
    assert set(re.findall(r"https?://[^\"'\s]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_minibatch_shows_what_bnlib_computes(figure: Open) -> None:
    shown = figure("idea/transform", "minibatch")
    shown.get_by_label("x of example 1", exact=True).focus()
    for _ in range(3):
        shown.page.keyboard.press("ArrowRight")  # from −3 to −1.5
    x = np.array([-1.5, -1, 1.5, 2, 5.5, 7])[:, None]
    y, cache = bnlib.batch_norm_train(x, eps=1e-5)
    assert number(shown, "mean") == f"{cache.mean[0]:.2f}"
    assert number(shown, "std") == f"{cache.var[0] ** 0.5:.2f}"
    assert number(shown, "normalized").split() == [f"{value:.2f}" for value in y[:, 0]]
    expect(shown.get_by_role("status")).to_contain_text("Mean 2.25")
    for name in "Move all to the right", "Spread":  # as often as one likes
        press(shown.get_by_role("button", name=name), "Enter", 6)
        moved = number(shown, "normalized").split()
        assert np.allclose(np.array(moved, float), y[:, 0], rtol=0, atol=0.011)
    ours = arithmetic(shown, "minibatch", x[:, 0].tolist(), 1e-5)
    assert np.allclose(ours["normalized"], y[:, 0], rtol=0, atol=1e-12)


def test_a_choice_stands_on_the_line_of_its_name(figure: Open) -> None:
    """And not in a fieldset, which each browser lays out in its own way."""
    shown = figure("speed/gpu", "roofline")
    assert shown.locator("fieldset, legend").count() == 0
    groups = shown.get_by_role("radiogroup").all()
    assert len(groups) == 2
    for group in groups:
        parts = group.locator("> *").all()
        expect(group).to_have_accessible_name(parts[0].inner_text())
        boxes = [part.bounding_box() for part in parts]
        middles = [box["y"] + box["height"] / 2 for box in boxes]
        assert max(middles) - min(middles) < 1
        lefts = [box["x"] for box in boxes]
        assert lefts == sorted(lefts)


def test_a_finger_drags_without_scrolling_the_page(browser: Browser, site: str) -> None:
    phone = browser.new_context(
        viewport={"width": 360, "height": 780}, has_touch=True, is_mobile=True
    )
    page = phone.new_page()
    page.goto(f"{site}/book/idea/transform.html")
    handle = page.get_by_role("slider", name="x of example 1")
    page.locator('[data-interactive="minibatch"]').scroll_into_view_if_needed()
    box = handle.bounding_box()
    start = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scrolled, before = page.evaluate("scrollY"), float(handle.get_attribute("aria-valuenow"))
    touch = phone.new_cdp_session(page)
    for step in range(11):  # 60 px to the right, and as many down
        at = {"x": start[0] + 6 * step, "y": start[1] + 6 * step}
        kind = "touchMove" if step else "touchStart"
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert float(handle.get_attribute("aria-valuenow")) >= before + 3.5
    assert page.evaluate("scrollY") == scrolled
    phone.close()


def test_gamma_and_beta_scale_shift_and_undo(figure: Open) -> None:
    shown = figure("idea/transform", "scale-shift")
    x = np.array([-0.3, 0.7, 1.2, 2.2, 3.7, 5.7])[:, None]

    press(shown.get_by_role("slider", name="γ"), "ArrowRight", 5)
    press(shown.get_by_role("slider", name="β"), "ArrowLeft", 7)
    y, _ = bnlib.batch_norm_train(x, np.array([1.5]), np.array([-0.7]), eps=1e-5)
    assert number(shown, "y").split() == [f"{value:.2f}" for value in y[:, 0]]
    assert number(shown, "mean") == f"{y.mean():.2f}"
    assert number(shown, "std") == f"{y.std():.2f}"
    assert number(shown, "straight") == f"{(abs(y) <= 1).sum()} of 6"
    assert number(shown, "off") == f"{abs(y - x).max():.2f}"
    ours = arithmetic(shown, "scale-shift", x[:, 0].tolist(), 1.5, -0.7, 1e-5)
    assert np.allclose(ours["y"], y[:, 0], rtol=0, atol=1e-12)

    press(shown.get_by_role("button", name="Undo the normalization"), "Enter")
    assert number(shown, "y").split() == [f"{value:.2f}" for value in x[:, 0]]
    assert number(shown, "off") == "0.00"
    assert number(shown, "saturated") == f"{(abs(x) > 3.637).sum()} of 6"
    expect(shown.get_by_role("slider", name="β")).to_have_attribute("aria-valuetext", "2.20")
    expect(shown.get_by_role("status")).to_contain_text("Mean of y 2.20")


def test_saturation_follows_the_inputs_until_they_are_normalized(figure: Open) -> None:
    shown = figure("idea/why", "saturation")

    press(shown.get_by_role("slider", name="Mean"), "ArrowLeft", 4)  # 1
    press(shown.get_by_role("slider", name="Spread"), "ArrowRight", 10)  # 4
    z = np.random.default_rng(0).normal(size=100_000)

    def check(inputs: np.ndarray) -> None:
        s = 1 / (1 + np.exp(-inputs))
        saturated, slope = (number(shown, name).split()[0] for name in ("saturated", "slope"))
        assert abs(float(saturated) - 100 * (abs(inputs) > 3.637).mean()) < 3  # of 1,000 inputs
        assert abs(float(slope) - (s * (1 - s)).mean()) < 0.006

    check(1 + 4 * z)
    press(shown.get_by_label("as they are"), "ArrowRight")
    check(z)

    x = [-5.0, -3.637, -3.636, 0.5, 2, 3.638]
    ours = arithmetic(shown, "saturation", x)
    s = 1 / (1 + np.exp(-np.array(x)))
    assert np.isclose(ours["slope"], (s * (1 - s)).mean(), rtol=1e-12)
    assert np.isclose(ours["saturated"], (s * (1 - s) < 0.025).mean())


def test_batch_size_shows_the_errors_of_its_mini_batches(figure: Open) -> None:
    shown = figure("idea/why", "batch-size")
    press(shown.get_by_role("slider", name="Batch size"), "ArrowRight")  # from 16 to 32
    press(shown.get_by_role("button", name="Draw again"), "Enter")
    batches = np.array(arithmetic(shown, "batch-size", 2, 32)["batches"])
    assert batches.shape == (200, 32)
    assert abs(batches.mean()) < 0.05 and abs(batches.var() - 1) < 0.05
    error = np.sqrt(np.mean(batches.mean(axis=1) ** 2))
    assert number(shown, "error") == f"{error:.3f}"
    assert number(shown, "expected") == f"1/√m = {32**-0.5:.3f}"
    press(shown.get_by_label("mean μ", exact=True), "ArrowRight")
    error = np.sqrt(np.mean((batches.var(axis=1) - 1) ** 2))
    assert number(shown, "error") == f"{error:.3f}"
    assert number(shown, "expected").endswith(f"{(2 / 32) ** 0.5:.3f}")


def test_momentum_follows_as_running_statistics_do(figure: Open) -> None:
    shown = figure("idea/inference", "momentum")

    def averages(means: list[float], alpha: float | None) -> np.ndarray:
        stats, found = bnlib.RunningStats(1, momentum=alpha), []
        for mean in means:
            stats.update(np.array([float(mean)]), np.ones(1), 60)
            found.append(stats.mean[0])
        return np.array(found)

    def check(path: str, m: int, alpha: float | None) -> None:
        ours = arithmetic(shown, "momentum", path, m, alpha)
        truth = np.array(ours["population"])
        followed, steady = (averages(ours[name], alpha) for name in ("means", "population"))
        assert np.allclose(ours["followed"], followed, rtol=0, atol=1e-12)
        differences = {"lag": steady - truth, "noise": followed - steady, "error": followed - truth}
        for name, difference in differences.items():
            assert number(shown, name) == f"{np.sqrt(np.mean(difference[150:] ** 2)):.3f}"

    check("jumps", 16, 0.1)
    press(shown.get_by_role("slider", name="α"), "ArrowLeft", 4)
    press(shown.get_by_label("jumps"), "ArrowLeft")
    press(shown.get_by_label("16", exact=True), "ArrowRight")
    check("drifts", 60, 0.01)
    press(shown.get_by_label("moving", exact=True), "ArrowRight")
    check("drifts", 60, None)
    expect(shown.get_by_role("slider", name="α")).to_be_disabled()


def column(shown: Locator, name: str) -> list[str]:
    """The numbers of a node of the graph, with ASCII minus signs."""
    texts = shown.locator(f'[data-name="{name}"]').all_text_contents()
    return [text.replace("−", "-") for text in texts]


def test_graph_walks_as_the_steps_of_bnlib(figure: Open) -> None:
    shown = figure("idea/backward", "graph")
    tap, said = shown.page.keyboard.press, shown.get_by_role("status")

    shown.get_by_role("slider", name="x of example 3").focus()
    tap("ArrowLeft")  # from 6 to 5.5
    shown.get_by_role("slider", name="dy of example 1").focus()
    tap("ArrowRight")
    tap("ArrowRight")  # from 0.5 to 1
    x, dy = np.array([[1], [2], [5.5]]), np.array([[1], [-0.5], [1.5]])
    gamma, beta = np.array([1.5]), np.array([0.5])
    y, v = steps.forward(x, gamma, beta)
    dx, dgamma, dbeta, d = steps.backward(dy, v)
    values = {**vars(v), "x": x, "beta": beta, "y": y}
    derivatives = {**vars(d), "x": dx, "gamma": dgamma, "beta": dbeta, "y": dy}
    assert len(values) == len(derivatives) == 12

    ours = arithmetic(shown, "graph", x[:, 0].tolist(), dy[:, 0].tolist(), 1.5, 0.5, 1e-5)
    for theirs, name in (values, "v"), (derivatives, "d"):
        for node, value in theirs.items():
            assert np.allclose(ours[name][node], np.ravel(value), rtol=1e-13, atol=1e-15), node

    def written(value: np.ndarray) -> list[str]:
        return [f"{number:.2f}" for number in np.ravel(value)]

    assert column(shown, "x") == written(x) and column(shown, "mean") == column(shown, "dy") == []
    following = shown.get_by_role("button", name="Next")
    following.focus()
    for step in range(1, 20):
        tap("Enter")
        if step == 9:
            assert all(column(shown, node) == written(values[node]) for node in values)
            assert column(shown, "dscaled") == []
        if step == 13:  # only one of the two arrows that leave `centered` has come back
            assert column(shown, "dcentered") == written(d.x_hat * v.inv_std)
            assert column(shown, "dvar") == column(shown, "dx") == []
        if step == 17:
            assert column(shown, "dcentered") == written(d.centered) and not column(shown, "dx")
            parts = *(d.x_hat * v.inv_std)[0], *(2 * v.centered * d.squared)[0], *d.centered[0]
            total = "example 1: {:.3f} + {:.3f} = {:.3f}".format(*parts)
            expect(shown.locator(".bn-words")).to_contain_text(total.replace("-", "−"))
    for node in values:
        assert column(shown, node) == written(values[node])
        assert column(shown, f"d{node}") == written(derivatives[node])
    expect(said).to_contain_text("Backward 9 of 9: the mean")
    tap("Enter")  # starts again
    assert column(shown, "mean") == []
    shown.page.emulate_media(media="print")
    expect(shown.locator('[data-name="dx"]')).to_have_count(3)


def test_axes_light_what_shares_a_mean(figure: Open) -> None:
    shown = figure("idea/convolution", "axes")
    x = np.random.default_rng(0).normal(1, 2, SHAPE)

    def normalize(x: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)

    wrong = normalize(x.transpose(0, 2, 3, 1), (0, 2, 3)).transpose(0, 3, 1, 2)
    expected = {  # how many values share a mean, and what comes out
        "batch": (27, bnlib.batch_norm_train(x, eps=1e-5)[0]),
        "layer": (36, normalize(x, (1, 2, 3))),
        "instance": (9, normalize(x, (2, 3))),
        "group": (18, normalize(x.reshape(3, 2, -1), 2)),
        "each position": (3, normalize(x, 0)),
        "wrong axes": (36, wrong),
    }
    ring = shown.get_by_role("slider", name="The chosen number")
    ring.focus()
    for key in "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown":
        shown.page.keyboard.press(key)
    expect(ring).to_have_attribute("aria-valuetext", "image 1, channel 2, row 0, column 0")
    shown.get_by_role("button", name="Change image 2").press("Enter")
    for name, (count, y) in expected.items():
        shown.get_by_label(name, exact=True).press("Space")
        way = {"each position": "position", "wrong axes": "wrong"}.get(name, name)
        ours = arithmetic(shown, "axes", x.ravel().tolist(), SHAPE, way, 1e-5)
        assert np.allclose(ours["normalized"], y.ravel(), rtol=0, atol=1e-12), name
        assert number(shown, "count") == f"{count} values"
        assert shown.locator('[data-lit="true"]').count() == count
        alone = name in ("layer", "instance", "group")
        assert number(shown, "changed") == f"{0 if alone else 36} of 36 outputs"


def test_family_shows_what_each_norm_does_not_see(figure: Open) -> None:
    shown = figure("why/relatives", "family")
    notebook = nbformat.read(ROOT / "book" / "why" / "relatives.ipynb", 4)
    printed = "".join(
        out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", [])
    )
    table = dict(re.findall(r"^(\S+) +((?:[x·] +){5}[x·])$", printed, re.MULTILINE))
    table |= {"ghost batch": "· · · · x ·", "each position": table["layer"]}
    eps = 1e-12
    members: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {  # with the lit values
        "batch": (12, lambda h: bnlib.batch_norm_train(h, eps=eps)[0]),
        "ghost batch": (6, lambda h: norms.ghost_batch_norm_train(h, size=2, eps=eps)[0]),
        "layer": (18, lambda h: norms.layer_norm(h, eps=eps)[0]),
        "each position": (6, lambda h: norms.layer_norm(h, each_position=True, eps=eps)[0]),
        "group": (6, lambda h: norms.group_norm(h, 3, eps=eps)[0]),
        "instance": (3, lambda h: norms.instance_norm(h, eps=eps)[0]),
        "RMS": (18, lambda h: norms.rms_norm(h, eps=eps)[0]),
        "tanh": (1, lambda h: norms.dynamic_tanh(h, 0.5)[0]),
        "none": (1, lambda h: h),
    }
    rng = np.random.default_rng(1)
    w, b, x = rng.normal(size=(6, 7)), np.zeros(6), rng.normal(0.5, 1, (4, 7, 3))
    one, (first, _, _, last) = np.eye(6)[2], 1 + 2 * np.eye(4)[:, :, None, None]
    changes = {
        "all W × 3": (3 * w, b, x),
        "one W × 3": (w * (1 + 2 * one[:, None]), b, x),
        "one b + 5": (w, b + 5 * one, x),
        "all b + 5": (w, b + 5, x),
        "example 0 × 3": (w, b, first * x),
        "example 3 × 3": (w, b, last * x),
    }
    ring = shown.get_by_role("slider", name="The chosen number")
    expect(ring).to_have_attribute("aria-valuetext", "example 0, channel 2, position 1")
    for name, (lit, norm) in members.items():
        shown.get_by_label(name, exact=True).press("Space")
        assert number(shown, "count") == (f"{lit} values" if lit > 1 else "none")
        assert shown.locator('[data-lit="true"]').count() == lit
        way = {"ghost batch": "ghost", "each position": "position"}.get(name, name)
        ours = arithmetic(shown, "family", [v.tolist() for v in (w, 5 * one, x)], way, eps)
        after = w @ x + 5 * one[:, None]
        assert np.allclose(ours["h"], after.ravel(), rtol=0, atol=1e-12)
        assert np.allclose(ours["y"], norm(after).ravel(), rtol=0, atol=1e-12), name
        for mark, (change, changed) in zip(table[name].split(), changes.items(), strict=True):
            after = changed[0] @ changed[2] + changed[1][:, None]
            shown.get_by_label(change, exact=True).press("Space")
            moved = abs(norm(after) - norm(w @ x)) > 1e-6
            assert number(shown, "changed") == f"{moved[0].sum()} of 18 outputs", (name, change)
            assert moved[0].any() == (mark == "x"), (name, change)
            assert shown.locator("circle").count() == (after != w @ x).sum() + moved.sum()
    press(ring, "ArrowDown")
    press(ring, "ArrowRight", 5)  # over the edge of example 0
    expect(ring).to_have_attribute("aria-valuetext", "example 2, channel 3, position 0")
    expect(shown.get_by_role("status")).to_contain_text(
        "example 3 × 3: 18 h move, and 0 of the 18 outputs of example 0."
    )


def test_float32_rounds_as_numpy_does(figure: Open) -> None:
    shown = figure("speed/numerics", "float32")
    z = np.random.default_rng(0).normal(size=12)
    for mean, std in (0.1, 1), (100, 1), (4096, 1), (1e4, 0.01), (1e6, 3), (1e8, 0.01):
        ours = arithmetic(shown, "float32", z.tolist(), mean, std)
        x = (mean + std * z).astype(np.float32)
        x = x[:, None].repeat(2, axis=1)  # so that NumPy adds one value after the other
        assert ours["x"] == x[:, 0].tolist()
        assert ours["two"] == x.var(axis=0)[0]
        for name, d in ("one", x), ("shifted", x - x[0]):
            assert ours[name] == ((d * d).mean(axis=0) - d.mean(axis=0) ** 2)[0], (name, mean)
        var = bnlib.batch_norm_train(x)[1].var[0]
        assert np.isclose(ours["bnlib"], var, rtol=1e-9, atol=1e-15)
        wide = x[:, 0].astype(np.float64)
        wide -= wide[0]
        assert np.isclose(ours["exact"], wide.var(), rtol=1e-13, atol=0)
        gap = shown.page.evaluate("x => bn.arithmetic.spacing(x)", float(x[0, 0]))
        assert gap == np.spacing(abs(x[0, 0]))

    def digits(name: str) -> float:
        text = shown.locator(f'[data-name="{name}"]').text_content()
        return float(text.split(",")[0].removesuffix(" or more"))

    assert digits("one") < 5 and digits("two") >= 6
    shown.get_by_label("Mean μ").focus()
    for _ in range(20):
        shown.page.keyboard.press("ArrowRight")  # from 100 to 10,000
    assert number(shown, "ratio") == "10,000" and digits("one") == 0
    assert number(shown, "gap") == "9.8 · 10⁻⁴" and digits("shifted") >= 6
    shown.page.keyboard.press("End")
    assert digits("two") == 0 and digits("bnlib") == 7
    expect(shown.get_by_role("status")).to_contain_text("two passes 0.0")


def numbers(text: str) -> list[float]:
    """All numbers in a text."""
    return [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-"))]


def test_rates_shows_the_recorded_runs(figure: Open) -> None:
    shown = figure("mnist/learning-rate", "rates")
    table = experiments.study("learning-rate", full=True)
    table = table[(table["net"] == "CNN") & (table["depth"] == 6)]
    each = experiments.runs(table)

    shown.get_by_label("ReLU MLP", exact=True).focus()
    shown.page.keyboard.press("ArrowRight")  # the CNN
    press(shown.get_by_label("Learning rate", exact=True), "ArrowRight")
    assert shown.get_by_label("12", exact=True).is_disabled()  # there is no such run
    rate = shown.get_by_label("Learning rate", exact=True).get_attribute("aria-valuetext")
    assert rate == "1"
    for name, batch_norm in ("without", False), ("with", True):
        runs = each[(each["lr"] == float(rate)) & (each["batch_norm"] == batch_norm)]
        median, least, most = (100 * v for v in experiments.interval(runs["test"]))
        text = number(shown, name)
        assert text.startswith(f"{median:.1f} % ({least:.1f} to {most:.1f})")
        lost = runs.loc[runs["outcome"] == "diverged", "last_step"].tolist()
        assert ("overflow" in text) == bool(lost)
        if lost:
            assert numbers(text)[3:5] == [len(lost), 5]
            assert set(numbers(text.split("step")[1].split(";")[0])) == {min(lost), max(lost)}
        low = int((runs["test"] < 0.5).sum()) - len(lost)
        assert (f"{low} of 5 end below 50 %" in text) == (low > 0)

    ends = [round(1000 * v) for v in runs["test"]]
    ours = arithmetic(shown, "rates", ends)
    assert [ours["median"], ours["least"], ours["most"]] == list(experiments.interval(ends))
    assert ours["low"] == sum(end < 500 for end in ends)

    data = json.loads(shown.locator("script").text_content())
    assert len(data) == 10
    (sweep,) = (one for one in data if (one["net"], one["depth"]) == ("CNN", 6))
    for (batch_norm, lr, seed), run in table.groupby(["batch_norm", "lr", "seed"]):
        at = int(batch_norm), sweep["rates"].index(lr), seed
        curve, lost = (sweep[key][at[0]][at[1]][at[2]] for key in ("runs", "lost"))
        steps = [*sweep["steps"][: len(curve) - 1], lost or sweep["steps"][-1]]
        recorded = run.set_index("step")["test"]
        assert curve == [round(1000 * accuracy) for accuracy in recorded[steps]]
        assert recorded.index[-1] == steps[-1] and bool(lost) != np.isfinite(run["loss"].iloc[-1])


def expected_squares(lr: float, decay: float, mu: float, start: float, steps: int) -> np.ndarray:
    """E‖w‖² and the turn of each step, from the matrix of second moments of w and v."""
    moments, found = np.array([[start**2, 0.0], [0.0, 0.0]]), []
    v_and_w = np.array([[1 - lr * decay, -lr * mu], [decay, mu]])  # of (w, v), without gradients
    for _ in range(steps):
        gradient = np.outer([-lr, 1], [-lr, 1]) / moments[0, 0]
        step = np.array([decay, mu]) @ moments @ np.array([decay, mu]) + 1 / moments[0, 0]
        along = np.array([decay, mu]) @ moments[:, 0] / moments[0, 0]
        across = np.sqrt(step - along**2 * moments[0, 0])
        angle = np.arctan2(lr * across, (1 - lr * along) * np.sqrt(moments[0, 0]))
        moments = v_and_w @ moments @ v_and_w.T + gradient
        found.append([np.sqrt(moments[0, 0]), np.degrees(angle)])
    return np.array(found)


def test_equilibrium_goes_to_its_lines(figure: Open) -> None:
    shown = figure("why/scale", "equilibrium")
    for given in (0.1, 0.01, 0.0, 4.0, 300), (0.02, 0.05, 0.9, 0.5, 300):
        ours = arithmetic(shown, "equilibrium", *given)
        length, turn = expected_squares(*given).T
        assert np.allclose(ours["length"][1:], length, rtol=1e-9)
        assert np.allclose(ours["turn"], turn, rtol=1e-9)
    press(shown.get_by_role("slider", name="Rate η"), "ArrowLeft")  # from 0.1 to 0.05
    press(shown.get_by_role("slider", name="Decay λ"), "ArrowRight")  # from 0.01 to 0.02
    press(shown.get_by_label("0", exact=True), "ArrowRight", 2)  # momentum 0.9
    length, turn = expected_squares(0.05, 0.02, 0.9, 4.0, 2000)[-1]
    ends = (0.05 / 0.04 / 0.1) ** 0.25, np.degrees(np.sqrt(0.002 / 1.9)), np.sqrt(0.02)
    shows = [numbers(number(shown, name)) for name in ("length", "turn", "rate")]
    assert np.allclose(shows, np.transpose([[length, turn, 0.5 / length**2], ends]), rtol=5e-3)
    assert number(shown, "relaxation") == "25 steps"
    expect(shown.get_by_role("status")).to_contain_text("After 2,000 steps: length")


def test_roofline_shows_the_bounds_of_the_chapter(figure: Open) -> None:
    notebook = nbformat.read(ROOT / "book" / "speed" / "gpu.ipynb", 4)
    printed = "".join(
        out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", [])
    )
    arithmetic_ms = re.search(r"12 operations a value: +(\S+) ms", printed)[1]
    by_passes = dict(re.findall(r"(?:forward|operations) +(\d+): +(\S+) ms", printed))
    shown = figure("speed/gpu", "roofline")
    for label, passes in ("separate operations, 48 passes", 48), ("8 passes", 8):
        shown.get_by_label(label, exact=True).check()
        assert number(shown, "bound") == f"{by_passes[str(passes)]} ms: the bytes decide"
        assert float(number(shown, "intensity")) == 12 / (4 * passes)
    expect(shown.get_by_text(f"the arithmetic takes {arithmetic_ms} ms")).to_be_visible()

    shown.get_by_label("8 passes", exact=True).focus()
    shown.page.keyboard.press("ArrowRight")  # 5 passes
    shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("ArrowRight")  # bfloat16
    press(shown.get_by_label("Images", exact=True), "ArrowRight")
    assert number(shown, "moved") == f"{5 * 2 * 288 * 256 * 56**2 / 1e9:.2f} GB"
    press(shown.get_by_label("Peak of the arithmetic", exact=True), "Home")
    seconds = 12 * 288 * 256 * 56**2 / 2e12
    assert number(shown, "bound") == f"{1000 * seconds:.3f} ms: the arithmetic decides"
    press(shown.get_by_label("Bandwidth", exact=True), "ArrowDown")
    assert float(number(shown, "machine").split()[0]) < 4.8
    shown.get_by_text("Back to the H200").press("Enter")
    assert number(shown, "machine").startswith("4.8 trillion bytes, 67 trillion operations")


def test_merge_shows_what_bnlib_merges(figure: Open) -> None:
    shown = figure("speed/distributed", "merge")
    press(shown.get_by_label("Example 4 on rank 1", exact=True), "ArrowLeft")  # from 2 to 1.5
    shown.get_by_label("Example 8 on rank 2", exact=True).focus()
    shown.page.keyboard.press("Tab")  # the rank that it is on
    shown.page.keyboard.press("ArrowLeft")
    parts = [np.array(part)[:, None] for part in ([1, 2, 3], [1.5, 9.5], [6.5, 7.5, 8.5])]
    counts, means = [len(part) for part in parts], [part.mean(axis=0) for part in parts]
    m2s = [part.var(axis=0) * len(part) for part in parts]
    n, mean, m2 = merge(counts, np.array(means), np.array(m2s))
    for r in range(3):
        rounded = [counts[r], round(means[r][0], 2), round(m2s[r][0], 2)]
        assert numbers(number(shown, f"rank{r}").translate(SUBSCRIPTS)) == rounded
    last = [numbers(number(shown, name))[-1] for name in ("n", "mean", "m2", "variance")]
    assert np.allclose(last, [n, mean[0], m2[0], m2[0] / n], rtol=0, atol=0.0051)
    x = np.concatenate(parts)
    whole = [x.mean(), x.var()]
    assert np.allclose(numbers(number(shown, "whole")), whole, rtol=0, atol=0.0051)
    equal = np.mean(means), np.mean([(part**2).mean() for part in parts]) - np.mean(means) ** 2
    assert np.allclose(numbers(number(shown, "equal")), equal, rtol=0, atol=0.0051)
    assert abs(equal[0] - x.mean()) > 0.05
    expect(shown.get_by_role("status")).to_contain_text(f"Merged: mean {mean[0]:.2f}")

    rng = np.random.default_rng(0)
    parts = [rng.normal(k, 1, size) for k, size in enumerate((5, 0, 40))]
    ours = arithmetic(shown, "merge", [part.tolist() for part in parts])
    x = np.concatenate(parts)
    assert ours["counts"] == [5, 0, 40]
    assert np.allclose([ours["mean"], ours["variance"]], [x.mean(), x.var()], rtol=1e-12)
    assert np.allclose(ours["within"], sum(p.var() * len(p) for p in parts if len(p)), rtol=1e-12)


SUBSCRIPTS = str.maketrans("", "", "₀₁₂")
