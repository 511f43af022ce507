"""The Triton kernels without a GPU: their values under Triton's interpreter, and that they compile for GPUs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from labo_fairseq.losses import labo
from labo_fairseq.losses.blockwise import BlockKernel

KERNELS = Path(__file__).with_name("triton_kernels_against_pytorch.py")

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from labo_fairseq.losses import triton_kernels

strides = ("row_stride", "grad_stride", "scale_stride", "wanted_stride")
scalars = {**dict.fromkeys((*strides, "n", "k"), "i32"), "target": "*i64", "ignored": "*i1"}
for kernel in (triton_kernels._statistics, triton_kernels._gradient, triton_kernels._rescale):
    for architecture, dtype, uniform in (
        (70, "fp16", False), (80, "fp16", False), (90, "bf16", False), (90, "fp32", False), (90, "bf16", True)
    ):
        adaptive = dtype != "fp32" and not uniform
        kinds = {**scalars, **dict.fromkeys(("logits", "grad", "rows"), "*" + dtype)}
        kinds.update(dict.fromkeys(("terms", "saved", "scale", "wanted"), "*fp32"))
        fixed = {"adaptive": adaptive, "large_tau": dtype == "fp32", "uniform": uniform, "block": 4096}
        fixed.update(with_grad=dtype != "fp16", scaled=uniform, threads=256, width=128 // int(dtype[-2:]))
        names = kernel.arg_names
        signature = {name: "constexpr" if name in fixed else kinds.get(name, "fp32") for name in names}
        constants = {(names.index(name),): value for name, value in fixed.items() if name in names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        target = GPUTarget("cuda", architecture, 32)
        assert "cubin" in triton.compile(source, target=target, options={"num_warps": 8}).asm
"""


def run(*arguments, **variables):
    """A process of its own: Triton reads its variables when it is imported, which torch may do."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout[-3000:]


@needs_triton
def test_under_the_interpreter():
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", KERNELS, TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@needs_triton
def test_on_a_gpu():
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", KERNELS)


@needs_triton
def test_the_kernels_compile(tmp_path):
    run("-c", _COMPILE, TRITON_CACHE_DIR=str(tmp_path))


def test_triton_serves_no_other_logits():
    assert isinstance(labo.labo_kernel(labo.LaboOptions(), torch.zeros(2, 3)), BlockKernel)
