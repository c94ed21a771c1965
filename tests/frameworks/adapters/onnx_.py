"""A model of one node, in the form that exporters write: the arrays are initializers."""

import io

import numpy as np
import openvino
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession


class Layer:
    arrays = "scale", "B", "input_mean", "input_var"

    def __init__(self, channels, ndim, state=None):
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        fresh = {"scale": one, "B": zero, "input_mean": zero, "input_var": one}
        self.values = {name: (state or fresh)[name] for name in self.arrays}
        self.written = {name: state[name] for name in ("epsilon", "momentum")} if state else {}

    def model(self, x, training=None):
        mode = {} if training is None else {"training_mode": int(training)}
        outputs = ["Y", "running_mean", "running_var"] if training else ["Y"]
        node = helper.make_node(
            "BatchNormalization", ["X", *self.arrays], outputs, **self.written, **mode
        )
        kind = helper.np_dtype_to_tensor_dtype(x.dtype)
        values = {name: helper.make_tensor_value_info(name, kind, None) for name in outputs}
        values["X"] = helper.make_tensor_value_info("X", kind, x.shape)
        graph = helper.make_graph(
            [node],
            "bn",
            [values.pop("X")],
            list(values.values()),
            [numpy_helper.from_array(v.astype(x.dtype), name) for name, v in self.values.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)

    def run(self, model, x):
        return ReferenceEvaluator(model).run(None, {"X": x})

    def plain(self, x):
        return self.run(self.model(x), x)[0]

    def train(self, x):
        y, mean, var = self.run(self.model(x, training=True), x)
        self.values.update(input_mean=mean, input_var=var)
        return y

    def infer(self, x):
        return self.run(self.model(x, training=False), x)[0]

    def state(self):
        return {**self.values, "epsilon": 1e-5, "momentum": 0.9, **self.written}


class Onnxruntime(Layer):
    def run(self, model, x):
        session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"X": x})


class Openvino(Layer):
    """Its own BatchNormInference has other names, and no momentum: the ONNX node brings that."""

    theirs = {"scale": "gamma", "B": "beta", "input_mean": "mean", "input_var": "variance"}

    def __init__(self, channels, ndim, state=None):
        if state:
            arrays = {name: state[own] for name, own in self.theirs.items()}
            state = {**arrays, "epsilon": state["epsilon"], "momentum": 0.9}
        super().__init__(channels, ndim, state)

    def run(self, model, x):
        core = openvino.Core()
        file = io.BytesIO(model.SerializeToString())
        return list(core.compile_model(core.read_model(file), "CPU")(x).values())

    def state(self):
        state = super().state()
        arrays = {own: state[name] for name, own in self.theirs.items()}
        return {**arrays, "epsilon": state["epsilon"]}
