"""What is replaced in the commands of the pages, by page, where they take longer than a test needs.

Runs whose model is not what the page is about are of one model and one size, so that most find
their step compiled.
"""

ROWS = "chunk=16 batch=2 eval_batches=1"
SIZE = f"width=16 layers=1 heads=2 sequence=32 {ROWS}"
TINY = f"steps=2 {SIZE}"
ANY = f"linear_attention {TINY}"

SMALL = {
    "docs/tasks.md": {
        "task.examples=32000": "task.examples=64",
        "layers=2 width=64": "layers=1 width=16",
        "steps=1000": "steps=2",
        "sequence=64 batch=32": "sequence=64 batch=2 eval_batches=1",
        "--lengths 64,256,1k --depths 0 --examples 90": "--lengths 64 --depths 0 --examples 4",
    },
    "docs/training.md": {
        "yaad steps=20 width=32 heads=2 layers=2 sequence=64 log_every=5": ANY,
        "eval runs/first --batches 4": "eval runs/first --batches 1",
        "steps=10 learning_rate=1e-3 sequence=128": "steps=2 learning_rate=1e-3 sequence=64",
        "yaad bias=l2 width=32 heads=2 layers=2 mlp_ratio=4 --from runs/first steps=2": ANY
        + " bias=l2 mlp_ratio=4 --from runs/first",
        "--length 40": "--length 8",
        "layers=4 sequence=64 --dry-run": "layers=2 sequence=32 --dry-run",
        " steps=4 \\\n    width=16 heads=2 layers=1 sequence=32": " " + TINY,
        'steps=8 width=16 heads=2 layers=1 sequence=32 "\n': TINY + ' "\n',
        "log_every=4 health_every=4": "log_every=1 health_every=1",
        "steps=8 width=16 heads=2 layers=1 sequence=32 log_every=4 \\": TINY + " log_every=1 \\",
        "steps=4 width=16 heads=2 layers=1 sequence=32 --out runs/spikes": TINY
        + " --out runs/spikes",
        '"steps=8",': '"steps=2", "batch=2", "eval_batches=1", "chunk=16",',
        "batches=8": "batches=1",
    },
    "docs/quickstart.md": {
        "yaad steps=10 width=32 layers=1 heads=2": ANY,
        "--batches 4": "--batches 1",
        "--length 40": "--length 8",
        "prompt, 40, seed=1": "prompt, 8, seed=1",
    },
    "docs/streaming.md": {
        "yaad steps=10 width=32 layers=1 heads=2": ANY,
        "of a long book\\n' * 200": "of a long book\\n' * 20",
        '"width=32", "layers=2", "heads=2")': '"width=16", "layers=1", "heads=2")',
        'yaad"), "width=32", "layers=2"), nnx.Rngs(0))\ntokens = jnp.asarray(\n': "linear_attention"
        '"), "width=16", "layers=1", "heads=2"), nnx.Rngs(0))\ntokens = jnp.asarray(\n',
        'yaad"), "width=32", "layers=2"), nnx.Rngs(0))\ntokens = jnp.asarray([': "linear_attention"
        '"), "width=16", "layers=1", "heads=2"), nnx.Rngs(0))\ntokens = jnp.asarray([',
        'def f(x):" --length 20': 'def f(x):" --length 4',
        'def g(x):" --length 20': 'def g(x):" --length 4',
        "--length 20 --session book": "--length 4 --session book",
    },
    "docs/inspect.md": {
        "yaad steps=4 width=32 heads=2 layers=2 sequence=64 eval_batches=1": ANY,
    },
    "docs/operate.md": {
        "yaad profile=3:4 steps=4 width=16 heads=2 layers=1 sequence=32 batch=2": "linear_attention"
        f" profile=3:4 steps=4 {SIZE}",
        "log_every=1 eval_every=2 --out": "log_every=1 eval_every=2 " + ROWS + " --out",
        "log_every=1 eval_every=2 \\": "log_every=1 eval_every=2 " + ROWS + " \\",
    },
    "docs/staleness.md": {
        "width=32 layers=1": "width=16 layers=1",
        "--length 128 --chunks 1,4,16,64 --refine 0,1": "--length 32 --chunks 1,16 --refine 0,1",
    },
    "docs/ablation.md": {
        "steps=6 ": "steps=2 ",
        "chunk=16,24": "chunk=16",
        "eval_batches=2": "eval_batches=1",
    },
    "docs/genomics.md": {
        "train yaad data.source=genome.fa": "train linear_attention data.source=genome.fa",
        "steps=20 width=16 layers=1 heads=2 sequence=64 batch=4 eval_batches=2": TINY,
        "eval runs/genome --batches 2": "eval runs/genome --batches 1",
        "--length 20": "--length 4",
        "train yaad task=classify": "train linear_attention task=classify",
        "steps=6 width=16 layers=1 heads=2 sequence=32 batch=8": TINY,
        "steps=6 learning_rate=1e-3 \\\n    batch=8": "learning_rate=1e-3",
        'preset("yaad")': 'preset("linear_attention")',
    },
    "docs/blocks.md": {
        "train yaad channel=cms": "train linear_attention channel=cms",
        "steps=4 width": "steps=2 width",
        "batch=1 ": "batch=2 ",
    },
    "docs/interop.md": {"width=32 layers=2 heads=2": "width=16 layers=1 heads=2"},
    "docs/forecasting.md": {
        "steps=20 width": "steps=2 width",
        "batch=16 eval_batches=4": "batch=2 eval_batches=1",
    },
}
