#!/usr/bin/env bash
# Everything that a GPU is needed for, in one command and, on an H200, eight minutes or so: the tests of the kernels, the
# losses in three precisions (beside Liger-Kernel and cut-cross-entropy where they are installed), and short trainings.
#
#   bash scripts/benchmark_gpu.sh                    writes results/gpu/benchmark.json, benchmark.txt and loss.png;
#                                                    stopped, it leaves loss.json and training.json in place of the first
#   bash scripts/benchmark_gpu.sh --out DIR
#   bash scripts/benchmark_gpu.sh --try --out DIR    on the CPU, at sizes that measure nothing
#   LABO_VENV=none bash scripts/benchmark_gpu.sh     with the python on the PATH and its torch, installing nothing
#   bash scripts/benchmark_gpu.sh -- OPTIONS         with options of benchmarks/training.py, such as --methods ls labo
#
# On a machine without network: LABO_VENV=none, wheels carried there, and -- --data DIR, prepared where there is one.
# Liger-Kernel and cut-cross-entropy: pip install liger-kernel cut-cross-entropy
set -euo pipefail
CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
[ -z "$labo_help" ] || exit 0

out=results/gpu
device=cuda
tests=(-m gpu tests/unit/test_triton.py)
comparisons=(logits baselines rdrop projection)
shapes=(2048x10000 4096x40000 8192x131072)
dtypes=(float32 bfloat16 float16)
rounds=3
training=(model=transformer_base --updates 30 --rounds 1 --vocabulary 10000
    --methods ls ce labo "labo, fused" cp fl ls-rdrop labo-rdrop)
while [ $# -gt 0 ]; do
    case "$1" in
        --out) out="${2:?--out needs a directory}" && shift ;;
        --)
            shift
            training+=("$@")
            break
            ;;
        --try)
            device=cpu
            tests=(--version)
            comparisons=(baselines)
            shapes=(64x1000)
            dtypes=(float32)
            rounds=1
            training=(--updates 6 --rounds 1 --vocabulary 300 --methods labo --data "$out/data" model=transformer_tiny
                dataset.max_tokens=400)
            ;;
        *)
            echo "$0: unknown option $1: expected --out DIR, --try or -- OPTIONS" >&2
            exit 2
            ;;
    esac
    shift
done
use_environment dev
if [ "$device" = cuda ] && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "$0: torch finds no GPU here: install a torch that is built for it, or try the benchmark with --try" >&2
    exit 1
fi
mkdir -p "$out"
{
    echo "== kernels against float64"
    python -m pytest -q "${tests[@]}"
    echo "== losses"
    python benchmarks/loss.py --device "$device" --shapes "${shapes[@]}" --dtypes "${dtypes[@]}" \
        --comparisons "${comparisons[@]}" --rounds "$rounds" --out "$out/loss"
    echo "== trainings"
    python benchmarks/training.py "${training[@]}" --out "$out/training.json"
} | tee "$out/benchmark.txt"
python - "$out" <<'PYTHON'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
parts = {name: out / f"{name}.json" for name in ("loss", "training")}
whole = {name: json.loads(part.read_text(encoding="utf-8")) for name, part in parts.items()}
(out / "benchmark.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
for part in parts.values():
    part.unlink()
PYTHON
echo "Wrote $out/benchmark.txt and $out/benchmark.json"
