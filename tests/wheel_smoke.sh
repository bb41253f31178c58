#!/usr/bin/env bash
# Usage: tests/wheel_smoke.sh PYTHON...: builds the wheel, installs it alone in a clean environment of
# each Python, all at the same time, with the newest versions of what it needs, then trains,
# evaluates and generates in an empty folder.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export JAX_PLATFORMS=cpu PIP_DISABLE_PIP_VERSION_CHECK=1
export JAX_DISABLE_MOST_OPTIMIZATIONS=true  # compiling takes longer than the two steps
unset PYTHONPATH

smoke() {  # of one Python, in a folder
  local python="$1" folder="$2" bin="$2/env/bin"
  export MIRAS_CACHE="$folder/cache"
  "$python" -m venv "$folder/env"
  "$bin/pip" install --quiet "$work"/miras_jax-*.whl

  mkdir -p "$folder/here/texts"
  cd "$folder/here"
  "$bin/python" - <<'PYTHON'
import importlib.metadata as metadata, pathlib, sys
import jax, miras

assert "site-packages" in miras.__file__, miras.__file__
assert pathlib.Path(miras.__file__).with_name("py.typed").exists()
assert metadata.version("miras-jax") == miras.__version__
print(f"miras {miras.__version__}, jax {jax.__version__}, Python {sys.version.split()[0]}")
for n in range(30):
    pathlib.Path(f"texts/{n}.txt").write_text(f"text {n}: see the old sea again\n" * (5 + n))
PYTHON
  "$bin/miras" --help >help.txt
  "$bin/miras" presets >presets.txt
  "$bin/miras" train yaad steps=2 width=32 layers=1 heads=2 sequence=64 batch=2 eval_batches=2 \
    validation=0.2 --data texts --out run
  "$bin/miras" eval run --batches 2
  "$bin/miras" generate run --prompt "see " --length 8 --session s.session
  "$bin/miras" generate run --length 8 --session s.session
}

[ $# -gt 0 ] || set -- python3
"$1" -m venv "$work/build"
"$work/build/bin/pip" wheel --quiet --no-deps --wheel-dir "$work" "$root"
runs=()
for python in "$@"; do
  # A shell of its own: errexit is off inside a function whose status is asked for.
  (set -e; smoke "$python" "$work/${#runs[@]}") >"$work/${#runs[@]}.log" 2>&1 &
  runs+=($!)
done
failed=0
for n in "${!runs[@]}"; do
  wait "${runs[$n]}" || failed=1
  cat "$work/$n.log"
done
exit "$failed"
