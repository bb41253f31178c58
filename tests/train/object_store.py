"""What the tests of runs on an object store look up in it."""

import json
import re

URL = "s3://bucket/runs/mine"


def markers(store):
    found = store.ls("bucket/runs/mine/checkpoints", refresh=True)
    return sorted(int(m[1]) for m in (re.search(r"/(\d+)\.json$", name) for name in found) if m)


def prefix(store, name):
    return json.loads(store.cat_file(f"bucket/runs/mine/checkpoints/{name}.json"))["prefix"]
