#!/usr/bin/env bash
# torch 2.13.0 and torchao 0.18.0: X86InductorQuantizer refuses a model that calls one ReLU twice.
#
# Each block of torchvision's ResNets does: one ReLU, after the first convolution and after the sum.
#
# Guessed: prepare_pt2e takes such a model, exported as `torch.export.export` does by default. A
#          ReLU holds nothing, so one that is called twice is as good as two.
# Seen:    a ValueError. With `strict=True` in the export, or with two ReLUs, it is quantized. An
#          export that is not strict, which is the default, says of both calls that they come from
#          the same module, and the quantizer takes them for one piece with two outputs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchao==0.18.0 numpy==2.4.6
"$folder/venv/bin/python" - 2> "$folder/errors" <<'END' | tee "$folder/seen"
import torch
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86


class Block(nn.Module):
    def __init__(self, relus):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relus = nn.ModuleList([nn.ReLU() for _ in range(relus)])

    def forward(self, x):
        y = self.relus[0](self.conv1(x))
        return self.relus[-1](self.conv2(y) + x)


torch.manual_seed(0)
x = torch.randn(1, 3, 8, 8)
for relus in 1, 2:
    for strict in False, True:
        block = Block(relus).eval()
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        program = torch.export.export(block, (x,), strict=strict).module()
        try:
            prepared = prepare_pt2e(program, quantizer)
            prepared(x)
            error = (convert_pt2e(prepared)(x) - block(x)).abs().max()
            result = "quantized" if error < 0.1 else "wrong"
        except ValueError as error:
            result = f"ValueError: {error}"
        print(f"{relus} ReLU, strict={strict}: {result}")
END
diff "$folder/seen" - <<'END' || { cat "$folder/errors"; exit 1; }
1 ReLU, strict=False: ValueError: Input partition has more than one output node
1 ReLU, strict=True: quantized
2 ReLU, strict=False: quantized
2 ReLU, strict=True: quantized
END
