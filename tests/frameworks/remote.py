"""A framework that runs in its own Python, as `bnlib.conventions.measure` wants its layers."""

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import serve
import tomllib

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DECLARED = tomllib.loads((HERE / "frameworks.toml").read_text())
ROWS, ENVIRONMENTS = DECLARED["rows"], DECLARED["environments"]


def folder(environment: str) -> Path:
    return ROOT / ".venv-frameworks" / environment


class Framework:
    """An adapter, running in some Python; `new` makes a layer of it."""

    def __init__(self, python: Path | str, adapter: Path, kind: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [python, "-I", HERE / "serve.py", adapter, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BNLIB_SHOW") else subprocess.DEVNULL,
            env={**os.environ, **env},
        )

    @classmethod
    def row(cls, name: str) -> "Framework":
        """That of a row of frameworks.toml."""
        row = ROWS[name]
        module, kind = row["adapter"].split(":")
        python = folder(row["environment"]) / "bin" / "python"
        return cls(python, HERE / "adapters" / f"{module}.py", kind, **row.get("env", {}))

    def call(self, **message: Any) -> dict[str, Any]:
        serve.write(self.process.stdin, message)
        answer = serve.read(self.process.stdout)
        if answer is None:
            raise RuntimeError(f"the process of the framework ended: {self.process.wait()}")
        if "error" in answer:
            kind, _, text = answer["error"].partition(": ")
            raise type(kind, (Exception,), {})(text)  # as the framework calls it
        return answer

    def new(self, channels: int, ndim: int = 2, state: dict[str, Any] | None = None) -> "Layer":
        """A layer with the framework's defaults, or of a state by the framework's own names."""
        made = self.call(do="new", channels=channels, ndim=ndim, **state or {})
        return (PlainLayer if made["plain"] else Layer)(self, made["layer"])

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Layer:
    def __init__(self, framework: Framework, number: int) -> None:
        self.framework, self.number = framework, number

    def train(self, x: np.ndarray) -> np.ndarray:
        return self._call("train", x=x)["y"]

    def infer(self, x: np.ndarray) -> np.ndarray:
        return self._call("infer", x=x)["y"]

    def state(self) -> dict[str, Any]:
        return self._call("state")

    def _call(self, do: str, **arrays: Any) -> dict[str, Any]:
        return self.framework.call(do=do, layer=self.number, **arrays)


class PlainLayer(Layer):
    def plain(self, x: np.ndarray) -> np.ndarray:
        return self._call("plain", x=x)["y"]
